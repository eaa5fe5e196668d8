import numpy as np
import pytest
import torch
from PIL import Image

from rnr.data.depth import depth_of, estimate, read_depth
from rnr.data.photos import Photo, PhotoError, shipped_photos

RAMP = np.linspace(0, 1, 12).reshape(3, 4)


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535)])
def test_a_png_holds_depth_over_its_full_scale(tmp_path, dtype, full):
    Image.fromarray((RAMP * full).round().astype(dtype)).save(tmp_path / "depth.png")
    depth = read_depth(tmp_path / "depth.png")
    assert (depth.shape, depth.dtype) == ((1, 3, 4), torch.float32)
    np.testing.assert_allclose(depth[0], RAMP, rtol=0, atol=0.5 / full + 1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_any_other_mode_is_read_as_grey(tmp_path, mode):
    Image.fromarray((RAMP * 255).round().astype(np.uint8)).convert(mode).save(tmp_path / "depth.png")
    np.testing.assert_allclose(read_depth(tmp_path / "depth.png")[0], RAMP, rtol=0, atol=0.01)


def test_an_npz_holds_disparity_of_which_the_inverse_is_depth(tmp_path):
    disparity = np.linspace(10, 100, 400).reshape(20, 20)
    np.savez(tmp_path / "disparity.npz", disparity)
    depth = read_depth(tmp_path / "disparity.npz")[0].numpy()
    far = np.quantile(1 / disparity, 0.95)
    np.testing.assert_allclose(depth, np.minimum(1 / disparity / far, 1), rtol=1e-5)
    assert (depth == 1).mean() == pytest.approx(0.05, abs=0.01)


def test_where_disparity_is_unknown_depth_is_medium(tmp_path):
    disparity = np.linspace(10, 100, 401)
    known = disparity.copy()
    disparity[[3, 100, 200]] = np.inf, np.nan, 0
    np.savez(tmp_path / "disparity.npz", disparity[None])
    depth = read_depth(tmp_path / "disparity.npz")[0, 0]
    assert depth.isfinite().all()
    typical = depth[known.searchsorted(np.median(known))]
    torch.testing.assert_close(depth[[3, 100, 200]], typical.expand(3), rtol=0.02, atol=0)


def broken_png(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")


def text(path):
    path.write_text("deep")


def another_array(path):
    np.savez(path, depth=RAMP)


def without_disparity(path):
    np.savez(path, np.full((3, 4), np.inf))


def of_three_dimensions(path):
    np.savez(path, np.ones((3, 4, 3)))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", broken_png), ("b.png", text), ("c.npz", text), ("d.npz", another_array), ("e.npz", without_disparity),
        ("f.npz", of_three_dimensions), ("g.png", lambda path: None), ("h.npz", lambda path: None),
    ],
)  # fmt: skip
def test_what_is_no_depth_is_an_error_that_names_the_file(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(PhotoError) as error:
        read_depth(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: cannot be read as depth (")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (16, 15), (200, 330)])
def test_an_estimate_fits_its_photo(size):
    pixels = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    depth = estimate(pixels)
    assert (depth.shape, depth.dtype) == ((1, *size), torch.float32)
    assert ((depth >= 0) & (depth <= 1)).all()


def test_the_sky_is_farther_than_the_ground():
    scene = torch.zeros(3, 120, 160, dtype=torch.uint8)
    scene[:, :50] = torch.tensor([150, 190, 240]).view(3, 1, 1)
    scene[:, 50:] = torch.tensor([90, 70, 40]).view(3, 1, 1)
    scene[:, 30:100, 60:80] = torch.tensor([30, 60, 20]).view(3, 1, 1)  # a tree before the sky
    depth = estimate(scene)[0]
    assert depth[:45, :50].min() > depth[60:, :50].max()
    assert depth[:20].mean() > depth[50:70].mean() > depth[100:].mean()
    assert depth[40, 20] > depth[40, 70] + 0.1


def test_the_photos_own_depth_comes_first_at_the_photos_size(tmp_path):
    Image.fromarray(np.full((4, 6), 51, np.uint8)).save(tmp_path / "depth.png")
    pixels = torch.full((3, 20, 31), 128, dtype=torch.uint8)
    measured = depth_of(Photo(tmp_path / "photo.png", "photo.png", tmp_path / "depth.png"), pixels)
    assert (measured.shape, measured.dtype) == ((1, 20, 31), torch.uint8)
    assert measured.unique().tolist() == [51]
    guessed = depth_of(Photo(tmp_path / "photo.png", "photo.png"), pixels)
    assert guessed.equal((estimate(pixels) * 255).round().byte())


def test_the_measured_depth_of_scikit_image_is_near_in_front_and_far_behind():
    depth = read_depth(shipped_photos("test")[0].depth)[0]
    height, width = depth.shape
    assert ((depth >= 0) & (depth <= 1)).all()
    front, back = (
        depth[int(0.8 * height) :, width // 3 : width // 2],
        depth[: int(0.2 * height), width // 3 : width // 2],
    )
    assert front.median() < back.median()
