"""Relative depth from the files that published sets bring along.

OTS: ``depth/<stem>.mat``, the variable ``depth`` (H, W) of a MATLAB file, version 7.3 (which is HDF5) or older.
ITS: ``trans/<stem>_<i>.png``, the transmission t = exp(-beta d) of one of the hazy images, 8 bit.

Neither states a unit (beta varies and is not recorded with t), so the farthest point of a photo is 1.
"""

from pathlib import Path

import numpy as np
from PIL import Image

FAINTEST = 1 / 255  # the smallest transmission that 8 bit can tell from none


def read_mat(path: Path) -> np.ndarray:
    """(H, W) float32 in [0, 1]. ``ValueError`` or ``OSError`` for a file that holds no such variable."""
    import h5py  # only OTS needs it

    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if "depth" not in file:
                raise ValueError(f"expected the variable 'depth', found {', '.join(file) or 'none'}")
            depth = np.asarray(file["depth"]).T  # MATLAB stores columns first
    else:
        from scipy.io import loadmat

        variables = loadmat(path)
        if "depth" not in variables:
            names = [name for name in variables if not name.startswith("__")]
            raise ValueError(f"expected the variable 'depth', found {', '.join(names) or 'none'}")
        depth = variables["depth"]
    if depth.ndim != 2:
        raise ValueError(f"expected a matrix 'depth', got the shape {depth.shape}")
    return _relative(depth.astype(np.float32))


def read_transmission(path: Path) -> np.ndarray:
    """(H, W) float32 in [0, 1]: -log t, the farthest point being 1."""
    with Image.open(path) as image:
        t = np.asarray(image.convert("L"), dtype=np.float32) / 255
    return _relative(-np.log(np.clip(t, FAINTEST, 1)))


def _relative(depth: np.ndarray) -> np.ndarray:
    known = np.isfinite(depth) & (depth >= 0)
    if not known.any():
        raise ValueError("no depth in it that is finite and not negative")
    farthest = depth[known].max()
    # Unknown points are mostly sky or holes far away.
    depth = np.where(known, depth, farthest)
    return depth / farthest if farthest > 0 else depth
