"""Photos continued until a model takes their size."""

import torch.nn.functional as F
from torch import Tensor


def padded(images: Tensor, multiple: int) -> Tensor:
    """``images`` (B, C, H, W) continued rightwards and downwards to multiples of ``multiple`` pixels: mirrored, or where
    a photo is too small for that, its border repeated."""
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode)


def check_tile(tile: int, multiple: int) -> None:
    """``ValueError`` for tiles that would have to be continued: they would no longer fit together."""
    if tile < multiple or tile % multiple:
        raise ValueError(f"tile must be a multiple of {multiple} pixels, got {tile}")
