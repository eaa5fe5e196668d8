"""The severity scale of appendix A.2: s = ratio * 99 + 1 in [1, 100] for what is present; absence is 0 and not on it."""

from dataclasses import dataclass

from torch import Tensor


def scale(ratio: Tensor) -> Tensor:
    """s = ratio * 99 + 1, clamped to [1, 100]. ratio: any shape, 0 for the faintest and 1 for the worst."""
    return (ratio * 99 + 1).clamp(1, 100)


@dataclass(frozen=True)
class Applied:
    """What one degradation did to a batch.

    image: (B, 3, H, W) in [0, 1] after it. present: (B,) bool. severity: (B,) in [1, 100], without meaning where absent.
    parameters: (B,) or (B, 3) each, named and measured as :mod:`rnr.diagnosis.types` has them.
    """

    image: Tensor
    present: Tensor
    severity: Tensor
    parameters: dict[str, Tensor]


def uniform(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Uniform on ``bounds`` from u uniform on [0, 1)."""
    low, high = bounds
    return low + (high - low) * u


def log_uniform(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Log-uniform on ``bounds`` (both above 0) from u uniform on [0, 1)."""
    low, high = bounds
    return low * (high / low) ** u


def check_range(name: str, bounds: tuple[float, float], low: float, high: float) -> None:
    """``ValueError`` unless low <= bounds[0] <= bounds[1] <= high."""
    if not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(f"{name} must be an ordered range within [{low:g}, {high:g}], got {tuple(bounds)}")


def check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie within [0, 1], got {value:g}")
