"""Photos in, a folder of its own for what is made of each: what the commands for photos have in common.

A photo that cannot be used costs one line on stderr; the rest go on.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from rnr.command_line import Failures, find_all, name_apart, progress
from rnr.data.photos import Photo, PhotoError, open_photo, passed_over
from rnr.models.tiling import watched

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def each(
    paths: Sequence[Path],
    one: Callable[[Photo, Tensor, Path], str | None],
    output: Path | None,
    names: Sequence[str] = (),
    scenes: bool = False,
) -> int:
    """``one(photo, its image (3, H, W), its output folder)`` for all photos, with their ``scenes`` or without, and a line on
    where each one went, with what ``one`` answers. names: of what it may write there; such files of an earlier run do not
    stay. Returns the exit status: 1 if some failed, 2 if ``output`` cannot be written to."""
    failures, taken, made = Failures(), set(), output is not None and not output.exists()
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
            taken = _names_of_sources(output, paths)
        except (OSError, ValueError) as error:
            failures.tell(error)
            return 2
    for folder in filter(_is_folder, paths):
        with suppress(OSError):  # of which the photos tell
            _tell_of_formats(folder)
    found = _once([photo for path in paths for photo in _photos_of(path, output, scenes)])
    sources = {photo.path.resolve() for photo in found if isinstance(photo, Photo)}
    for photo in _shown(found):
        with failures.passing_over(photo):
            if isinstance(photo, PhotoError):
                raise photo
            image = opened(photo)
            folder = Path() if output is None else output / _folder_name(photo.path, taken)
            if output is None:
                one(photo, image, folder)
                continue
            if lost := sources & {(folder / name).resolve() for name in names}:
                raise PhotoError(f"{lost.pop()}: would be replaced by what is made of {photo.path}; name another folder")
            folder.mkdir(parents=True, exist_ok=True)
            before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name in names}
            if any(folder.iterdir()):
                print(f"{folder}: replaces what was made there before", file=sys.stderr, flush=True)
            try:
                said = one(photo, image, folder)
                for path, time in before.items():
                    if path.stat().st_mtime_ns == time:
                        path.unlink()  # it was made of an earlier diagnosis
            except BaseException:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()
                raise
            print(f"{photo.path}: {folder}" + (f" ({said})" if said else ""), flush=True)
    if made:
        with suppress(OSError):  # it is not empty
            output.rmdir()
    return 1 if failures.count else 0


def _shown(found: Sequence[Photo | PhotoError]) -> Iterator[Photo | PhotoError]:
    """One after the other, with a bar for them if there are several, and one for the tiles of a large one."""
    bar = progress()
    tiles = bar.add_task("tiles", visible=False)
    photos = bar.add_task("photos", total=len(found), visible=len(found) > 1)

    def tell(done: int, count: int) -> None:
        bar.start()
        if done == 1:
            bar.reset(tiles, total=count)
        bar.update(tiles, completed=done, visible=done < count)

    if len(found) > 1:
        bar.start()
    try:
        with watched(tell):
            for photo in found:
                yield photo
                bar.update(tiles, visible=False)
                bar.advance(photos)
    finally:
        bar.stop()


def _tell_of_formats(folder: Path) -> None:
    if left := passed_over(folder):
        formats = ", ".join(sorted({path.suffix.lower() for path in left}))
        print(f"{folder}: {len(left)} photos are passed over, of formats that are not read ({formats})", file=sys.stderr)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # of which the photos tell
        return False


def _once(found: Sequence[Photo | PhotoError]) -> list[Photo | PhotoError]:
    """No file twice."""
    once: dict[object, Photo | PhotoError] = {}
    for photo in found:
        once.setdefault(photo if isinstance(photo, PhotoError) else photo.path.resolve(), photo)
    return list(once.values())


def _names_of_sources(output: Path, paths: Sequence[Path]) -> set[str]:
    """Of folders of photos that lie in ``output``, which are no places to write to. ``ValueError`` if ``output`` is one of
    them itself: what is written there would be photos the next time."""
    folders = [path.resolve() for path in paths if _is_folder(path)]
    if output.resolve() in folders:
        raise ValueError(f"{output}: is the folder of photos; name another one for what is made of them")
    return {folder.name.lower() for folder in folders if folder.parent == output.resolve()}


def _photos_of(path: Path, output: Path | None, scenes: bool) -> Iterator[Photo | PhotoError]:
    """Those of a file or folder, but for what was made of them in an ``output`` that lies in this folder."""
    within = output is not None and _is_folder(path) and output.resolve().is_relative_to(path.resolve())
    photos = list(find_all([path], scenes))
    left = [photo for photo in photos if not within or _is_source(photo, output.resolve())]
    yield from left if left or not photos else [PhotoError(f"{path}: no photos found but those in {output}")]


def _is_source(photo: Photo | PhotoError, output: Path) -> bool:
    return isinstance(photo, PhotoError) or not photo.path.resolve().is_relative_to(output)


def _folder_name(path: Path, taken: set[str]) -> str:
    """The photo's stem, made safe (a file named '...png' has the stem '..') and told apart from earlier ones."""
    return name_apart(path.stem.strip(". ") or "photo", taken)


def opened(photo: Photo) -> Tensor:
    """(3, H, W) float in [0, 1], where the models are."""
    return torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1).to(DEVICE).float() / 255
