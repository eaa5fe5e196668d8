"""Gaussian readout noise: sigma(x) = max(0, k x + b) at intensity x in [0, 255] (appendix A.2).

k ~ U(0, 0.3), b ~ U(-20, 20); sigma is clamped at 0 since k x + b can be negative. Severity is 1 + 99 v / 0.05, with v
the mean of (sigma(x) / 255)^2 over pixels and channels: A.2 calls it the mean normalised noise *variance*.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rnr.degradation.parts import begun, parts
from rnr.degradation.severity import Applied, check_probability, check_range, scale, uniform

WORST_VARIANCE = 0.05
INVISIBLE_VARIANCE = 1 / (12 * 255**2)  # of rounding to 8 bit: noise below it cannot be told from none


@dataclass(frozen=True)
class NoiseParams:
    """(B,) each: present bool, k, b, and the int64 seed of the noise field."""

    present: Tensor
    k: Tensor
    b: Tensor
    seed: Tensor


@dataclass(frozen=True)
class NoisePrior:
    probability: float = 0.75
    k: tuple[float, float] = (0.0, 0.3)
    b: tuple[float, float] = (-20.0, 20.0)

    draws: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_probability("noise.probability", self.probability)
        check_range("noise.k", self.k, 0, 1)
        check_range("noise.b", self.b, -99, 99)

    def sample(self, u: Tensor) -> NoiseParams:
        """u: (B, 4) uniform on [0, 1)."""
        return NoiseParams(
            present=u[:, 0] < self.probability,
            k=uniform(u[:, 1], self.k),
            b=uniform(u[:, 2], self.b),
            seed=(u[:, 3] * 2**31).long(),
        )


def sigma(image: Tensor, k: Tensor, b: Tensor) -> Tensor:
    """The standard deviation at each pixel, on the scale of ``image`` (B, C, H, W) in [0, 1]. k, b: (B,)."""
    return (image * k.view(-1, 1, 1, 1)).add_(b.view(-1, 1, 1, 1) / 255).clamp_(min=0)


def severity(mean_variance: Tensor) -> Tensor:
    """(B,) in [1, 100] from the mean variance (B,) on the scale [0, 1]."""
    return scale(mean_variance / WORST_VARIANCE)


def field(seed: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal noise (n, C, H, W) for n seeds, each photo's from its own. like: (B, C, H, W)."""
    fields = like.new_empty(len(seed), *like.shape[1:])
    for row, one in zip(fields, seed, strict=True):
        row.normal_(generator=torch.Generator(like.device).manual_seed(one))
    return fields


def apply(image: Tensor, params: NoiseParams) -> Applied:
    """image: (B, 3, H, W) in [0, 1]. Noise too faint for 8 bit is recorded as absent, and not applied."""
    k, b = params.k.to(image), params.b.to(image)
    out, variance = begun(image, params.present), image.new_zeros(len(image))
    for part in parts(params.present):
        deviation = sigma(image[part], k[part], b[part])
        variance[part] = torch.linalg.vector_norm(deviation, dim=(1, 2, 3)).square() / deviation[0].numel()
        visible = (variance[part] > INVISIBLE_VARIANCE).view(-1, 1, 1, 1)
        noise = field(params.seed[part].tolist(), image[part])
        out[part] = noise.mul_(deviation * visible).add_(image[part]).clamp_(0, 1)
    return Applied(
        image=out,
        present=params.present & (variance > INVISIBLE_VARIANCE),
        severity=severity(variance),
        parameters={"k": params.k, "b": params.b},
    )
