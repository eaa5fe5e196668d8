"""Photos of any size through a function that sees a bounded tile at a time, blended without seams."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Window = tuple[slice, slice]
_told: ContextVar[Callable[[int, int], None]] = ContextVar("told", default=lambda done, count: None)


def windows(height: int, width: int, tile: int, overlap: int) -> Iterator[Window]:
    """Windows of at most ``tile`` x ``tile`` pixels that cover the photo, neighbours sharing ``overlap`` or more.

    ``ValueError`` unless 0 <= overlap < tile.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must lie within [0, tile), got {overlap} and a tile of {tile}")
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def tiled(
    restore: Callable[[Tensor, Window], Tensor], image: Tensor, tile: int, overlap: int, scale: int = 1
) -> Tensor:
    """``restore(tile, its window)`` over all of ``image`` (B, C, H, W): (B, C', scale H, scale W).

    scale: how many times larger than its tile ``restore`` answers. C' is as ``restore`` has it.

    Where tiles overlap, each one's weight falls linearly to its own border; they are added in float32 or better. A photo
    that fits one tile is not touched by any of this.
    """
    height, width = image.shape[-2:]
    if height <= tile and width <= tile:
        return restore(image, (slice(0, height), slice(0, width)))
    out = total = None
    places = list(windows(height, width, tile, overlap))
    for number, (rows, columns) in enumerate(places, start=1):
        done = restore(image[..., rows, columns], (rows, columns))
        if out is None:
            precision = torch.promote_types(done.dtype, torch.float32)
            out = done.new_zeros(*done.shape[:-2], scale * height, scale * width, dtype=precision)
            total = torch.zeros_like(out[0, 0])
        high, wide = done.shape[-2:]
        weight = _ramp(high, scale * overlap, out)[:, None] * _ramp(wide, scale * overlap, out)
        place = tuple(slice(scale * side.start, scale * side.stop) for side in (rows, columns))
        out[..., *place] += done * weight
        total[place] += weight
        _told.get()(number, len(places))
    return out.div_(total).to(done.dtype)


@contextmanager
def watched(tell: Callable[[int, int], None]) -> Iterator[None]:
    """Within, ``tell(how many are done, of how many)`` after each tile of a photo that takes more than one."""
    token = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(token)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    distance = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(distance, distance.flip(0)).clamp(max=max(overlap, 1))
