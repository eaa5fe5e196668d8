"""Eq. 1 as one would write it first: the batch as a whole, one generator for all of it, full kernels and no FFT.

It is what batching alone brings, and what :mod:`rnr.degradation` has to beat. Small things that hardly take time, the
kernels and the scale of severities, are rnr's own.
"""

import torch
from kornia.filters import filter2d
from torch import Tensor

from rnr.degradation import Degrader, fog, noise, rain, shake

PRIOR = Degrader()


def degrade(image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """All four degradations. image: (B, 3, H, W), depth: (B, 1, H, W), both in [0, 1] -> image and severity (B, 4)."""
    batch, _, height, width = image.shape

    def uniform(bounds: tuple[float, float], *shape: int) -> Tensor:
        return torch.empty(batch, *shape, device=image.device).uniform_(*bounds)

    light = uniform(PRIOR.fog.atmospheric_light, 3, 1, 1)
    t = torch.exp(-uniform(PRIOR.fog.beta, 1, 1, 1) * depth).clamp(0.05, 1)
    image = (image * t + light * (1 - t)).clamp(0, 1)

    draws = torch.rand(batch, PRIOR.shake.draws, dtype=torch.float64, device=image.device)
    kernel = PRIOR.shake.sample(draws).kernel.float()
    image = filter2d(image, kernel.flip(-2, -1), border_type="reflect").clamp(0, 1)

    seeds = (torch.rand(batch, 1, height, width, device=image.device) < uniform(PRIOR.rain.density, 1, 1, 1)).float()
    streak = rain.line(uniform(PRIOR.rain.slant), uniform(PRIOR.rain.length), uniform(PRIOR.rain.width))
    mask = filter2d(seeds, streak.flip(-2, -1), border_type="constant").clamp(max=1)
    alpha = uniform(PRIOR.rain.opacity, 1, 1, 1) * mask
    image = (image * (1 - alpha) + light * alpha).clamp(0, 1)

    sigma = (uniform(PRIOR.noise.k, 1, 1, 1) * image + uniform(PRIOR.noise.b, 1, 1, 1) / 255).clamp(min=0)
    image = (image + sigma * torch.randn_like(image)).clamp(0, 1)

    severity = [
        fog.severity(t.mean(dim=(1, 2, 3))),
        shake.severity(shake.moments(kernel).rms_radius),
        rain.severity((alpha > rain.VISIBLE).float().mean(dim=(1, 2, 3))),
        noise.severity((sigma**2).mean(dim=(1, 2, 3))),
    ]
    return image, torch.stack(severity, dim=1)
