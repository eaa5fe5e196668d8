import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from rnr.data.batches import seed_of
from rnr.data.photos import PhotoError, find_photos, open_photo, photo_at, photo_size, save_photo, shipped_photos

UPRIGHT = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
BLOCKS = np.kron(UPRIGHT[:3, :4], np.ones((16, 16, 1), dtype=np.uint8))  # survives JPEG's coarse colors
ORIENTATION = 0x0112


def stored(pixels, orientation):
    """How a camera stores what should be seen as ``pixels``, under each EXIF orientation."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](pixels)


def write(path, pixels, **options):
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = write(tmp_path / f"photo.{suffix}", stored(UPRIGHT, orientation), exif=exif, **options)
    np.testing.assert_array_equal(open_photo(path), UPRIGHT)
    assert photo_size(path) == UPRIGHT.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_so_is_a_grey_tiff(tmp_path, orientation):
    """Which Pillow 13 garbles when it opens the file by name."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = write(tmp_path / "photo.tif", stored(UPRIGHT[..., :1], orientation)[..., 0], exif=exif)
    np.testing.assert_array_equal(open_photo(path), UPRIGHT[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["photo.png", "photo.eps"])
def test_what_pillow_would_run_another_program_on_is_no_photo(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n")
    with pytest.raises(PhotoError, match="not an image that can be read"):
        open_photo(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_so_is_every_jpeg(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = write(tmp_path / "photo.jpg", stored(BLOCKS, orientation), exif=exif, quality=100, subsampling=0)
    np.testing.assert_allclose(open_photo(path).astype(int), BLOCKS, atol=4)
    assert photo_size(path) == BLOCKS.shape[:2]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_passed_over(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = write(tmp_path / "photo.png", UPRIGHT, exif=exif)
    np.testing.assert_array_equal(open_photo(path), UPRIGHT)
    assert photo_size(path) == UPRIGHT.shape[:2]


def grey16():
    return UPRIGHT[..., 0].astype(np.uint16) * 257


def palette(transparency=None):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image, {} if transparency is None else {"transparency": transparency}


RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]


@pytest.mark.parametrize(
    ("name", "build", "expected"),
    [
        ("rgb.png", lambda: (Image.fromarray(UPRIGHT), {}), UPRIGHT),
        ("grey.png", lambda: (Image.fromarray(UPRIGHT[..., 0]), {}), UPRIGHT[..., :1].repeat(3, axis=2)),
        (
            "bilevel.png",
            lambda: (Image.fromarray(UPRIGHT[..., 0] > 99), {}),
            (UPRIGHT[..., :1] > 99).repeat(3, 2) * 255,
        ),
        ("grey16.png", lambda: (Image.fromarray(grey16()), {}), UPRIGHT[..., :1].repeat(3, axis=2)),
        ("grey16.tiff", lambda: (Image.fromarray(grey16()), {}), UPRIGHT[..., :1].repeat(3, axis=2)),
        ("float.tiff", lambda: (Image.fromarray(np.full((2, 2), 0.5, np.float32)), {}), np.full((2, 2, 3), 128)),
        ("palette.png", palette, [[RED, GREEN], [BLUE, GREEN]]),
        ("clear.png", lambda: palette(1), [[RED, WHITE], [BLUE, WHITE]]),
        ("half.png", lambda: palette(b"\xff\x00\x80"), [[RED, WHITE], [[127, 127, 255], WHITE]]),
        (
            "rgba.png",
            lambda: (Image.fromarray(np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)), {}),
            [[[10, 20, 30], WHITE]],
        ),
        (
            "la.png",
            lambda: (
                Image.merge("LA", [Image.new("L", (2, 1), 40), Image.fromarray(np.array([[255, 0]], np.uint8))]),
                {},
            ),
            [[[40, 40, 40], WHITE]],
        ),
        ("one.png", lambda: (Image.new("RGB", (1, 1), (1, 2, 3)), {}), [[[1, 2, 3]]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_file_gives_the_right_eight_bit_colors(tmp_path, name, build, expected):
    image, options = build()
    image.save(tmp_path / name, **options)
    pixels = open_photo(tmp_path / name)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)
    assert photo_size(tmp_path / name) == pixels.shape[:2]


def test_a_cmyk_jpeg_has_the_colors_of_its_inks(tmp_path):
    image = Image.fromarray(BLOCKS).convert("CMYK")
    image.save(tmp_path / "print.jpg", quality=100, subsampling=0)
    np.testing.assert_allclose(open_photo(tmp_path / "print.jpg").astype(int), BLOCKS, atol=8)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tags(profile):
    """Of a color profile: where each tag stands in the table, its name, and where its data are."""
    for place in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12):
        yield place, *struct.unpack(">4sI", profile[place : place + 8])


def display_p3() -> bytes:
    """That of sRGB with the primaries of P3 (white D50)."""
    profile = bytearray(SRGB)
    primaries = {
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    for _, name, data in tags(profile):
        if name in primaries:
            profile[data + 8 : data + 20] = struct.pack(">3i", *(round(value * 65536) for value in primaries[name]))
    return bytes(profile)


def linear(grey: bool) -> bytes:
    """That of sRGB with a gamma of 1; grey: of brightness alone."""
    profile = bytearray(SRGB)
    if grey:
        profile[16:20] = b"GRAY"
    for place, name, data in tags(profile):
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[data : data + 16] = struct.pack(">4sIIHH", b"curv", 0, 1, 256, 0)
            profile[place + 8 : place + 12] = struct.pack(">I", 14)
        if grey and name == b"rTRC":
            profile[place : place + 4] = b"kTRC"
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors_of_another_space_become_those_of_srgb(tmp_path, mode):
    image = Image.new("RGB", (4, 3), (201, 56, 48))
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(tmp_path / "phone.png", icc_profile=display_p3())
    # As it stands it would be off by 26.
    np.testing.assert_allclose(open_photo(tmp_path / "phone.png")[1, 1], [220, 30, 30], atol=7)


def test_what_is_grey_or_clear_in_another_space_is_so_in_srgb(tmp_path):
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))
    image.save(tmp_path / "grey.png", icc_profile=display_p3())
    pixels = open_photo(tmp_path / "grey.png").astype(int)
    assert (pixels == pixels[..., :1]).all() and abs(pixels[0, :, 0] - np.arange(256)).max() <= 1
    Image.new("RGB", (4, 3), (201, 56, 48)).save(tmp_path / "clear.png", icc_profile=display_p3(), transparency=(201, 56, 48))
    assert (open_photo(tmp_path / "clear.png") == 255).all()
    Image.new("LA", (4, 3), (90, 0)).save(tmp_path / "la.png", icc_profile=display_p3())
    assert (open_photo(tmp_path / "la.png") == 255).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "LA"])
def test_a_linear_space_is_converted_whatever_its_name(tmp_path, mode):
    color = {"RGB": (55, 55, 55), "L": 55, "LA": (55, 255)}[mode]
    Image.new(mode, (4, 3), color).save(tmp_path / "linear.png", icc_profile=linear(grey=mode != "RGB"))
    assert abs(open_photo(tmp_path / "linear.png").astype(int) - 128).max() <= 2


@pytest.mark.parametrize("profile", [b"no profile", SRGB], ids=["broken", "sRGB"])
def test_srgb_and_broken_profiles_change_nothing(tmp_path, profile):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(open_photo(tmp_path / "a.png"), UPRIGHT)


def test_floating_point_may_run_a_little_over_one(tmp_path):
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0] = 1.02
    Image.fromarray(values).save(tmp_path / "over.tiff")
    pixels = open_photo(tmp_path / "over.tiff")
    assert pixels[0, 0, 0] == 255 and (pixels[1:] == 128).all()
    Image.fromarray(values * 255).save(tmp_path / "eight.tiff")
    assert (open_photo(tmp_path / "eight.tiff")[1:] == 128).all()
    values[2, 2] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tiff")
    with pytest.raises(PhotoError, match=r"nan.tiff: .*values that are no numbers"):
        open_photo(tmp_path / "nan.tiff")


def test_a_16_bit_color_file_keeps_its_high_bytes(tmp_path):
    """Pillow writes none, so this PNG is put together by hand."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = UPRIGHT.shape
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in UPRIGHT)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    np.testing.assert_array_equal(open_photo(path), UPRIGHT)


def test_of_several_frames_the_first_is_taken(tmp_path):
    first, second = Image.fromarray(UPRIGHT), Image.fromarray(255 - UPRIGHT)
    first.save(tmp_path / "frames.tiff", save_all=True, append_images=[second])
    np.testing.assert_array_equal(open_photo(tmp_path / "frames.tiff"), UPRIGHT)


def no_file(path):
    return path / "missing.png"


def folder(path):
    (path / "folder.png").mkdir()
    return path / "folder.png"


def text(path):
    (path / "text.jpg").write_text("not a photo")
    return path / "text.jpg"


def empty(path):
    (path / "empty.png").touch()
    return path / "empty.png"


def truncated(name):
    def build(path):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        data = write(path / name, noise).read_bytes()
        (path / name).write_bytes(data[: len(data) // 2])
        return path / name

    build.__name__ = name
    return build


def below_a_file(path):
    return write(path / "file.png", UPRIGHT) / "photo.png"


def link_to_itself(path):
    os.symlink(path / "loop.png", path / "loop.png")
    return path / "loop.png"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (no_file, "no such file"),
        (folder, "is a folder, not a photo"),
        (text, "not an image that can be read"),
        (empty, "not an image that can be read"),
        (truncated("cut.png"), "cannot be read as a photo"),
        (truncated("cut.jpg"), "cannot be read as a photo"),
        (truncated("cut.tiff"), "cannot be read as a photo"),
        (below_a_file, "cannot be read as a photo"),
        (link_to_itself, "cannot be read as a photo"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_photo_is_one_error_that_names_the_file_and_the_reason(tmp_path, build, reason):
    path = build(tmp_path)
    for given in (path, str(path)):
        with pytest.raises(PhotoError) as error:
            open_photo(given)
        assert str(error.value).startswith(f"{path}: {reason}")


def test_a_photo_over_the_limit_is_refused_before_it_is_decoded(tmp_path):
    path = write(tmp_path / "large.png", np.zeros((300, 400, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:60])  # the header alone
    with pytest.raises(PhotoError, match=r"large\.png: 400x300 is 0\.1 megapixels, over the limit of 0\.1"):
        open_photo(path, max_pixels=100_000)


def test_a_photo_at_the_limit_is_fine(tmp_path):
    path = write(tmp_path / "photo.png", UPRIGHT)
    assert open_photo(path, max_pixels=128).shape == UPRIGHT.shape
    with pytest.raises(PhotoError):
        open_photo(path, max_pixels=127)


@pytest.mark.parametrize("build", [no_file, text, empty], ids=lambda build: build.__name__)
def test_the_size_of_what_is_no_photo_is_an_error_that_names_it(tmp_path, build):
    path = build(tmp_path)
    with pytest.raises(PhotoError) as error:
        photo_size(path)
    assert str(path) in str(error.value)


def test_a_saved_photo_opens_as_it_was(tmp_path):
    pixels = torch.from_numpy(UPRIGHT.copy()).permute(2, 0, 1)
    save_photo(pixels / 255, tmp_path / "photo.png")
    np.testing.assert_array_equal(open_photo(tmp_path / "photo.png"), UPRIGHT)
    save_photo(torch.tensor([-3.0, 0.5, 7.0]).view(3, 1, 1), tmp_path / "photo.png")
    assert open_photo(tmp_path / "photo.png").tolist() == [[[0, 128, 255]]]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, UPRIGHT)


def test_photos_are_found_in_any_layout_sorted_by_path(tmp_path):
    make(tmp_path, "b.png", "a/z.JPG", "a/deep/er/y.webp", "c.TIF", "depth/b.png", "a/depth/z.png")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder.png").mkdir()
    photos = find_photos(str(tmp_path))
    assert [photo.name for photo in photos] == ["a/deep/er/y.webp", "a/z.JPG", "b.png", "c.TIF"]
    assert all(photo.path == tmp_path / photo.name and photo.scene is None for photo in photos)


def test_depth_lies_beside_the_photo_or_beside_its_folder(tmp_path):
    make(tmp_path, "set/clear/1.jpg", "set/clear/2.jpg", "set/clear/3.jpg")
    make(tmp_path, "set/depth/1.png", "set/depth/2.png", "set/clear/depth/2.png")
    depths = [photo.depth for photo in find_photos(tmp_path / "set")]
    assert depths == [tmp_path / "set/depth/1.png", tmp_path / "set/clear/depth/2.png", None]
    assert photo_at(tmp_path / "set/clear/1.jpg").depth == tmp_path / "set/depth/1.png"


def test_a_folder_named_depth_may_itself_be_searched(tmp_path):
    make(tmp_path, "depth/1.png")
    assert [photo.name for photo in find_photos(tmp_path / "depth")] == ["1.png"]


@pytest.mark.parametrize("above", [0, 1, 2])
def test_scenes_are_read_from_the_folder_or_up_to_two_above(tmp_path, above):
    make(tmp_path, "one/two/photo.png", "one/two/other.png")
    root = tmp_path / "one/two"
    place = [root, *root.parents][above]
    entry = {"photo": str((root / "photo.png").relative_to(place)), "scene": "Zwei Bäume."}
    (place / "scenes.jsonl").write_text(json.dumps(entry, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [photo.scene for photo in find_photos(root)] == [None, "Zwei Bäume."]


def test_scenes_further_above_do_not_count(tmp_path):
    make(tmp_path, "one/two/three/photo.png")
    (tmp_path / "scenes.jsonl").write_text(json.dumps({"photo": "one/two/three/photo.png", "scene": "A tree."}))
    assert find_photos(tmp_path / "one/two/three")[0].scene is None


def test_the_nearest_scenes_win(tmp_path):
    make(tmp_path, "set/photo.png")
    (tmp_path / "scenes.jsonl").write_text(json.dumps({"photo": "set/photo.png", "scene": "Far."}))
    (tmp_path / "set/scenes.jsonl").write_text(json.dumps({"photo": "photo.png", "scene": "Near."}))
    assert find_photos(tmp_path / "set")[0].scene == "Near."


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        '"text"',
        '{"photo": "photo.png"}',
        '{"scene": "A tree."}',
        '{"photo": 7, "scene": "A tree."}',
        '{"photo": "photo.png", "scene": 7}',
        '{"photo": "photo.png", "scene": ""}',
        json.dumps({"photo": "photo.png", "scene": "word " * 31}),
    ],
    ids=lambda line: line[:30],
)
def test_a_malformed_scene_names_its_file_and_line(tmp_path, line):
    make(tmp_path, "photo.png")
    good = json.dumps({"photo": "photo.png", "scene": "A tree."})
    (tmp_path / "scenes.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(PhotoError, match=r"scenes\.jsonl, line 2: "):
        find_photos(tmp_path)


def test_scenes_in_another_encoding_are_an_error_that_names_the_file(tmp_path):
    make(tmp_path, "photo.png")
    (tmp_path / "scenes.jsonl").write_bytes('{"photo": "photo.png", "scene": "Bäume"}'.encode("latin-1"))
    with pytest.raises(PhotoError, match=r"scenes\.jsonl"):
        find_photos(tmp_path)


def test_a_folder_without_photos_is_an_error_that_names_it(tmp_path):
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(PhotoError) as error:
            find_photos(root)
        assert str(error.value).startswith(f"{root}: no ")


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("val", 1), ("test", 2)])
def test_the_photos_of_scikit_image_are_there(split, count):
    photos = shipped_photos(split)
    assert len(photos) == count
    for photo in photos:
        assert open_photo(photo.path).shape == (*photo_size(photo.path), 3)
        assert photo.depth is None or photo.depth.is_file()
        assert 5 < len(photo.scene.split()) <= 30


def appended(path, kind, content):
    """A chunk behind the pixels of a PNG."""
    chunk = kind + content
    end = path.read_bytes()[:-12]
    path.write_bytes(end + struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + END)


END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def test_the_size_is_known_without_a_pixel_decoded(tmp_path, monkeypatch):
    for name in ("photo.png", "photo.jpg", "photo.webp", "photo.tif"):
        write(tmp_path / name, UPRIGHT)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    for path in tmp_path.iterdir():
        assert photo_size(path) == UPRIGHT.shape[:2]


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_png_may_say_at_its_end_how_it_is_turned(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = write(tmp_path / "photo.png", stored(UPRIGHT, orientation))
    appended(path, b"eXIf", exif.tobytes().removeprefix(b"Exif\x00\x00"))
    np.testing.assert_array_equal(open_photo(path), UPRIGHT)
    assert photo_size(path) == UPRIGHT.shape[:2]


def test_one_that_is_too_large_is_not_opened_for_its_size(tmp_path):
    path = write(tmp_path / "photo.png", UPRIGHT)
    with pytest.raises(PhotoError, match="over the limit of"):
        photo_size(path, max_pixels=UPRIGHT[..., 0].size - 1)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_an_exif_tag_that_cannot_be_read_does_not_count(tmp_path, suffix):
    path = write(tmp_path / f"photo.{suffix}", UPRIGHT, exif=b"Exif\x00\x00garbage! and more of it")
    assert open_photo(path).shape == (*photo_size(path), 3) == UPRIGHT.shape


def test_a_grey_photo_with_a_profile_and_a_color_that_is_clear(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = bytearray(profile)
    grey[16:20] = b"GRAY"  # what colors it is of
    image = Image.fromarray(np.array([[10, 200], [10, 90]], np.uint8))
    image.save(tmp_path / "photo.png", transparency=10, icc_profile=bytes(grey))
    assert Image.open(tmp_path / "photo.png").mode == "L"
    pixels = open_photo(tmp_path / "photo.png")
    assert (pixels[:, 0] == 255).all() and (pixels[:, 1] < 255).all()


def test_folders_may_be_links_and_run_in_circles(tmp_path):
    make(tmp_path, "elsewhere/1.png", "set/2.png")
    (tmp_path / "set/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "set")
    names = [photo.name for photo in find_photos(tmp_path / "set")]
    assert sorted(name.rpartition("/")[2] for name in names) == ["1.png", "2.png"]


def test_names_that_are_no_utf8_are_spelled_out_and_the_files_found(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    write(path, UPRIGHT)
    (photo,) = find_photos(tmp_path)
    assert (photo.name, photo_at(path).name, photo.path) == (r"caf\xe9.png", r"caf\xe9.png", path)
    assert open_photo(photo.path).shape == UPRIGHT.shape
    assert isinstance(seed_of(0, str(path)), int)


def test_two_names_that_are_no_utf8_stay_two(tmp_path):
    for letter in (b"\xe8", b"\xe9"):
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf" + letter + b".png")), UPRIGHT)
    assert len({photo.name for photo in find_photos(tmp_path)}) == 2


def test_the_depth_of_a_photo_whose_suffix_is_in_capitals_is_not_anothers(tmp_path):
    make(tmp_path, "set/IMG_1.JPG", "set/day2/IMG_1.JPG", "set/depth/IMG_1.png")
    assert [photo.depth and photo.depth.name for photo in find_photos(tmp_path / "set")] == ["IMG_1.png", None]


def test_the_depth_of_another_photo_is_not_taken(tmp_path):
    """As ``rnr depth`` lays it out, with one file lost."""
    make(tmp_path, "set/1.png", "set/b/1.png", "set/b/2.png", "set/depth/1.png", "set/depth/b/2.png")
    assert [photo.depth for photo in find_photos(tmp_path / "set")] == [
        tmp_path / "set/depth/1.png", None, tmp_path / "set/depth/b/2.png",
    ]  # fmt: skip


def test_a_single_file_has_its_scene_too(tmp_path):
    make(tmp_path, "photo.png", "other.png")
    (tmp_path / "scenes.jsonl").write_text(json.dumps({"photo": "photo.png", "scene": "A tree."}))
    assert (photo_at(tmp_path / "photo.png").scene, photo_at(tmp_path / "other.png").scene) == ("A tree.", None)


def test_where_scenes_do_not_matter_their_file_is_not_read(tmp_path):
    make(tmp_path, "photo.png")
    (tmp_path / "scenes.jsonl").write_text("nonsense")
    (photo,) = find_photos(tmp_path, scenes=False)
    assert photo == photo_at(tmp_path / "photo.png", scenes=False)


def test_photos_of_a_built_set_within_are_none_of_the_folder(tmp_path):
    make(tmp_path, "1.png", "built/000000-000/clean.png", "built/000000-000/degraded.png")
    (tmp_path / "built/dataset.json").write_text("{}")
    assert [photo.name for photo in find_photos(tmp_path)] == ["1.png"]
