"""The commands that prepare data once: ``rnr depth`` and ``rnr scenes``.

A photo that cannot be used costs one line on stderr; the rest go on, and the command exits with 1 at the end.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError

from rnr.atomic import whole
from rnr.command_line import Failures, add_photo_sources, find_all, progress
from rnr.data.depth import DepthPrior, classical, save_depth
from rnr.data.layouts import photos_in
from rnr.data.photos import DEPTH_SUFFIXES, PhotoError, open_photo, photo_size
from rnr.diagnosis.scene import problems


def depth(argv: Sequence[str]) -> int:
    """Estimates the depth of photos, once, into files that :func:`rnr.data.photos.find_photos` finds."""
    parser = argparse.ArgumentParser(
        prog="rnr depth",
        description="Estimate the relative depth of photos, once, for the fog: DIR/<stem>.png, laid out as the photos "
        "are, is found if DIR is the folder `depth` beside the photos' folder or in it. What is in DIR is kept, so that a "
        "killed run goes on where it was; to have depth made anew, delete it.",
    )
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTOS", help="image files, or folders of them")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the depth")
    parser.add_argument(
        "--model", metavar="CHECKPOINT",
        help="folder or hub name of any depth-estimation checkpoint, as depth-anything/Depth-Anything-V2-Small-hf "
        "(default: none, a classical estimate)",
    )  # fmt: skip
    tells = parser.add_mutually_exclusive_group()
    tells.add_argument(
        "--inverse", dest="inverse", action="store_true", default=None, help="the model tells inverse depth"
    )
    tells.add_argument(
        "--metric", dest="inverse", action="store_false", help="the model tells depth (default: as its config says)"
    )
    args = parser.parse_args(argv)
    if args.inverse is not None and args.model is None:
        parser.error("--inverse and --metric say what a --model tells")
    _refuse_among_photos(parser, args.photos, args.output)
    prior = classical if args.model is None else _estimator(parser, args.model, args.inverse)
    return _write_depth(prior, args.photos, args.output)


def _write_depth(prior: DepthPrior, sources: Sequence[Path], output: Path) -> int:
    failures, kept = Failures(), 0
    first: dict[Path, Path] = {}  # the photo that each file of depth is of
    found = list(find_all(sources))
    for photo in track(found, description="", disable=len(found) < 2 or not sys.stderr.isatty()):
        with failures.passing_over(photo):
            if isinstance(photo, PhotoError):
                raise photo
            target = (output / photo.name).with_suffix(".png")
            if (other := first.setdefault(target, photo.path)) != photo.path:
                raise PhotoError(f"{photo.path}: its depth would be that of {other}, {target}; give them other names")
            if any(target.with_suffix(suffix).is_file() for suffix in DEPTH_SUFFIXES):
                kept += 1
                continue
            estimate = prior(photo, torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1))
            target.parent.mkdir(parents=True, exist_ok=True)
            save_depth(estimate, target)
    already = f", of which {kept} were there already" if kept else ""
    print(f"{output}: depth of {len(found) - failures.count} of {len(found)} photos{already}")
    return 1 if failures.count else 0


def _refuse_among_photos(parser: argparse.ArgumentParser, sources: Sequence[Path], output: Path) -> None:
    """Depth is a PNG too: in a folder of photos it would be one of them, except below a folder ``depth``."""
    for source in sources:
        root, below = (source if source.is_dir() else source.parent).resolve(), output.resolve()
        inside = below == root or (source.is_dir() and below.is_relative_to(root))
        if inside and "depth" not in below.relative_to(root).parts:
            parser.error(f"argument -o/--output: in {output} depth would be taken for photos; name it depth")


def _estimator(parser: argparse.ArgumentParser, checkpoint: str, inverse: bool | None) -> DepthPrior:
    from rnr.models.depth import DepthEstimator  # transformers takes seconds

    try:
        return DepthEstimator(checkpoint, inverse, device="cuda" if torch.cuda.is_available() else "cpu")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        parser.exit(2, f"error: {error}\n")


def scenes(argv: Sequence[str]) -> int:
    """Describes clean photos by a vision-language model, or checks descriptions."""
    parser = argparse.ArgumentParser(
        prog="rnr scenes",
        description="Describe the scene of clean photos as appendix A.1 asks, a line a photo. Killed and run again, it "
        "goes on where it was.",
    )
    add_photo_sources(parser, "*")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="a scenes.jsonl; read where it lies in the folder of the photos, or up to two above",
    )  # fmt: skip
    parser.add_argument("--model", metavar="CHECKPOINT", help="a folder or hub name, as Qwen/Qwen3-VL-8B-Instruct")
    parser.add_argument("--batch", type=int, default=8, help="photos at a time, all of one size (default 8)")
    parser.add_argument("--check", type=Path, metavar="FILE", help="say which lines of FILE break the rules")
    args = parser.parse_args(argv)
    if args.check is not None:
        if args.photos or args.output or args.model:
            parser.error("--check takes a file of scenes and nothing else")
        return _check_scenes(parser, args.check)
    if not (args.photos and args.output and args.model):
        parser.error("PHOTOS, -o/--output and --model are required (or --check)")
    if args.batch < 1:
        parser.error(f"argument --batch: must be at least 1, got {args.batch}")
    return _describe(parser, args)


def _describe(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    try:
        done = _reopen_scenes(args.output)
        paths = {photo.path.resolve(): photo.path for photos in photos_in(args.photos, args.split) for photo in photos}
    except ValueError as error:  # PhotoError too
        parser.exit(2, f"error: {error}\n")
    except OSError as error:
        parser.exit(2, f"error: {args.output}: {error}\n")
    failures = Failures()
    sizes: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(path for place, path in paths.items() if place not in done):
        try:
            sizes.setdefault(photo_size(path), []).append(path)
        except PhotoError as error:
            failures.tell(error)
    batches = [
        group[start : start + args.batch] for group in sizes.values() for start in range(0, len(group), args.batch)
    ]
    if batches:
        from rnr.models.captioner import Captioner  # transformers takes seconds

        try:
            captioner = Captioner(args.model, "cuda" if torch.cuda.is_available() else "cpu")
        except (OSError, ValueError) as error:
            parser.exit(2, f"error: {error}\n")
    left = sum(map(len, batches))
    try:
        with progress("photos") as bar, args.output.open("a", encoding="utf-8") as file:
            task = bar.add_task("", total=len(paths), completed=len(paths) - left)
            for batch in batches:
                for path, scene in zip(batch, _described(captioner.describe, batch), strict=True):
                    if isinstance(scene, PhotoError):
                        failures.tell(scene)
                    else:
                        line = {"photo": _relative(path, args.output), "scene": scene}
                        file.write(json.dumps(line) + "\n")  # in ASCII: names need not be UTF-8
                file.flush()
                bar.advance(task, len(batch))
    except OSError as error:  # a full disk
        parser.exit(1, f"error: {args.output}: {error}; run the same command again to go on\n")
    print(f"{args.output}: {len(paths) - failures.count} scenes of {len(paths)} photos")
    return 1 if failures.count else 0


def _described(
    describe: Callable[[Sequence[np.ndarray]], list[str | None]], batch: Sequence[Path]
) -> list[str | PhotoError]:
    """The scene of each photo, or why it has none."""
    opened: list[np.ndarray | PhotoError] = []
    for path in batch:
        try:
            opened.append(open_photo(path))
        except PhotoError as error:
            opened.append(error)
    images = [image for image in opened if not isinstance(image, PhotoError)]
    try:
        scenes = iter(describe(images) if images else [])
    except RuntimeError as error:  # too little memory for this size: the next batch may well go through
        reason = f"cannot be described ({error})"
        scenes = iter([None] * len(images))
    else:
        reason = "has no scene: what the model says of it breaks the rules, and broke them again when asked once more"
    return [
        image if isinstance(image, PhotoError) else next(scenes) or PhotoError(f"{path}: {reason}")
        for path, image in zip(batch, opened, strict=True)
    ]


def _check_scenes(parser: argparse.ArgumentParser, file: Path) -> int:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        parser.exit(2, f"error: {error}\n")
    first: dict[str, int] = {}
    bad = 0
    for number, line in enumerate(lines, start=1):
        try:
            photo, scene = _scene_entry(line)
            found = [f"the scene {problem}" for problem in problems(scene)]
            if (earlier := first.setdefault(photo, number)) != number:
                found.append(f"{photo} has a scene in line {earlier} already")
        except ValueError as error:
            found = [str(error)]
        for problem in found:
            print(f"{file}, line {number}: {problem}")
        bad += bool(found)
    print(f"{file}: {len(lines)} scenes, {bad} of them against the rules")
    return 1 if bad else 0


def _scene_entry(line: bytes) -> tuple[str, str]:
    """Photo and scene of a line; ``ValueError`` if it is none."""
    try:
        entry = json.loads(line.decode())
        photo, scene = entry["photo"], entry["scene"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"expected {{'photo': ..., 'scene': ...}} ({error})") from error
    if not (isinstance(photo, str) and isinstance(scene, str)):
        raise ValueError(f"photo and scene must be text, got {photo!r} and {scene!r}")
    return photo, scene


_LINE_START = b'{"photo": "'


def _reopen_scenes(file: Path) -> set[Path]:
    """The photos that have a line in ``file``, which is rid of the half line that a kill may leave. Makes its folder.

    Raises ``ValueError``, and changes nothing, if another line is no scene; ``OSError`` if the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    content = file.read_bytes() if file.exists() else b""
    lines, newline, rest = content.rpartition(b"\n")
    photos = set()
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            photos.add((file.parent / _scene_entry(line)[0]).resolve())
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from error
    try:
        photos.add((file.parent / _scene_entry(rest)[0]).resolve())
        repaired = content + b"\n"  # only the end of the line is missing, as an editor may leave it
    except ValueError as error:
        # Cut off only what began as a line of ours: a file named by mistake stays as it is.
        if not (rest.startswith(_LINE_START) or _LINE_START.startswith(rest)):
            raise ValueError(f"{file}: its last line is no scene ({error})") from error
        repaired = lines + newline
    if repaired != content:
        with whole(file) as partial:
            partial.write_bytes(repaired)
    return photos


def _relative(photo: Path, file: Path) -> str:
    return Path(os.path.relpath(photo.parent.resolve() / photo.name, file.parent.resolve())).as_posix()
