"""A second judge that nothing is trained on: what a photo by itself says of its haze, sharpness and noise.

Three classical measurements, without a network and without a clean photo. A restorer that learns to please the reasoner
instead of repairing photos gives itself away here: rewards climb while these stand still or go the wrong way.

    haze       mean dark channel, min over colours and a 15 x 15 window (He, Sun and Tang, 2010)
    sharpness  mean gradient, a central difference, of the brightness
    noise      sqrt(pi / 2) mean |brightness * L| / 6 for the L that no plane and no edge answers (Immerkaer, 1996)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 15
LAPLACIANS = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])


@dataclass(frozen=True)
class Look:
    """haze, sharpness, noise: (B,), in units of full scale. Little haze and noise and much sharpness are good, up to what a
    clean photo has."""

    haze: Tensor
    sharpness: Tensor
    noise: Tensor


@torch.no_grad()
def look(images: Tensor) -> Look:
    """images: (B, 3, H, W) in [0, 1]. Sharpness and noise of a photo below 3 x 3 pixels are NaN."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
    images = images.float()
    dark = -F.max_pool2d(-images.amin(dim=1, keepdim=True), WINDOW, stride=1, padding=WINDOW // 2)
    haze, grey = dark.mean(dim=(1, 2, 3)), images.mean(dim=1, keepdim=True)
    if min(grey.shape[-2:]) < 3:
        unknown = torch.full_like(haze, torch.nan)
        return Look(haze, unknown, unknown)
    across, down = (grey[..., 2:] - grey[..., :-2]) / 2, (grey[..., 2:, :] - grey[..., :-2, :]) / 2
    slope = (across[..., 1:-1, :].square() + down[..., 1:-1].square()).sqrt()
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has not the digits
        answer = F.conv2d(grey, LAPLACIANS.to(grey).view(1, 1, 3, 3)).abs()
    return Look(
        haze=haze,
        sharpness=slope.mean(dim=(1, 2, 3)),
        noise=answer.mean(dim=(1, 2, 3)) * (torch.pi / 2) ** 0.5 / 6,
    )
