"""What travels from the loader to the stages.

The loader yields integers only: under DeepSpeed every float that it yields would be cast to the training precision.
Degradation happens on the device, afterwards, and makes a :class:`DegradedBatch`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from rnr.diagnosis import Diagnosis


class CleanBatch(NamedTuple):
    """photo: (B, 3, H, W) uint8. depth: (B, 1, H, W) uint8, 255 times the relative depth. index: (B,) int64, the
    photo's place in its set. seed: (B,) int64, from which its degradation is drawn."""

    photo: Tensor
    depth: Tensor
    index: Tensor
    seed: Tensor


@dataclass(frozen=True)
class DegradedBatch:
    """clean, degraded: (B, 3, H, W) float in [0, 1], ``degraded`` at 8-bit levels as a file would hold it.
    truth: what was applied. seed: one a photo, for whatever else must be drawn for it. names: for tables."""

    clean: Tensor
    degraded: Tensor
    truth: list[Diagnosis]
    seed: list[int]
    names: list[str]

    def __post_init__(self) -> None:
        if self.clean.shape != self.degraded.shape:
            raise ValueError(f"clean is {tuple(self.clean.shape)} but degraded is {tuple(self.degraded.shape)}")
        if not len(self.clean) == len(self.truth) == len(self.seed) == len(self.names):
            raise ValueError("clean, truth, seed and names must speak of the same number of photos")


@dataclass(frozen=True)
class RealBatch:
    """Photos as they are, without a clean one to compare with. image: (B, 3, H, W) float in [0, 1]."""

    image: Tensor
    names: list[str]
