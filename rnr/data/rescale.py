"""Clean training photos at other sizes, so that no photo shows by its pixels that nothing was done to them.

Photos come as JPEG, whose blocks of 8 x 8 pixels leave a trace. What degrades a photo wipes it out. A model that has seen
each training photo at its own size only may take the trace for proof that a photo is not blurred, and its absence for blur:
of photos that were resized, as most of the world's are, it then says that all are a little shaken. A photo that comes at
another size at every look has lost the trace before it is degraded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnr.degradation.severity import check_probability, check_range


@dataclass(frozen=True)
class Rescale:
    """share: of batches of clean training photos that are resized; 0 for none. factor: of a batch, log-uniform within these
    bounds; below 1 a larger part of the photo is shown at a smaller size, as far as the photo is large enough.
    ``ValueError`` for a share outside [0, 1] and bounds outside [0.25, 4]."""

    share: float = 0.0
    factor: tuple[float, float] = (0.5, 1.6)

    def __post_init__(self) -> None:
        check_probability("rescale.share", self.share)
        check_range("rescale.factor", self.factor, 0.25, 4)

    def draw(self, generator: torch.Generator) -> float:
        """How many times as large the photos of a batch are shown: 1 where they are not resized."""
        if not self.share:
            return 1.0
        chosen, place = torch.rand(2, generator=generator).tolist()
        low, high = (math.log(bound) for bound in self.factor)
        return math.exp(low + place * (high - low)) if chosen < self.share else 1.0


def source(size: tuple[int, int], scale: float, whole: Sequence[int]) -> tuple[int, int]:
    """The (height, width) to cut out of a photo of (height, width) ``whole``, so that it is shown ``scale`` times as large
    once it is resized to ``size``, or more where it is too small for that. ``size`` itself where nothing is to be resized,
    or the photo would have to be shown larger than ``scale`` and than it is."""
    least = max(size[0] / whole[0], size[1] / whole[1])  # by so much all of the photo would have to be enlarged
    if scale == 1 or least > max(scale, 1):
        return size
    height, width = (max(round(side / max(scale, least)), 1) for side in size)
    return height, width


def resized(photo: Tensor, depth: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """photo: (3, H, W), depth: (1, H, W), both uint8, at ``size`` (height, width) instead."""
    if photo.shape[-2:] == size:
        return photo, depth
    both = torch.cat([photo, depth])[None].float()
    both = F.interpolate(both, size, mode="bicubic", align_corners=False, antialias=True)[0]
    both = both.round().clamp(0, 255).to(torch.uint8)
    return both[:3], both[3:]
