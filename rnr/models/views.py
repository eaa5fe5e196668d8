"""What a reasoner is shown of a photo.

A public Qwen3-VL takes the whole photo in at its own resolution. A compact one cannot afford to, and a photo shrunk to
its size has lost what shake, rain and noise leave behind, for that lives in the highest frequencies. So it sees the
photo shrunk (scene, fog), beside it a few crops of untouched pixels, and a chart of the whole photo's spectrum and noise
(:mod:`rnr.models.chart`).

It may look again, at the photo without one of its corners or at the mirror image of that, and errs otherwise each time
(:func:`look`).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from rnr.models.chart import SIZE as CHART
from rnr.models.chart import chart

ASPECT = 200  # to 1 at most, as transformers' own image processing has it
MARGIN = 1 / 12
CORNERS = ((True, True), (False, False), (True, False), (False, True))
"""Those that are kept, look by look: is it at the bottom, is it to the right."""


@dataclass(frozen=True)
class Views:
    """Which views are taken of a photo.

    ``size`` S: every view is S x S pixels; first the whole photo, squeezed, then ``tiles`` crops at native resolution,
    then, if ``chart``, the chart, enlarged to S where that is a multiple of 128.
    ``size`` None: one view, the whole photo in its own proportions, up to 200:1, between ``min_pixels`` and ``max_pixels``.
    """

    size: int | None = 128
    tiles: int = 1
    chart: bool = False
    min_pixels: int = 256 * 256
    max_pixels: int = 1280 * 32 * 32

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1 pixel or None, got {self.size}")
        if self.tiles < 0 or (self.size is None and self.tiles):
            raise ValueError(f"tiles must be at least 0, and 0 where size is None, got {self.tiles}")
        if self.chart and (self.size is None or self.size % CHART):
            raise ValueError(f"a chart needs views of a multiple of {CHART} pixels, got {self.size}")
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(f"0 < min_pixels <= max_pixels must hold, got {self.min_pixels} and {self.max_pixels}")

    @property
    def count(self) -> int:
        """V, the number of views."""
        return 1 + self.tiles + self.chart

    def take(self, images: Tensor, unit: int) -> Tensor:
        """(B, V, 3, h, w) in [0, 1], h and w multiples of ``unit``. images: (B, 3, H, W) in [0, 1].

        Raises ``ValueError`` if ``size`` is no multiple of ``unit``.
        """
        if self.size is None:
            rows, columns = images.shape[-2:]
            sides = max(rows, math.ceil(columns / ASPECT)), max(columns, math.ceil(rows / ASPECT))
            height, width = smart_resize(*sides, unit, self.min_pixels, self.max_pixels)
            return _resize(images, height, width, "bicubic").unsqueeze(1)
        if self.size % unit:
            raise ValueError(f"views of {self.size} pixels do not divide into units of {unit}")
        overview = _resize(images, self.size, self.size, "bilinear")
        # Along the diagonal, since what is high or low in a photo differs as much as what is left or right.
        crops = [crop(images, (k + 0.5) / self.tiles, self.size) for k in range(self.tiles)]
        if self.chart:
            crops.append(chart(images).repeat_interleave(self.size // CHART, -1).repeat_interleave(self.size // CHART, -2))
        return torch.stack([overview, *crops], dim=1)


def shrunk(images: Tensor, times: int) -> Tensor:
    """(B, 3, H / times, W / times): a copy with shorter sides. images: (B, 3, H, W) in [0, 1]."""
    return _resize(images.float(), *(max(length // times, 1) for length in images.shape[-2:]), "bilinear")


def look(images: Tensor, number: int) -> Tensor:
    """What is looked at of ``images`` (B, 3, H, W). Look 0: all of them. The others: without the rows and columns that reach
    a twelfth (:data:`MARGIN`) into the photo from one corner after the other, and every other one mirrored."""
    if number == 0:
        return images
    height, width = images.shape[-2:]
    high, wide = height - round(height * MARGIN), width - round(width * MARGIN)
    bottom, right = CORNERS[(number - 1) % len(CORNERS)]
    rows, columns = (slice(-high, None) if bottom else slice(high)), (slice(-wide, None) if right else slice(wide))
    part = images[..., rows, columns]
    return part.flip(-1) if is_mirrored(number) else part


def is_mirrored(number: int) -> bool:
    """Whether that look is at a mirror image: every other one, and the other way in the next round of corners."""
    return number > 0 and (number + (number - 1) // len(CORNERS)) % 2 == 0


def crop(images: Tensor, place: float, size: int) -> Tensor:
    """(B, 3, S, S): a slice of ``images`` (B, 3, H, W), centred ``place`` in [0, 1] of the way down and across, or as
    close to that as lies inside. A photo smaller than ``size`` S is continued by its mirror image."""
    rows, columns = (_places(length, place, size, images.device) for length in images.shape[-2:])
    return images.index_select(-2, rows).index_select(-1, columns)


def _places(length: int, place: float, size: int, device: torch.device) -> Tensor:
    start = min(max(round(place * length - size / 2), 0), max(length - size, 0))
    period = max(2 * (length - 1), 1)  # there and back, without repeating the edges; 1 for a single pixel
    index = torch.arange(start, start + size, device=device) % period
    return torch.minimum(index, period - index)


def _resize(images: Tensor, height: int, width: int, mode: str) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    resized = F.interpolate(images, (height, width), mode=mode, align_corners=False, antialias=True)
    return resized.clamp(0, 1)  # bicubic overshoots
