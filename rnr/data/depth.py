"""Relative depth d(x) in [0, 1] of a photo, 0 near and 1 at its farthest point. Fog needs it: t0 = exp(-d).

A prior makes it from a photo; it is kept as uint8, 255 times d. Three are there: :func:`measured` (files),
:func:`classical` (an estimate from the photo alone) and :class:`rnr.models.depth.DepthEstimator` (a network's, which
``rnr depth`` writes to files once). :func:`depth_of` takes the best that is at hand.

What measures or estimates depth does so in metres, in levels or up to an unknown scale. So each photo is divided by its
own farthest point, and no unit is left.
"""

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rnr.atomic import whole
from rnr.data import classical_depth
from rnr.data.photos import Photo, PhotoError
from rnr.data.published_depth import read_mat, read_transmission

FARTHEST_SHARE = 0.05  # of a photo whose disparity was measured: there it is too small to be divided by


class DepthPrior(Protocol):
    """What tells relative depth of a photo."""

    def __call__(self, photo: Photo, pixels: Tensor) -> Tensor:
        """(1, H, W) uint8 for ``pixels`` (3, H, W) uint8 of ``photo``; :class:`PhotoError` if it has none of this one."""


def depth_of(photo: Photo, pixels: Tensor) -> Tensor:
    """The prior that is used all over: a photo's own depth file comes first, then :func:`classical`."""
    return classical(photo, pixels) if photo.depth is None else measured(photo, pixels)


def measured(photo: Photo, pixels: Tensor) -> Tensor:
    """A :class:`DepthPrior`: :func:`read_depth` of the photo's file, at the size of ``pixels``."""
    if photo.depth is None:
        raise PhotoError(f"{photo.path}: has no depth file")
    depth = read_depth(photo.depth)
    (height, width), (rows, columns) = depth.shape[-2:], pixels.shape[-2:]
    if _across(height / width, rows / columns):
        raise PhotoError(
            f"{photo.depth}: is {width}x{height} pixels, but the photo, turned as its EXIF tag says, {columns}x{rows}"
        )
    return to_levels(depth, pixels.shape[-2:])


def _across(aspect: float, other: float) -> bool:
    """Whether sides are exchanged: one is upright, the other not, and it would fit if turned."""
    return (aspect - 1) * (other - 1) < 0 and abs(math.log(aspect * other)) < abs(math.log(aspect / other)) / 4


def classical(photo: Photo, pixels: Tensor) -> Tensor:
    """A :class:`DepthPrior`: :func:`rnr.data.classical_depth.estimate`, from ``pixels`` alone."""
    return to_levels(classical_depth.estimate(pixels), pixels.shape[-2:])


def to_levels(depth: Tensor, size: torch.Size) -> Tensor:
    """(1, *size) uint8 from ``depth`` (1, h, w) float in [0, 1]."""
    if depth.shape[-2:] != size:
        depth = F.interpolate(depth[None], size, mode="bilinear", antialias=True)[0]
    return (depth * 255).round().clamp(0, 255).to(torch.uint8)


def save_depth(depth: Tensor, path: Path) -> None:
    """Writes ``depth`` (1, H, W) uint8 as a PNG that is whole or not there, and that :func:`read_depth` takes for known."""
    with whole(path) as place:
        Image.fromarray(depth[0].clamp(min=1).numpy()).save(place, format="PNG")  # 0 would be read as unknown


def read_depth(path: Path) -> Tensor:
    """(1, h, w) float32 in [0, 1] from a file; its farthest point is 1. Raises :class:`PhotoError`.

    ====================  ==============================================================================
    ``.png``, 8 or 16 bit depth in any unit; in a folder ``trans``, RESIDE's transmission
    ``.mat``              depth, OTS's and RESIDE's (:mod:`rnr.data.published_depth`)
    ``.npy``              depth in any unit, (h, w)
    ``.npz``              depth under ``depth``, or a stereo pair's disparity under ``disparity``; of a
                          single array by another name, disparity if the file is called ``*_disp.npz``
    ====================  ==============================================================================

    Depth or disparity that is 0, negative or no number is unknown: :func:`filled` says what it takes; but of a ``.mat`` 0 is
    the nearest point, and negative or no number the farthest. Infinite depth, sky
    for the most part, is as far as the farthest that is not. Of what comes from disparity the farthest twentieth is 1.
    """
    try:
        depth = _read(path)
    except Exception as error:  # as for photos: what broken files raise depends on their format
        raise PhotoError(f"{path}: cannot be read as depth ({error or type(error).__name__})") from error
    return torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32))[None].clamp(0, 1)


def _read(path: Path) -> np.ndarray:
    match path.suffix.lower():
        case ".mat":
            return read_mat(path)
        case ".npy":
            return over_farthest(np.load(path, allow_pickle=False))
        case ".npz":
            return _read_npz(path)
    if path.parent.name == "trans":
        return read_transmission(path)
    with Image.open(path) as image:
        return over_farthest(np.asarray(image if image.mode.startswith("I") else image.convert("L")))


def _read_npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        named = [name for name in ("depth", "disparity") if name in file] or list(file)
        if len(named) != 1 and named[:1] != ["depth"]:
            raise ValueError(
                f"expected one array, or one named 'depth' or 'disparity'; found {', '.join(file) or 'none'}"
            )
        array = file[named[0]]
    if named[0] == "disparity" or (named[0] != "depth" and path.stem.endswith("_disp")):
        return _from_disparity(_matrix(array))
    return over_farthest(array)


def _from_disparity(disparity: np.ndarray) -> np.ndarray:
    known = _known(disparity)
    depth = filled(1 / np.where(known, disparity, 1), known)
    return np.clip(depth / np.quantile(depth, 1 - FARTHEST_SHARE), 0, 1)


def over_farthest(depth: np.ndarray) -> np.ndarray:
    """(h, w) in (0, 1] from depth in any unit, gaps filled as :func:`read_depth` says. ``ValueError`` if all are gaps."""
    depth = _matrix(depth)
    known, endless = _known(depth), np.isposinf(depth)
    farthest = depth[known].max()
    return filled(np.where(endless, farthest, depth), known | endless) / farthest


def filled(depth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``depth`` (h, w), above 0, where ``known``; elsewhere the farther of the nearest known values left and right of it.

    A gap is mostly what the second eye (or the lamp) of a depth camera did not see for the object that stands before it,
    and belongs to what lies behind. A row of which nothing is known is filled from the rows above and below alike.
    """
    rows = _filled_rows(np.where(known, depth, 0))
    return _filled_rows(rows.T).T


def _filled_rows(depth: np.ndarray) -> np.ndarray:
    """The rule of :func:`filled` along each row; 0 is unknown, and remains where a row is nothing else."""
    column = np.arange(depth.shape[1])
    last = np.maximum.accumulate(np.where(depth > 0, column, 0), axis=1)
    following = np.minimum.accumulate(np.where(depth > 0, column, column[-1])[:, ::-1], axis=1)[:, ::-1]
    left, right = (np.take_along_axis(depth, index, axis=1) for index in (last, following))
    return np.where(depth > 0, depth, np.maximum(left, right))


def _known(array: np.ndarray) -> np.ndarray:
    known = np.isfinite(array) & (array > 0)
    if not known.any():
        raise ValueError("nothing in it is finite and above 0")
    return known


def _matrix(array: np.ndarray) -> np.ndarray:
    """``array`` as (h, w) float64, also if it has one channel."""
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or array.dtype.kind not in "uif":
        raise ValueError(f"expected a matrix, found an array of shape {array.shape}")
    return array.astype(np.float64)
