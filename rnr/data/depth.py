"""Relative depth d(x) in [0, 1] of a photo, 0 near and 1 far: measured, read from a file, or a classical estimate.

Fog needs it: t0 = exp(-d). It is kept as uint8, 255 times d.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import guided_blur
from PIL import Image
from torch import Tensor

from rnr.data.photos import Photo, PhotoError

GUIDE_SIDE = 160  # the estimate is smooth, so it is made on a small copy of the photo


def depth_of(photo: Photo, pixels: Tensor) -> Tensor:
    """(1, H, W) uint8 for ``pixels`` (3, H, W) uint8: from the photo's own depth file, else :func:`estimate`."""
    size = pixels.shape[-2:]
    if photo.depth is None:
        return (estimate(pixels) * 255).round().to(torch.uint8)
    return _resize(read_depth(photo.depth), size)


def read_depth(path: Path) -> Tensor:
    """(1, h, w) float32 in [0, 1] from a file.

    A PNG holds depth, its full scale (255 or 65535) being 1. An NPZ holds the disparity of a stereo pair under
    ``arr_0``; its inverse is scaled so that the farthest twentieth of the photo is 1. Raises :class:`PhotoError`.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                disparity = file["arr_0"].astype(np.float32)
            known = np.isfinite(disparity) & (disparity > 0)
            if disparity.ndim != 2 or not known.any():
                raise ValueError(f"no disparity in its array of shape {disparity.shape}")
            depth = 1 / np.where(known, disparity, np.median(disparity[known]))
            depth = np.clip(depth / np.quantile(depth, 0.95), 0, 1)
        else:
            with Image.open(path) as image:
                full = 65535 if image.mode.startswith("I") else 255
                depth = np.asarray(image.convert("L") if full == 255 else image, dtype=np.float32) / full
    except Exception as error:  # as for photos: what broken files raise depends on their format
        raise PhotoError(f"{path}: cannot be read as depth ({error or type(error).__name__})") from error
    return torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32))[None].clamp(0, 1)


def estimate(pixels: Tensor) -> Tensor:
    """(1, H, W) float32 in [0, 1]: a classical guess for a photo without depth. pixels: (3, H, W) uint8.

    Outdoors the ground runs from near at the bottom to far at the horizon, and what is bright, bluish or colourless at
    the top is sky. Both cues are drawn to the photo's own edges by a guided filter.
    """
    size = pixels.shape[-2:]
    scale = min(1.0, GUIDE_SIDE / max(size))
    small = [max(1, round(side * scale)) for side in size]
    photo = F.interpolate(pixels[None].float() / 255, small, mode="bilinear", antialias=True)
    height = torch.linspace(1, 0, small[0]).view(1, 1, -1, 1).expand(1, 1, *small)
    brightest, darkest = photo.amax(dim=1, keepdim=True), photo.amin(dim=1, keepdim=True)
    colourless = 1 - (brightest - darkest)
    sky = (brightest * torch.maximum(colourless, photo[:, 2:] - photo[:, :1]) * height).clamp(0, 1)
    depth = 0.1 + 0.55 * height**1.5 + 0.35 * sky
    radius = 2 * (min(small) // 8) + 1
    if min(small) > radius:
        depth = guided_blur(photo.mean(dim=1, keepdim=True), depth, radius, eps=1e-3)
    return F.interpolate(depth.clamp(0, 1), size, mode="bilinear", antialias=False)[0]


def _resize(depth: Tensor, size: torch.Size) -> Tensor:
    if depth.shape[-2:] != size:
        depth = F.interpolate(depth[None], size, mode="bilinear", antialias=True)[0]
    return (depth * 255).round().clamp(0, 255).to(torch.uint8)
