"""Rain streaks: sparse seeds, drawn out by a directional blur and laid over the photo (appendix A.2).

M = min(1, seeds * line) is the streaks' mask, seeds a Bernoulli field of a given density, line an anti-aliased segment
of a given length, width and slant. The streaks S of Eq. 1 are opacity M (color - J), so that I = J (1 - opacity M) +
color opacity M. Coverage is the share of pixels with opacity M above 0.05; severity is 1 + 99 coverage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rnr.degradation.convolve import convolve
from rnr.degradation.severity import Applied, check_probability, check_range, log_uniform, scale, uniform

VISIBLE = 0.05  # opacity from which a streak's pixel counts as covered; the paper fixes no threshold
MAX_LENGTH = 64
REACHES = (12, 20, 39)  # radii of streak kernels, in pixels; each streak takes the first that holds it


@dataclass(frozen=True)
class RainParams:
    """(B,) each but color. density: share of pixels that seed a streak. slant: degrees from the vertical, positive where
    streaks lean to the right at the top. length, width: pixels. opacity: in [0, 1]. color: (B, 3) in [0, 1].
    seed: (B,) int64, of the field of seeds."""

    present: Tensor
    density: Tensor
    slant: Tensor
    length: Tensor
    width: Tensor
    opacity: Tensor
    color: Tensor
    seed: Tensor


@dataclass(frozen=True)
class RainPrior:
    """Density is log-uniform, the rest uniform. The paper gives no ranges for rain; its color is the fog's A."""

    probability: float = 0.75
    density: tuple[float, float] = (3e-4, 4e-3)
    slant: tuple[float, float] = (-30, 30)
    length: tuple[float, float] = (10, 32)
    width: tuple[float, float] = (1.0, 2.5)
    opacity: tuple[float, float] = (0.3, 0.9)

    draws: ClassVar[int] = 7

    def __post_init__(self) -> None:
        check_probability("rain.probability", self.probability)
        check_range("rain.density", self.density, 1e-6, 1)
        check_range("rain.slant", self.slant, -90, 90)
        check_range("rain.length", self.length, 1, MAX_LENGTH)
        check_range("rain.width", self.width, 0.5, 9)
        check_range("rain.opacity", self.opacity, 0, 1)

    def sample(self, u: Tensor, color: Tensor) -> RainParams:
        """u: (B, 7) uniform on [0, 1); color: (B, 3), the atmospheric light."""
        return RainParams(
            present=u[:, 0] < self.probability,
            density=log_uniform(u[:, 1], self.density),
            slant=uniform(u[:, 2], self.slant),
            length=uniform(u[:, 3], self.length),
            width=uniform(u[:, 4], self.width),
            opacity=uniform(u[:, 5], self.opacity),
            color=color,
            seed=(u[:, 6] * 2**31).long(),
        )


def line(slant: Tensor, length: Tensor, width: Tensor, radius: int | None = None) -> Tensor:
    """(B, K, K): anti-aliased segments with the value 1 inside. slant in degrees, length and width in pixels, (B,) each.

    K = 2 ``radius`` + 1; None: just large enough for the longest of the batch.
    """
    if radius is None:
        radius = math.ceil(float((length + width).max()) / 2 + 1)
    offset = torch.arange(-radius, radius + 1, dtype=slant.dtype, device=slant.device)
    y, x = torch.meshgrid(-offset, offset, indexing="ij")
    angle = torch.deg2rad(slant).view(-1, 1, 1)
    along, across = x * angle.sin() + y * angle.cos(), x * angle.cos() - y * angle.sin()
    inside = (length.view(-1, 1, 1) / 2 + 0.5 - along.abs()).clamp(0, 1)
    return inside * (width.view(-1, 1, 1) / 2 + 0.5 - across.abs()).clamp(0, 1)


def seeds(seed: Sequence[int], density: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, H, W) in {0, 1}: each photo's field comes from its own seed, whatever else is in the batch."""
    fields = []
    for one in seed:
        generator = torch.Generator(density.device).manual_seed(one)
        fields.append(torch.rand(1, height, width, generator=generator, device=density.device))
    return (torch.stack(fields) < density.view(-1, 1, 1, 1)).to(density.dtype)


def streaks(field: Tensor, slant: Tensor, length: Tensor, width: Tensor) -> Tensor:
    """The mask M (B, 1, H, W) in [0, 1] of the seeds ``field`` (B, 1, H, W), each drawn out into a streak."""
    reach = (length + width) / 2 + 1
    out, shortest = torch.empty_like(field), 0
    for radius in REACHES:
        rows = ((reach > shortest) & (reach <= radius)).nonzero().squeeze(1)
        shortest = radius
        if len(rows):
            kernel = line(slant[rows], length[rows], width[rows], radius).to(field)
            out[rows] = convolve(field[rows], kernel, "constant")
    # The FFT leaves rounding noise where no streak is.
    return F.threshold(out, 1e-3, 0.0).clamp_(max=1)


def severity(coverage: Tensor) -> Tensor:
    """(B,) in [1, 100] from the share of covered pixels (B,)."""
    return scale(coverage)


def apply(image: Tensor, params: RainParams) -> Applied:
    """image: (B, 3, H, W) in [0, 1]. Rain of which no streak is visible is recorded as absent, and not applied."""
    batch, _, height, width = image.shape
    coverage = image.new_zeros(batch)
    out = image
    rows = params.present.nonzero().squeeze(1)
    if len(rows):
        field = seeds(params.seed[rows].tolist(), params.density[rows].to(image), height, width)
        shape = params.slant[rows], params.length[rows], params.width[rows]
        alpha = params.opacity[rows].to(image).view(-1, 1, 1, 1) * streaks(field, *shape)
        visible = (alpha > VISIBLE).flatten(1).sum(dim=1)
        coverage[rows] = visible.to(image) / (height * width)
        # Where not even one pixel counts as covered there is no rain; with alpha 0 lerp leaves the photo to the bit.
        alpha.mul_((visible > 0).view(-1, 1, 1, 1))
        out = image.clone()
        out[rows] = image[rows].lerp(params.color[rows].to(image).view(-1, 3, 1, 1), alpha)
    keys = ("density", "slant", "length", "width", "opacity", "color")
    return Applied(
        image=out,
        present=params.present & (coverage > 0),
        severity=severity(coverage),
        parameters={key: getattr(params, key) for key in keys},
    )
