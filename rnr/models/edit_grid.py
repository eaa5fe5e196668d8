"""Grids: photos, latents and noise of Qwen-Image-Edit laid out token by token.

One place of a grid (B, 4 C, h, w) holds the 2 x 2 latents of C channels that make one token of the transformer, and stands
for ``UNIT`` x ``UNIT`` pixels. A piece cut from a grid is a grid.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rnr.models import padding
from rnr.models.tiling import Window

UNIT = 16
"""Pixels a side of one place: 8 for the VAE, times 2 for the packing."""


def padded(images: Tensor) -> Tensor:
    """Photos (B, 3, H, W) continued rightwards and downwards to multiples of ``UNIT`` pixels. ``ValueError`` for none."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"photos must be (B, 3, H, W), none of them 0, got {tuple(images.shape)}")
    return padding.padded(images, UNIT)


def cut(images: Tensor, window: Window) -> Tensor:
    """The pixels of ``images`` (B, 3, H, W) that a window of their grid stands for."""
    rows, columns = (slice(UNIT * side.start, UNIT * side.stop) for side in window)
    return images[..., rows, columns]


def noise(channels: int, height: int, width: int, seeds: Sequence[int], group: int) -> Tensor:
    """(B N, 4 C, height, width), float32: N draws a seed, each for the whole photo, so that its tiles agree. On the CPU,
    where a seed means the same whatever the device."""
    shape = (channels, 2 * height, 2 * width)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    draws = [torch.randn(shape, generator=generator, dtype=torch.float32) for generator in generators for _ in range(group)]
    return F.pixel_unshuffle(torch.stack(draws), 2)


def pack(grid: Tensor) -> Tensor:
    """The transformer's tokens, (B, h w, 4 C), of a grid (B, 4 C, h, w)."""
    return grid.flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Inverse of :func:`pack`."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))
