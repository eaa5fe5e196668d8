"""Fog: I = J t + A (1 - t), with t(x) = t0(x)^beta clamped to [0.05, 1] (appendix A.2).

t0(x) = exp(-d(x)) is the transmission at beta = 1 of relative depth d in [0, 1]; since exp(-3) = 0.0498, the paper's
largest beta of 3 and its clamp at 0.05 meet at the far end of the scene. Severity is 1 + 99 (1 - t_mean) / (1 - 0.05).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rnr.degradation.parts import begun, parts
from rnr.degradation.severity import Applied, check_probability, check_range, scale, uniform

MIN_TRANSMISSION = 0.05


@dataclass(frozen=True)
class FogParams:
    """present: (B,) bool. atmospheric_light: (B, 3) in [0, 1]. beta: (B,) >= 0."""

    present: Tensor
    atmospheric_light: Tensor
    beta: Tensor


@dataclass(frozen=True)
class FogPrior:
    """A ~ U[0.7, 1]^3, beta ~ U(0.8, 3.0). A is drawn for every photo: rain takes its color from it (A.2)."""

    probability: float = 0.75
    atmospheric_light: tuple[float, float] = (0.7, 1.0)
    beta: tuple[float, float] = (0.8, 3.0)

    draws: ClassVar[int] = 5

    def __post_init__(self) -> None:
        check_probability("fog.probability", self.probability)
        check_range("fog.atmospheric_light", self.atmospheric_light, 0, 1)
        check_range("fog.beta", self.beta, 0, 20)

    def sample(self, u: Tensor) -> FogParams:
        """u: (B, 5) uniform on [0, 1)."""
        return FogParams(
            present=u[:, 0] < self.probability,
            atmospheric_light=uniform(u[:, 1:4], self.atmospheric_light),
            beta=uniform(u[:, 4], self.beta),
        )


def transmission(depth: Tensor, beta: Tensor) -> Tensor:
    """t = exp(-d)^beta clamped to [0.05, 1]. depth: (B, 1, H, W) relative, in [0, 1]; beta: (B,)."""
    return (depth * -beta.view(-1, 1, 1, 1)).exp_().clamp_(MIN_TRANSMISSION, 1.0)


def severity(mean_transmission: Tensor) -> Tensor:
    """(B,) in [1, 100] from the mean transmission (B,)."""
    return scale((1 - mean_transmission) / (1 - MIN_TRANSMISSION))


def beta_for(depth: Tensor, mean_transmission: Tensor) -> Tensor:
    """(B,): the beta at which ``depth`` has the given mean transmission, by bisection (t falls as beta rises).

    A mean that the clamp puts out of reach (below 0.05, or depth 0 everywhere) gives the largest beta, 1000.
    """
    low, high = torch.zeros_like(mean_transmission), torch.full_like(mean_transmission, 1000.0)
    for _ in range(60):
        middle = (low + high) / 2
        too_clear = transmission(depth, middle).mean(dim=(1, 2, 3)) > mean_transmission
        low, high = torch.where(too_clear, middle, low), torch.where(too_clear, high, middle)
    return high


def apply(image: Tensor, depth: Tensor, params: FogParams) -> Applied:
    """image: (B, 3, H, W) in [0, 1]; depth: (B, 1, H, W) relative, in [0, 1]."""
    light = params.atmospheric_light.view(-1, 3, 1, 1)
    out, mean = begun(image, params.present), image.new_ones(len(image))
    for part in parts(params.present):
        t = transmission(depth[part], params.beta[part])
        mean[part] = t.mean(dim=(1, 2, 3))
        out[part] = light[part].lerp(image[part], t)  # A + t (J - A) in one pass
    return Applied(
        image=out,
        present=params.present,
        severity=severity(mean),
        parameters={"atmospheric_light": params.atmospheric_light, "transmission": mean},
    )
