"""Photos from files: opened with care, found in folders, and those that ship with scikit-image."""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from rnr.atomic import whole
from rnr.data.color import to_rgb, to_srgb
from rnr.diagnosis import Diagnosis

SUFFIXES = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
DEPTH_SUFFIXES = (".png", ".npy", ".npz", ".mat")
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What may be in a photo's file, whatever its name says. Pillow knows more: it would run Ghostscript on some."""

MAX_PIXELS = 51_000_000
"""What is sold as 50 megapixels has a little more."""

OTHER_FORMATS = (".avif", ".arw", ".cr2", ".cr3", ".dng", ".gif", ".heic", ".heif", ".jxl", ".nef", ".orf", ".raf", ".rw2")
"""Photos too, by their suffix, which are not read."""


class PhotoError(ValueError):
    """A file that cannot be used as a photo; the message names the file and says what is wrong with it."""


@dataclass(frozen=True)
class Photo:
    """One clean photo on disk. depth: a file of its depth, or None. scene: what it shows, or None."""

    path: Path
    name: str
    depth: Path | None = None
    scene: str | None = None


class Named(Protocol):
    @property
    def name(self) -> str: ...


Some = TypeVar("Some", bound=Named)


def limited(photos: Sequence[Any], limit: int | None) -> list[Any]:
    """At most ``limit`` of ``photos``, or of anything else, evenly spread; None for all."""
    count = len(photos) if limit is None else min(limit, len(photos))
    return [photos[i * len(photos) // count] for i in range(count)]


def held_out(photos: Sequence[Some], share: float) -> tuple[list[Some], list[Some]]:
    """``photos`` without and of the last ``share`` by name, at least one name where there are several."""
    names = list(dict.fromkeys(photo.name for photo in photos))  # several looks at a photo have one name
    count = round(len(names) * share)
    last = set(names[len(names) - (max(1, count) if share and len(names) > 1 else count) :])
    return [photo for photo in photos if photo.name not in last], [photo for photo in photos if photo.name in last]


def told_apart(photos: list[Photo]) -> list[Photo]:
    """``photos``, if what is made of each gets a name of its own. Raises :class:`PhotoError` for two that would not."""
    taken: dict[Path, Photo] = {}
    for photo in photos:
        other = taken.setdefault(Path(photo.name).with_suffix(""), photo)
        if other != photo:
            name = Path(photo.name).with_suffix(".png")
            raise PhotoError(f"{other.path} and {photo.path} would both be written as {name}; rename one")
    return photos


def open_photo(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned upright by its EXIF tag.

    Colors are those of sRGB: a file with another profile, such as a phone's Display P3, is converted. 16-bit files are
    scaled to 8 bit, grey ones repeated over RGB, transparent ones laid on white, and of a file with several frames the first
    is taken. Raises :class:`PhotoError` for a file that is missing, no image, truncated or larger than ``max_pixels``, and
    for values that are no numbers.
    """
    path = Path(path)
    # Pillow's own guard against decompression bombs would warn or raise below our limit; the size is checked before
    # any pixel is decoded, here.
    Image.MAX_IMAGE_PIXELS = None
    try:
        # From an open file: of a named one Pillow maps grey TIFFs into memory, and garbles those that are to be turned.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            _check_size(path, image, max_pixels)
            image.load()
            return np.array(to_rgb(to_srgb(_upright(image))))
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PhotoError(f"{path}: is a folder, not a photo") from None
    except Image.UnidentifiedImageError:
        raise PhotoError(f"{path}: not an image that can be read ({', '.join(FORMATS)} can)") from None
    # Pillow raises SyntaxError, struct.error, EOFError and others for broken files, depending on the format.
    except Exception as error:
        raise PhotoError(f"{path}: cannot be read as a photo ({error or type(error).__name__})") from error


def _check_size(path: Path, image: Image.Image, max_pixels: int) -> None:
    if (pixels := image.width * image.height) > max_pixels:
        raise PhotoError(
            f"{path}: {image.width}x{image.height} is {pixels / 1e6:.1f} megapixels, over the limit of {max_pixels / 1e6:g}"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turned by its EXIF tag. One that cannot be read does not count."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as for broken photos: Pillow raises whatever its reader stumbles over
        return image


def save_photo(image: Tensor, path: Path) -> None:
    """Writes ``image`` (3, H, W), clamped to [0, 1], as an 8-bit PNG that is whole or not there."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with whole(path) as place:
        Image.fromarray(pixels).save(place, format="PNG")


def inside(folder: Path, name: str) -> Path:
    """``folder / name``. Raises :class:`PhotoError` for a name that leads out of ``folder``."""
    path = folder / name
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)) or "\0" in name:
        raise PhotoError(f"{name!r} is no name of a photo: it leads out of {folder}")
    return path


def photo_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) as :func:`open_photo` will return it, without decoding a pixel, unless a PNG's metadata stand behind
    them. Raises :class:`PhotoError`, for a photo of more than ``max_pixels`` too."""
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(path, image, max_pixels)
            # EXIF orientations 5 to 8 swap the sides; Pillow states the size of a TIFF with that done already.
            turned = image.format != "TIFF" and _orientation(path, image) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except PhotoError:
        raise
    except Exception as error:
        raise PhotoError(f"{path}: cannot be read as a photo ({error or type(error).__name__})") from error


def _orientation(path: Path, image: Image.Image) -> int | None:
    """By its EXIF tag, where that can be read."""
    # For a PNG, Pillow decodes the pixels to come to what may stand behind them.
    read = Image.Image.getexif if image.format == "PNG" and not _tells_at_its_end(path) else type(image).getexif
    try:
        return read(image).get(0x0112)
    except Exception:  # see _upright
        return None


def _tells_at_its_end(path: Path) -> bool:
    """Whether a PNG has metadata behind its pixels."""
    behind = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if behind and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            behind |= kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)
    return False


def find_photos(root: str | os.PathLike, scenes: bool = True) -> list[Photo]:
    """All photos under the folder ``root``, in any layout, sorted by path; folders may be links.

    Depth is taken from ``depth/<stem>.png`` (or .npy, .npz, .mat) beside a photo or beside its folder, or from a folder
    ``depth`` in or beside ``root`` that mirrors the tree below it; scenes, unless ``scenes`` is False, from a
    ``scenes.jsonl`` (``{"photo": relative path, "scene": text}`` a line) in ``root`` or up to two folders above. Raises
    :class:`PhotoError` if there is no such folder or no photo in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise PhotoError(f"{root}: no such folder of photos")
    paths = sorted(
        p for p in _files(root) if p.suffix.lower() in SUFFIXES and "depth" not in p.relative_to(root).parts[:-1]
    )
    if not paths:
        raise PhotoError(f"{root}: no photos found (looked for {', '.join(SUFFIXES)})")
    described = dict(_scenes(root)) if scenes else {}
    return [
        Photo(path, _printable(path.relative_to(root).as_posix()), _depth_of(path, root), described.get(path.resolve()))
        for path in paths
    ]


def passed_over(root: Path) -> list[Path]:
    """Photos under the folder ``root`` of formats that are not read."""
    return sorted(path for path in _files(root) if path.suffix.lower() in OTHER_FORMATS)


def photo_at(path: Path, scenes: bool = True) -> Photo:
    """A single file as a photo, with its depth and, unless ``scenes`` is False, its scene, if there are such; nothing is
    opened yet."""
    described = dict(_scenes(path.parent)) if scenes and path.is_file() else {}
    return Photo(path, _printable(path.name), _depth_of(path, path.parent), described.get(path.resolve()))


def _files(root: Path) -> Iterator[Path]:
    """All files below a folder, behind links too; but none twice, and none of a built set (:mod:`rnr.data.built`)."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen or "dataset.json" in names:
            below.clear()
            continue
        seen.add(place)
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _printable(name: str) -> str:
    """``name`` with what is no UTF-8 in it, as old archives have it, as ``\\xe9``: it goes into tables and names of results,
    and tells photos apart."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _depth_of(path: Path, root: Path) -> Path | None:
    """The first depth file there is; a folder that mirrors ``root`` before one where names of other folders meet. What lies
    where the depth of another photo belongs is not this one's."""
    inside = path.relative_to(root)
    path, root = (Path(os.path.abspath(p)) for p in (path, root))  # "." has no parent
    places = ((path.parent, path.name), (root, inside), (root.parent, inside), (path.parent.parent, path.name))
    for beside, name in dict.fromkeys(places):
        for suffix in DEPTH_SUFFIXES:
            if (depth := (beside / "depth" / name).with_suffix(suffix)).is_file() and not _is_of_another(path, beside / name):
                return depth
    return None


def _is_of_another(path: Path, place: Path) -> bool:
    """Whether there is a photo at ``place``, whatever its format, and it is not ``path``."""
    suffixes = (each for suffix in SUFFIXES for each in (suffix, suffix.upper()))
    return place != path and any(place.with_suffix(suffix).is_file() for suffix in suffixes)


def _scenes(root: Path) -> Iterator[tuple[Path, str | None]]:
    for folder in [root.resolve(), *root.resolve().parents[:2]]:
        if (file := folder / "scenes.jsonl").is_file():
            for number, line in enumerate(file.read_bytes().splitlines(), start=1):
                try:
                    entry = json.loads(line.decode())
                    yield (folder / entry["photo"]).resolve(), Diagnosis(scene=entry["scene"]).scene
                except (ValueError, KeyError, TypeError) as error:
                    reason = f"expected {{'photo': ..., 'scene': ...}} ({error})"
                    raise PhotoError(f"{file}, line {number}: {reason}") from error
            return


def shipped_photos(split: str) -> list[Photo]:
    """The photos that scikit-image brings along: 'train' (3), 'val' (1) or 'test' (2, the first with measured depth)."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return [
        Photo(folder / file, file, folder / depth if depth else None, scene) for file, depth, scene in _SHIPPED[split]
    ]


_SHIPPED: dict[str, Sequence[tuple[str, str | None, str]]] = {
    "train": (
        (
            "astronaut.png",
            None,
            "Smiling woman with short brown hair in an orange space suit holding a white helmet; "
            "flag at left, white shuttle model and dark background behind.",
        ),
        (
            "chelsea.png",
            None,
            "Close face of a ginger tabby cat with green eyes, pink nose and white whiskers; smooth soft background.",
        ),
        ("coffee.png", None, "White cup of dark coffee with a spoon on a white saucer stands on a brown wooden table."),
    ),
    "val": (
        (
            "rocket.jpg",
            None,
            "White rocket stands on a launch pad between tall steel lightning towers; flat horizon, "
            "smooth evening sky of blue and orange.",
        ),
    ),
    "test": (
        (
            "motorcycle_left.png",
            "motorcycle_disp.npz",
            "Black and chrome motorcycle stands in front of shelves with "
            "tools and boxes in a workshop; grey smooth floor, yellow and red objects behind.",
        ),
        (
            "camera.png",
            None,
            "Man in a dark coat looks through a camera on a tripod on a lawn; tall tower and buildings "
            "stand far behind beneath a smooth grey sky.",
        ),
    ),
}
