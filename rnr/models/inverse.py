"""The inverse of Eq. 1, driven by a diagnosis: sensor noise and shake undone by a Wiener filter, then fog by its A and t.

Given I = k * (J t + A (1 - t)) + n, the foggy sharp photo is estimated in the Fourier domain as

    conj(K) I / (|K|^2 + N / S),      N the diagnosed noise power, S ~ 1 / f^2 that of natural photos,

which is a plain denoiser where the kernel K is 1. Then J = (I - A (1 - t)) / t, with t(x) from the dark channel,
bent so that its mean is the diagnosed one. All of it is differentiable in the photo, and the identity for what the
diagnosis calls absent. It is a guess that a network refines, not a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.filters import guided_blur
from torch import Tensor

from rnr.degradation.noise import sigma
from rnr.degradation.shake import RADIUS, TAPS, gaussian_kernel
from rnr.diagnosis import Diagnosis

POOL = 4  # the transmission map is estimated on a copy this many times smaller
WINDOW = 7  # of the dark channel, in pixels of that copy
MISMATCH = 0.02  # power of the error in the kernel's response, as a share of the signal
FLOOR = 0.1  # fog is never divided out by less than this transmission


@dataclass(frozen=True)
class Physics:
    """What the inverse needs of B diagnoses, with the values that change nothing where something is absent or not
    stated. light: (B, 3). transmission: (B,). doubt: (B,), of the fog, 0 where it is certain or absent, to 1 where it might
    as well be absent. kernel: (B, 33, 33). k, b: (B,), -inf in b where there is no noise."""

    light: Tensor
    transmission: Tensor
    doubt: Tensor
    kernel: Tensor
    k: Tensor
    b: Tensor

    @classmethod
    def of(cls, diagnoses: Sequence[Diagnosis | None], like: Tensor) -> "Physics":
        """On the device and in the type of ``like``."""
        light, transmission, doubt, blur, noise = [], [], [], [], []
        for diagnosis in diagnoses:
            fog, shake, readout = (diagnosis and diagnosis[kind] for kind in ("fog", "shake", "noise"))
            foggy = fog is not None and fog.transmission is not None
            light.append(fog.atmospheric_light if foggy else (1.0, 1.0, 1.0))
            transmission.append(fog.transmission if foggy else 1.0)
            doubt.append(min(2 - 2 * fog.chance, 1.0) if foggy else 0.0)
            shaken = shake is not None and shake.length is not None
            blur.append((shake.direction, shake.length, shake.energy) if shaken else (0.0, 0.0, 1.0))
            noisy = readout is not None and readout.k is not None
            noise.append((readout.k, readout.b) if noisy else (0.0, float("-inf")))
        direction, length, energy = torch.tensor(blur).to(like).T
        kernel = gaussian_kernel(direction, length.clamp(min=0.3), energy)
        delta = torch.zeros_like(kernel)
        delta[:, RADIUS, RADIUS] = 1
        k, b = torch.tensor(noise).to(like).T
        return cls(
            light=torch.tensor(light).to(like),
            transmission=torch.tensor(transmission).to(like),
            doubt=torch.tensor(doubt).to(like),
            kernel=torch.where((length > 0).view(-1, 1, 1), kernel, delta),
            k=k,
            b=b,
        )


def noise_variance(image: Tensor, physics: Physics) -> Tensor:
    """(B, 1, H, W): the diagnosed noise's variance at each pixel of ``image`` (B, 3, H, W), mean over channels.

    The brightness is read off a smoothed copy, which the noise itself disturbs less.
    """
    smooth = F.avg_pool2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    return (sigma(smooth, physics.k, physics.b) ** 2).mean(dim=1, keepdim=True)


def signal_power(image: Tensor, variance: Tensor) -> Tensor:
    """(B,): what of the variance of ``image`` (B, 3, H, W) is not noise of the mean ``variance`` (B,)."""
    return (_framed(image).var(dim=(2, 3)).mean(dim=1) - variance).clamp(min=1e-3)


def wiener(image: Tensor, kernel: Tensor, variance: Tensor, signal: Tensor | None = None) -> Tensor:
    """(B, 3, H, W): ``image`` with kernel (B, K, K) undone at a mean noise ``variance`` (B,); borders by reflection. signal:
    its :func:`signal_power`; that of the whole photo where ``image`` is a tile."""
    height, width = image.shape[-2:]
    padded = _framed(image)
    rows, columns = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded)
    # The kernel's centre goes to the origin, so that the photo does not move.
    placed = F.pad(kernel, (0, columns - TAPS, 0, rows - TAPS)).roll((-RADIUS, -RADIUS), dims=(1, 2))
    response = torch.fft.rfft2(placed)[:, None]
    fy = torch.fft.fftfreq(rows, device=image.device).view(-1, 1)
    fx = torch.fft.rfftfreq(columns, device=image.device).view(1, -1)
    falloff = 1 / (fy**2 + fx**2 + 1e-4)
    falloff = falloff / falloff.mean()
    signal = signal_power(image, variance) if signal is None else signal
    # Where there is blur, the true kernel is never quite the diagnosed one: that error acts like noise of its own.
    ratio = (variance / signal).view(-1, 1, 1, 1) / falloff + MISMATCH * (1 - response.abs() ** 2).clamp(min=0)
    restored = torch.fft.irfft2(spectrum * response.conj() / (response.abs() ** 2 + ratio), s=(rows, columns))
    return restored[..., RADIUS : RADIUS + height, RADIUS : RADIUS + width].clamp(0, 1)


def _framed(image: Tensor) -> Tensor:
    """With a margin as wide as a kernel reaches."""
    return F.pad(image, (RADIUS,) * 4, mode="reflect" if min(image.shape[-2:]) > RADIUS else "replicate")


def haze(image: Tensor, light: Tensor) -> Tensor:
    """(B, 1, h, w) in (0, 1]: 1 minus the dark channel of ``image`` (B, 3, H, W) under light (B, 3), at 1 / POOL size."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % POOL, 0, -height % POOL), mode="replicate")
    small = F.avg_pool2d(padded, POOL)
    relative = (small / light.clamp(min=0.05).view(-1, 3, 1, 1)).amin(dim=1, keepdim=True)
    half = WINDOW // 2
    dark = -F.max_pool2d(-F.pad(relative, (half,) * 4, mode="replicate"), WINDOW, stride=1)
    clear = (1 - dark).clamp(0.02, 1)
    if min(clear.shape[-2:]) > 2 * WINDOW:
        clear = guided_blur(small.mean(dim=1, keepdim=True), clear, 2 * WINDOW + 1, eps=1e-3, border_type="replicate")
    return clear.clamp(0.02, 1)


def dehaze(image: Tensor, light: Tensor, t: Tensor) -> Tensor:
    """J = (I - A (1 - t)) / max(t, 0.1), clamped to [0, 1]. light: (B, 3); t: (B, 1, H, W)."""
    return ((image - light.view(-1, 3, 1, 1) * (1 - t)) / t.clamp(min=FLOOR)).clamp(0, 1)
