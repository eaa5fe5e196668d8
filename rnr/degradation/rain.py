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
from rnr.degradation.parts import begun, parts
from rnr.degradation.severity import Applied, check_probability, check_range, log_uniform, scale, uniform

VISIBLE = 0.05  # opacity from which a streak's pixel counts as covered; the paper fixes no threshold
MAX_LENGTH = 64
FEW = 2  # streak values per pixel of the photo, up to which stamping beats an FFT in time and memory on a CPU core


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


def line(slant: Tensor, length: Tensor, width: Tensor) -> Tensor:
    """(B, K, K): anti-aliased segments with the value 1 inside, K odd and large enough for the longest of the batch.

    slant in degrees, length and width in pixels, (B,) each.
    """
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
        fields.append(torch.rand(1, height, width, generator=generator, device=density.device, dtype=torch.float32))
    return (torch.stack(fields) < density.view(-1, 1, 1, 1)).to(density.dtype)


def streaks(field: Tensor, kernel: Tensor) -> Tensor:
    """The mask M (B, 1, H, W) in [0, 1] of the seeds ``field`` (B, 1, H, W), each drawn out into ``kernel`` (B, K, K)."""
    # Photos come alone on a CPU; a GPU would add up a photo's streaks in no fixed order.
    alone = field.device.type == "cpu" and len(field) == 1
    if alone and field.count_nonzero() * kernel.count_nonzero() <= FEW * field.numel():
        mask = stamped(field[0, 0], kernel[0])[None, None]
    else:
        mask = convolve(field, kernel, "constant")
    # The FFT leaves rounding noise where no streak is.
    return F.threshold(mask, 1e-3, 0.0).clamp_(max=1)


def stamped(field: Tensor, kernel: Tensor) -> Tensor:
    """(H, W): ``kernel`` (K, K) added up about each pixel that is not 0 in ``field`` (H, W)."""
    (height, width), radius = field.shape, kernel.shape[-1] // 2
    row = width + 2 * radius  # of the field with a margin, in which every stamp has room
    top, left = field.nonzero(as_tuple=True)
    down, right = kernel.nonzero(as_tuple=True)
    place = (top * row + left)[:, None] + (down * row + right)
    mask = kernel.new_zeros((height + 2 * radius) * row)
    mask.scatter_add_(0, place.flatten(), kernel[down, right].repeat(len(top)))
    return mask.view(-1, row)[radius : radius + height, radius : radius + width]


def severity(coverage: Tensor) -> Tensor:
    """(B,) in [1, 100] from the share of covered pixels (B,)."""
    return scale(coverage)


def apply(image: Tensor, params: RainParams) -> Applied:
    """image: (B, 3, H, W) in [0, 1]. Rain of which no streak is visible is recorded as absent, and not applied."""
    height, width = image.shape[-2:]
    density, opacity, color = params.density.to(image), params.opacity.to(image), params.color.to(image)
    opacity, color = opacity.view(-1, 1, 1, 1), color.view(-1, 3, 1, 1)
    out, coverage = begun(image, params.present), image.new_zeros(len(image))
    for part in parts(params.present):
        field = seeds(params.seed[part].tolist(), density[part], height, width)
        kernel = line(params.slant[part], params.length[part], params.width[part]).to(image)
        alpha = opacity[part] * streaks(field, kernel)
        visible = (alpha > VISIBLE).flatten(1).sum(dim=1)
        coverage[part] = visible.to(image) / (height * width)
        # Where not even one pixel counts as covered there is no rain; with alpha 0 lerp leaves the photo to the bit.
        alpha.mul_((visible > 0).view(-1, 1, 1, 1))
        out[part] = image[part].lerp(color[part], alpha)
    keys = ("density", "slant", "length", "width", "opacity", "color")
    return Applied(
        image=out,
        present=params.present & (coverage > 0),
        severity=severity(coverage),
        parameters={key: getattr(params, key) for key in keys},
    )
