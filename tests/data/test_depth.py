import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import uniform_filter

from rnr.data.classical_depth import estimate, sky_of
from rnr.data.depth import classical, depth_of, measured, read_depth, save_depth
from rnr.data.photos import Photo, PhotoError, find_photos, open_photo, photo_at, shipped_photos

RAMP = np.linspace(0.3, 0.6, 12).reshape(3, 4)
SKY, GRASS, BARK = ([150, 190, 240], [90, 100, 40], [30, 40, 20])


def png8(path, depth):
    Image.fromarray((depth * 255).round().astype(np.uint8)).save(path)


def png16(path, depth):
    Image.fromarray((depth * 65535).round().astype(np.uint16)).save(path)


def rgb(path, depth):
    Image.fromarray((depth * 255).round().astype(np.uint8)).convert("RGB").save(path)


def with_alpha(path, depth):
    Image.fromarray((depth * 255).round().astype(np.uint8)).convert("LA").save(path)


def metres(path, depth):
    np.save(path, depth * 80)


def halves_of_one_channel(path, depth):
    np.save(path, depth[..., None].astype(np.float16))


def named(path, depth):
    np.savez(path, intrinsics=np.eye(3), depth=depth)


def only(path, depth):
    np.savez(path, depth * 7)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", png8), ("a.png", png16), ("a.png", rgb), ("a.png", with_alpha), ("a.npy", metres),
        ("a.npy", halves_of_one_channel), ("a.npz", named), ("a.npz", only),
    ],
)  # fmt: skip
def test_depth_in_any_unit_is_divided_by_its_own_largest_value(tmp_path, name, write):
    write(tmp_path / name, RAMP)
    depth = read_depth(tmp_path / name)
    assert (depth.shape, depth.dtype) == ((1, 3, 4), torch.float32)
    np.testing.assert_allclose(depth[0], RAMP / RAMP.max(), rtol=0, atol=0.005)
    assert depth.max() == 1


@pytest.mark.parametrize(("name", "key"), [("a.npz", "disparity"), ("a_disp.npz", "arr_0")])
def test_depth_is_the_inverse_of_disparity_its_farthest_twentieth_as_one(tmp_path, name, key):
    disparity = np.linspace(10, 100, 400).reshape(20, 20)
    np.savez(tmp_path / name, **{key: disparity})
    depth = read_depth(tmp_path / name)[0].numpy()
    far = np.quantile(1 / disparity, 0.95)
    np.testing.assert_allclose(depth, np.minimum(1 / disparity / far, 1), rtol=1e-5)
    assert (depth == 1).mean() == pytest.approx(0.05, abs=0.01)


U, S = np.nan, np.inf  # unknown, sky
GAPS = [[U, 2, 0, 4, 4, U], [U, U, U, U, U, U], [8, U, -1, U, 1, 1], [1, 1, 1, 1, U, S], [U, U, U, U, U, U]]
FILLED = [[2, 2, 4, 4, 4, 4], [8, 8, 8, 8, 4, 4], [8, 8, 8, 8, 1, 1], [1, 1, 1, 1, 8, 8], [1, 1, 1, 1, 8, 8]]


@pytest.mark.parametrize("unknown", [0, -3, np.nan])
def test_what_was_not_measured_belongs_to_the_farther_of_what_stands_beside_it(tmp_path, unknown):
    depth = np.where(np.isnan(GAPS), unknown, GAPS)
    np.save(tmp_path / "depth.npy", depth)
    np.testing.assert_allclose(read_depth(tmp_path / "depth.npy")[0], np.array(FILLED) / 8)
    # Disparity tells the same; sky would have none, so that it is given that of the farthest point.
    with np.errstate(divide="ignore"):
        np.savez(tmp_path / "a.npz", disparity=np.where(np.isinf(depth), 1 / 8, 1 / depth))
    np.testing.assert_allclose(read_depth(tmp_path / "a.npz")[0], np.array(FILLED) / 8, rtol=1e-6)


def broken_png(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")


def text(path):
    path.write_text("deep")


def two_arrays(path):
    np.savez(path, a=RAMP, b=RAMP)


def nothing_measured(path):
    np.save(path, np.full((3, 4), np.inf))


def black(path):
    png8(path, 0 * RAMP)


def of_three_dimensions(path):
    np.savez(path, np.ones((3, 4, 3)))


def objects(path):
    np.save(path, np.array([[{}]]), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("a.png", broken_png, ""), ("a.png", text, "cannot identify image file"), ("a.npz", text, ""),
        ("a.npz", two_arrays, "expected one array, or one named 'depth' or 'disparity'; found a, b"),
        ("a.npy", nothing_measured, "nothing in it is finite and above 0"),
        ("a.png", black, "nothing in it is finite and above 0"),
        ("a.npz", of_three_dimensions, r"expected a matrix, found an array of shape \(3, 4, 3\)"),
        ("a.npy", objects, ""), ("a.png", lambda path: None, ""), ("a.npz", lambda path: None, ""),
    ],
)  # fmt: skip
def test_what_is_no_depth_is_an_error_that_names_the_file(tmp_path, name, write, reason):
    write(tmp_path / name)
    with pytest.raises(PhotoError, match=rf"a\.\w+: cannot be read as depth \({reason}") as error:
        read_depth(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path))


def test_the_photos_own_depth_comes_first_at_the_photos_size(tmp_path):
    png16(tmp_path / "depth.png", np.array([[0.1, 0.4]]))
    pixels = torch.randint(0, 256, (3, 20, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with_depth, without = (Photo(tmp_path / "a.png", "a.png", file) for file in (tmp_path / "depth.png", None))
    depth = depth_of(with_depth, pixels)
    assert (depth.shape, depth.dtype) == ((1, 20, 32), torch.uint8)
    assert (depth[0, :, 0].unique().tolist(), depth[0, :, -1].unique().tolist()) == ([64], [255])
    assert depth.equal(measured(with_depth, pixels)) and depth_of(without, pixels).equal(classical(without, pixels))
    with pytest.raises(PhotoError, match=r"a\.png: has no depth file"):
        measured(without, pixels)


def test_what_is_saved_is_read_again(tmp_path):
    depth = torch.arange(1, 256, dtype=torch.uint8).view(1, 15, 17)
    save_depth(depth, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert measured(Photo(tmp_path / "p.png", "p.png", tmp_path / "a.png"), torch.zeros(3, 15, 17)).equal(depth)


ACROSS = {(48, 64): False, (96, 128): False, (64, 48): True, (50, 50): True, (10, 90): True}


@pytest.mark.parametrize(("size", "fits"), ACROSS.items())
def test_depth_that_lies_across_its_photo_is_refused(tmp_path, size, fits):
    """As of a tool that knows nothing of the EXIF tag by which the photo was turned."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random(size) + 0.1)
    photo, pixels = Photo(tmp_path / "p.png", "p.png", tmp_path / "a.npy"), torch.zeros(3, 64, 48)
    if fits:
        assert measured(photo, pixels).shape == (1, 64, 48)
        return
    with pytest.raises(PhotoError, match=rf"a\.npy: is {size[1]}x{size[0]} pixels, but the photo, turned .*, 48x64"):
        measured(photo, pixels)


def test_the_measured_depth_of_scikit_image_is_near_in_front_and_far_behind():
    depth = read_depth(shipped_photos("test")[0].depth)[0]
    height, width = depth.shape
    front = depth[int(0.8 * height) :, width // 3 : width // 2]
    back = depth[: int(0.2 * height), width // 3 : width // 2]
    assert depth.min() > 0 and depth.max() == 1 and front.median() < back.median()


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".mat"])
@pytest.mark.parametrize("place", ["set/a/depth/1", "set/depth/1", "set/depth/a/b/1", "depth/a/b/1", "set/a/b/depth/1"])
def test_depth_is_found_near_the_photo_or_in_a_mirror_of_the_tree(tmp_path, place, suffix):
    for file in (tmp_path / "set/a/b/1.jpg", (tmp_path / place).with_suffix(suffix)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    [photo] = find_photos(tmp_path / "set")
    near = place in ("set/a/b/depth/1", "set/a/depth/1")
    assert photo.depth == (None if place == "set/depth/1" else (tmp_path / place).with_suffix(suffix))
    assert (photo_at(tmp_path / "set/a/b/1.jpg").depth is not None) == near


def test_depth_is_found_from_within_the_folder_too(tmp_path, monkeypatch):
    for file in ("photos/1.jpg", "depth/1.png"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path / "photos")
    assert [photo.depth for photo in find_photos(".")] == [tmp_path / "depth/1.png"]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (400, 1), (3, 5), (16, 15), (200, 330), (330, 200), (90, 1100)])
@pytest.mark.parametrize("value", [0, 255, None])
def test_an_estimate_fits_its_photo_and_ends_at_one(size, value):
    pixels = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    depth = estimate(pixels if value is None else torch.full_like(pixels, value))
    assert (depth.shape, depth.dtype) == ((1, *size), torch.float32)
    assert depth.min() >= 0 and depth.max() == 1


def landscape(height=120, width=160, horizon=50):
    """Sky over grass, both a little uneven, and a tree from the ground into the sky."""
    scene = torch.empty(3, height, width)
    scene[:, :horizon] = torch.tensor(SKY).view(3, 1, 1)
    scene[:, horizon:] = torch.tensor(GRASS).view(3, 1, 1)
    scene[:, horizon // 2 : horizon + 40, 60:80] = torch.tensor(BARK).view(3, 1, 1)
    noise = torch.randn(scene.shape, generator=torch.Generator().manual_seed(0))
    return (scene + 3 * noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(("height", "width", "horizon"), [(120, 160, 50), (240, 120, 90), (900, 1200, 375)])
def test_the_sky_is_farthest_and_the_ground_comes_nearer(height, width, horizon):
    depth = estimate(landscape(height, width, horizon))[0]
    assert depth[: horizon - 8, :50].min() > 0.85 > depth[horizon + 8 :].max()
    rows = depth[horizon + 8 :, : width // 4].mean(dim=1)
    assert (uniform_filter(rows.numpy(), 5)[2:-2:5][:-1] > uniform_filter(rows.numpy(), 5)[2:-2:5][1:]).all()
    assert depth[-3:].mean() < 0.3


def test_depth_jumps_at_the_pixel_where_the_photo_does():
    depth = estimate(landscape())[0, 30:45]
    assert (depth[:, 57] - depth[:, 62] > 0.3).all()


def test_sky_must_reach_the_upper_edge_and_be_smooth():
    photo = landscape(80, 120, 40)[None].float() / 255
    sky = sky_of(photo)[0, 0]
    assert sky[:36, :55].min() > 0.8 and sky[44:].max() < 0.1
    assert sky_of(photo.flip(2)).max() == 0  # water, with the wood above it
    rough = photo.clone()
    rough[..., ::2, ::2] = 0
    assert sky_of(rough).max() < 0.2


def test_an_unremarkable_photo_gives_more_depth_above_than_below():
    pixels = torch.from_numpy(open_photo(shipped_photos("train")[1].path)).permute(2, 0, 1)  # a cat's face
    depth = estimate(pixels)[0]
    third = depth.shape[0] // 3
    assert depth[:third].mean() > depth[third : 2 * third].mean() > depth[2 * third :].mean() > 0.1
