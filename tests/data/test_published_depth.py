import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from rnr.data.depth import depth_of
from rnr.data.photos import Photo, PhotoError
from rnr.data.published_depth import read_mat, read_transmission

DEPTH = np.array([[2.0, 4.0, 8.0], [1.0, 0.0, 6.0]])


def test_a_mat_file_of_either_version_gives_the_farthest_as_one(tmp_path):
    with h5py.File(tmp_path / "new.mat", "w") as file:
        file["depth"] = DEPTH.T  # as MATLAB stores it
    savemat(tmp_path / "old.mat", {"depth": DEPTH})
    for name in ("new.mat", "old.mat"):
        np.testing.assert_allclose(read_mat(tmp_path / name), DEPTH / 8)


def test_unknown_points_are_far(tmp_path):
    savemat(tmp_path / "holes.mat", {"depth": np.array([[2.0, np.nan], [-1.0, 4.0]])})
    np.testing.assert_allclose(read_mat(tmp_path / "holes.mat"), [[0.5, 1], [1, 1]])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"map": DEPTH}, "expected the variable 'depth', found map"),
        ({"depth": np.zeros((2, 2, 3))}, r"expected a matrix 'depth', got the shape \(2, 2, 3\)"),
        ({"depth": np.full((2, 2), np.nan)}, "no depth in it"),
    ],
)
def test_a_mat_file_without_depth_says_so(tmp_path, variables, message):
    savemat(tmp_path / "a.mat", variables)
    with pytest.raises(ValueError, match=message):
        read_mat(tmp_path / "a.mat")


def test_a_transmission_is_undone_whatever_its_beta(tmp_path):
    for beta in (0.6, 1.8):
        t = np.exp(-beta * DEPTH / 8)
        Image.fromarray((t * 255).round().astype(np.uint8)).save(tmp_path / "1_1.png")
        np.testing.assert_allclose(read_transmission(tmp_path / "1_1.png"), DEPTH / 8, atol=0.01)


def test_photos_take_their_depth_from_either(tmp_path):
    pixels = torch.zeros(3, 2, 3, dtype=torch.uint8)
    savemat(tmp_path / "1.mat", {"depth": DEPTH})
    (tmp_path / "trans").mkdir()
    Image.fromarray((np.exp(-DEPTH / 8) * 255).round().astype(np.uint8)).save(tmp_path / "trans/1_1.png")
    for path in (tmp_path / "1.mat", tmp_path / "trans/1_1.png"):
        depth = depth_of(Photo(tmp_path / "1.png", "1.png", depth=path), pixels)
        np.testing.assert_allclose(depth[0] / 255, DEPTH / 8, atol=0.01)
    (tmp_path / "2.mat").write_bytes(b"broken")
    with pytest.raises(PhotoError, match=r"2\.mat: cannot be read as depth"):
        depth_of(Photo(tmp_path / "2.png", "2.png", depth=tmp_path / "2.mat"), pixels)
