"""What the commands share: how sources are named, progress shown, and failures told."""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rnr.data import presets
from rnr.data.layouts import photos_in
from rnr.data.photos import Photo, PhotoError, find_photos, held_out, limited, photo_at


def add_photo_sources(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    """PHOTOS and --split, as :func:`rnr.data.layouts.photos_in` takes them."""
    parser.add_argument(
        "photos", nargs=nargs, metavar="PHOTOS",
        help="a folder or file of clean photos, reside:FOLDER or ots:FOLDER (published sets as they unpack)",
    )  # fmt: skip
    parser.add_argument("--split", choices=("train", "test"), default="train", help="of published sets (default %(default)s)")


def photos_from(args: argparse.Namespace) -> list[Photo]:
    """What :func:`add_photo_sources` and :func:`add_drawing` ask for, no file twice. Raises ``PhotoError``."""
    if args.held_out is not None and not 0 < args.held_out <= 1:
        raise PhotoError(f"--held-out must lie within (0, 1], got {args.held_out:g}")
    found = photos_in(args.photos, args.split)
    if args.held_out is not None:
        found = [held_out(photos, args.held_out)[1] for photos in found]
    return limited(once(found), args.limit)


def once(sources: Sequence[Sequence[Photo]]) -> list[Photo]:
    """The photos of all sources, no file twice: what one source holds out another would bring back."""
    return list({photo.path.resolve(): photo for photos in sources for photo in photos}.values())


def add_weights(parser: argparse.ArgumentParser, *models: str) -> None:
    """An option for each of ``models``, ``reasoner`` or ``restorer``."""
    for name in models:
        parser.add_argument(
            f"--{name}", default=f"shipped/{name}", metavar="WEIGHTS",
            help=f"folder or hub name of the {name}'s weights (default shipped/{name})",
        )  # fmt: skip


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """--preset, --draws, --limit and --seed: how photos are degraded, and how many of them."""
    parser.add_argument(
        "--preset", default="paper", metavar="NAME",
        help=f"priors to draw from: {', '.join(presets.names())}, or a YAML file (default paper)",
    )  # fmt: skip
    parser.add_argument(
        "--draws", type=at_least_one, default=1, metavar="N", help="degradations of each photo (default %(default)s)"
    )
    parser.add_argument("--limit", type=at_least_one, metavar="N", help="at most so many photos, evenly spread (default all)")
    parser.add_argument("--seed", type=seed, default=0, help="of the degradations drawn (default 0)")
    parser.add_argument(
        "--held-out", type=float, metavar="SHARE",
        help="only the last SHARE of each source: 0.05 are the photos that rnr fit holds out of its training folders",
    )  # fmt: skip


def share(text: str) -> float:
    """For argparse: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def at_least_one(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """For argparse: a whole number that a generator takes."""
    try:
        value = int(text)
    except ValueError:
        value = 2**63
    if abs(value) >= 2**62:
        raise argparse.ArgumentTypeError(f"must be a whole number between -2**62 and 2**62, got {text!r}")
    return value


def progress(what: str = "{task.description}") -> Progress:
    """A bar on stderr that counts ``what``; nothing where stderr is no terminal. What is printed meanwhile goes where it
    would go without one."""
    console = Console(stderr=True)
    return Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty(),
    )  # fmt: skip


def name_apart(name: str, taken: set[str]) -> str:
    """``name``, or with a number behind it that tells it from those in ``taken`` (in lower case), to which it goes."""
    own, number = name, 1
    while own.lower() in taken:
        number += 1
        own = f"{name}_{number}"
    taken.add(own.lower())
    return own


def find_all(paths: Sequence[Path], scenes: bool = False) -> Iterator[Photo | PhotoError]:
    """The photos of files and folders, with ``scenes`` or without, and what is wrong with those that cannot be found."""
    for path in paths:
        try:
            yield from find_photos(path, scenes) if path.is_dir() else [photo_at(path, scenes)]
        except PhotoError as error:
            yield error
        except OSError as error:  # a folder that may not be read, a name that is too long
            yield PhotoError(f"{path}: {error.strerror or error}")


class Failures:
    """Counts what could not be done, a line on stderr each; the rest goes on."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, error: object) -> None:
        self.count += 1
        print(f"error: {error}", file=sys.stderr, flush=True)

    @contextmanager
    def passing_over(self, photo: Photo | PhotoError) -> Iterator[None]:
        """What a photo may fail of is told and passed over: that it cannot be used (:class:`PhotoError`), a full disk, too
        little memory for it (RuntimeError), or that a model does not take it (ValueError)."""
        try:
            yield
        except BrokenPipeError:
            raise
        except PhotoError as error:
            self.tell(error)
        except (OSError, RuntimeError, ValueError) as error:
            self.tell(f"{photo.path}: {error}")
