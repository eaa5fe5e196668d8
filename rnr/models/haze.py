"""Where the fog lies: its optical depth at every pixel, learned, bent to the diagnosed mean transmission.

A diagnosis gives the fog's light A and its mean transmission, not its shape; most of what dehazing loses, it loses there.
A small U-Net looks at the whole photo, shrunk, and its dark channel, and says for each pixel how much fog lies before
it. It may also correct A and the mean a little, as far as :data:`LIGHT_BOUND` and :data:`MEAN_BOUND`: enough for a
reasoner's usual error, too little to overrule a person who edits the diagnosis, and so is sure. Where the reasoner itself
doubts that there is fog, the mean may be corrected by :data:`DOUBT_BOUND` as well, up to hardly any fog at all (or to dense
fog): to take out fog that is not there costs a good photo far more than to leave a little in.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnr.degradation.fog import MIN_TRANSMISSION
from rnr.models import inverse
from rnr.models.inverse import Physics
from rnr.models.unet import UNet, UNetSize, reflected, shrink

SIDE = 192  # of the copy that the network sees, the longer one, in pixels
LIGHT_BOUND = 0.08  # how far each channel of A may be corrected
MEAN_BOUND = 0.7  # how far the mean transmission may be, in its logit
DOUBT_BOUND = 6.0  # how much further, where the fog might as well be absent


class Haze(NamedTuple):
    """light: (B, 3) in [0, 1]. t: (B, 1, h, w) in [0.05, 1], at the size of the shrunk copy; 1 where there is no fog."""

    light: Tensor
    t: Tensor


class HazeNetwork(nn.Module):
    """See the module. facts: how many numbers it is told of the whole photo."""

    def __init__(self, facts: int, size: UNetSize) -> None:
        super().__init__()
        # In: the photo, the photo relative to A, the dark channel's transmission, how high up. Out: the optical depth's
        # logarithm beside the dark channel's, and maps whose means correct the mean transmission, A, and the mean
        # transmission again where it is in doubt.
        self.network = UNet(8, 6, facts, size).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, physics: Physics, facts: Tensor) -> Haze:
        """images: (B, 3, H, W) in [0, 1]. facts: (B, D)."""
        small = shrink(images, SIDE)
        light = physics.light.clamp(min=0.05)
        clear = F.interpolate(inverse.dark_channel_transmission(images, physics.light), small.shape[-2:], mode="area")
        up = torch.linspace(1, -1, small.shape[-2]).to(small).view(1, 1, -1, 1).expand_as(clear)
        inputs = torch.cat([small, small / light.view(-1, 3, 1, 1), clear, up], dim=1)
        out = reflected(self.network, inputs, facts)
        corrections = out[:, 1:].mean(dim=(2, 3)).tanh()
        depth = (-clear.log()).clamp(min=0.01) * out[:, :1].clamp(-5, 5).exp()
        foggy = physics.transmission < 1
        mean = physics.transmission.clamp(MIN_TRANSMISSION + 0.01, 0.99)
        moved = MEAN_BOUND * corrections[:, 0] + DOUBT_BOUND * physics.doubt * corrections[:, 4]
        mean = torch.where(foggy, (mean.logit() + moved).sigmoid().clamp(min=MIN_TRANSMISSION + 0.01), 1.0)
        light = torch.where(foggy[:, None], physics.light + LIGHT_BOUND * corrections[:, 1:4], physics.light)
        return Haze(light.clamp(0, 1), bent(depth, mean))


def bent(depth: Tensor, mean: Tensor) -> Tensor:
    """(B, 1, h, w): t = max(exp(-p depth), 0.05), with the p for each photo at which its mean is ``mean`` (B,).

    depth: (B, 1, h, w) > 0. Differentiable in both: after the bisection one Newton step carries the gradient of p (the
    implicit function theorem). A mean of 1 gives t = 1.
    """
    with torch.no_grad():
        low, high = torch.full_like(mean, -8), torch.full_like(mean, 8)  # of p's logarithm
        for _ in range(24):
            middle = (low + high) / 2
            too_clear = _transmission(depth, middle.exp()).mean(dim=(1, 2, 3)) > mean
            low, high = torch.where(too_clear, middle, low), torch.where(too_clear, high, middle)
        power = ((low + high) / 2).exp()
        t = _transmission(depth, power)
        slope = (-depth * t * (t > MIN_TRANSMISSION)).mean(dim=(1, 2, 3)).clamp(max=-1e-4)
    residual = _transmission(depth, power).mean(dim=(1, 2, 3)) - mean
    power = power - residual / slope
    return torch.where((mean < 1).view(-1, 1, 1, 1), _transmission(depth, power), 1.0)


def _transmission(depth: Tensor, power: Tensor) -> Tensor:
    return (-depth * power.view(-1, 1, 1, 1)).exp().clamp(min=MIN_TRANSMISSION)
