"""Clean training photos at other sizes, so that no photo shows by its pixels that nothing was done to them.

Photos come as JPEG, whose blocks of 8 x 8 pixels leave a trace. What degrades a photo wipes it out. A model that has seen
each training photo at its own size only may take the trace for proof that a photo is not blurred, and its absence for blur:
of photos that were resized, as most of the world's are, it then says that all are a little shaken. A photo that comes at
another size at every look has lost the trace before it is degraded.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnr.degradation.severity import check_probability, check_range


@dataclass(frozen=True)
class Rescale:
    """share: of clean training photos that are resized; 0 for none. factor: log-uniform within these bounds; below 1 a larger
    part of the photo is shown at a smaller size, as far as the photo is large enough. ``ValueError`` for a share outside
    [0, 1] and bounds outside [0.25, 4]."""

    share: float = 0.0
    factor: tuple[float, float] = (0.6, 1.3)

    def __post_init__(self) -> None:
        check_probability("rescale.share", self.share)
        check_range("rescale.factor", self.factor, 0.25, 4)

    def source(self, crop: int, height: int, width: int, generator: torch.Generator) -> int:
        """The side of the square to cut out of a photo of ``height`` x ``width``, in pixels, so that resized to ``crop`` it
        has been scaled by what is drawn: ``crop`` itself where nothing is to be, or the photo is too small for any."""
        if not self.share:
            return crop
        chosen, place = torch.rand(2, generator=generator).tolist()
        if chosen >= self.share or crop > min(height, width):
            return crop
        low, high = (math.log(bound) for bound in self.factor)
        return min(max(round(crop / math.exp(low + place * (high - low))), 1), height, width)


def resized(photo: Tensor, depth: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """photo: (3, S, S), depth: (1, S, S), both uint8, at ``side`` x ``side`` pixels instead."""
    if photo.shape[-1] == side:
        return photo, depth
    both = torch.cat([photo, depth])[None].float()
    both = F.interpolate(both, (side, side), mode="bicubic", align_corners=False, antialias=True)[0]
    both = both.round().clamp(0, 255).to(torch.uint8)
    return both[:3], both[3:]
