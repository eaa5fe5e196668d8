"""Builds a set: samples made by worker processes, written in order by one.

Killed at any moment and run again, a build ends with the bytes of an undisturbed one: each sample depends on its recipe,
photo and look alone, is written beside its place and moved there when whole, and a shard likewise; ``dataset.json`` is
there first and tells of the number of samples last.
"""

import multiprocessing
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import webdataset
from torch.utils.data import DataLoader, Dataset

from rnr.data.built import Header, index_of, key_of, photo_of, shards_in
from rnr.data.photos import Photo, PhotoError
from rnr.data.sample import Recipe, make

LEFTOVER = re.compile(r"(dataset\.json|shard-\d{6}\.tar|\d{6}-\d{3})\.part")
"""What a build leaves that was killed."""

Report = Callable[[str | None], None]
"""Called once a sample: with what is wrong if it could not be made, and with None otherwise."""


@dataclass(frozen=True)
class Made:
    """A sample's files, or why there are none."""

    key: str
    files: dict[str, bytes] | None
    error: str = ""


class Samples(Dataset):
    """All samples of a set, in order of their keys: each photo's looks, one after the other."""

    def __init__(self, photos: Sequence[Photo], recipe: Recipe) -> None:
        self.photos, self.recipe = list(photos), recipe

    def __len__(self) -> int:
        return len(self.photos) * self.recipe.looks

    def __getitem__(self, place: int) -> Made:
        index, look = divmod(place, self.recipe.looks)
        key = key_of(index, look)
        try:
            return Made(key, make(self.photos[index], look, self.recipe))
        except PhotoError as error:
            return Made(key, None, str(error))
        # Too little memory for this photo (RuntimeError): the next one may well go through.
        except (OSError, RuntimeError) as error:
            return Made(key, None, f"{self.photos[index].path}: {error}")


class Mismatch(ValueError):
    """The folder holds a set that was made otherwise."""


def build(photos: Sequence[Photo], recipe: Recipe, root: Path, shard_mb: float, workers: int, report: Report) -> int:
    """Makes the set ``root``, or goes on with it; returns how many samples it has in the end.

    shard_mb: megabytes from which a shard is closed, 0 for folders. Raises :class:`Mismatch` if ``root`` holds another
    set, or anything that is none.
    """
    header = Header.of(recipe, photos, shard_mb)
    _claim(root, header)
    samples = Samples(photos, recipe)
    write = _into_shards if shard_mb else _into_folders
    count = write(samples, header, root, workers, report)
    replace(header, samples=count).save(root)
    return count


def run(samples: Dataset, places: Sequence[int], workers: int) -> Iterator:
    """``samples[place]`` for all places, in their order, made by ``workers`` processes (0: by this one)."""
    # Its workers compute on one thread each.
    yield from DataLoader(
        samples,
        batch_size=None,
        sampler=places,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_end_with_parent,
    )


def _end_with_parent(worker: int) -> None:
    """DataLoader's own watch over a parent that was killed does not help a worker that waits for it to take a sample."""
    parent = multiprocessing.parent_process().pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(item: object) -> object:
    return item


def _claim(root: Path, header: Header) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if (root / "dataset.json").is_file():
        there = Header.load(root)
        if differences := header.differences(there):
            raise Mismatch(f"{root} holds a set that was built otherwise: {'; '.join(differences)}")
    elif any(not LEFTOVER.fullmatch(entry.name) for entry in root.iterdir()):
        raise Mismatch(f"{root} is neither empty nor a set that was begun before")
    else:
        header.save(root)
    for leftover in (entry for entry in root.iterdir() if LEFTOVER.fullmatch(entry.name)):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _into_folders(samples: Samples, header: Header, root: Path, workers: int, report: Report) -> int:
    expected = header.expected()
    there = {path.name for path in root.iterdir() if path.is_dir()} & set(expected)  # not what an editor left there
    places = []
    for place, key in enumerate(expected):
        if key in there:
            report(None)
        else:
            places.append(place)
    for made in run(samples, places, workers):
        if made.files is not None:
            partial = root / f"{made.key}.part"
            partial.mkdir()
            for name, content in made.files.items():
                (partial / name).write_bytes(content)
            partial.replace(root / made.key)
            there.add(made.key)
        report(made.error or None)
    return len(there)


def _into_shards(samples: Samples, header: Header, root: Path, workers: int, report: Report) -> int:
    """A shard is closed with the sample that takes it over ``shard_mb``; which samples share one is thus no matter of
    when a build was killed, nor of which shards were deleted since."""
    keys = header.expected()
    done, gaps = _shards_there(root, keys)
    missing = {place for gap in gaps for place in gap.places}
    for place, key in enumerate(keys):
        if place not in missing:
            report(None if key in done else f"{header.photos[photo_of(key)]}: left out before")
    count = len(done)
    for gap in gaps:
        shard = Shard(root, gap.number)
        for made in run(samples, gap.places, workers):
            if made.files is not None:
                shard.add(made.key, made.files)
                count += 1
                if shard.bytes >= header.shard_mb * 1_000_000 and shard.number + 1 != gap.next:
                    shard.close()
                    shard = Shard(root, shard.number + 1)
            report(made.error or None)
        shard.close()
    return count


@dataclass(frozen=True)
class Gap:
    """Shards that are not there. number: of the first; next: of the first behind them, None at the end of the set. places:
    of the samples that they are to have, or that could not be made."""

    number: int
    next: int | None
    places: range


def _shards_there(root: Path, keys: Sequence[str]) -> tuple[set[str], list[Gap]]:
    """The samples ``done``, and the gaps between and behind their shards."""
    place_of = {key: place for place, key in enumerate(keys)}
    done, gaps, number, place = set(), [], 0, 0
    for shard in shards_in(root):
        places = [place_of[key] for key in index_of(shard) if key in place_of]
        if not places:  # nothing of this set
            continue
        here = int(shard.stem.removeprefix("shard-"))
        if here > number:
            gaps.append(Gap(number, here, range(place, min(places))))
        done |= {keys[each] for each in places}
        number, place = here + 1, max(places) + 1
    return done, [*gaps, Gap(number, None, range(place, len(keys)))]


class Shard:
    """``shard-<number>.tar`` while it is written, beside its place; :meth:`close` moves it there, if it has samples."""

    def __init__(self, root: Path, number: int) -> None:
        self.path, self.number, self.bytes = root / f"shard-{number:06d}.tar", number, 0
        self._partial = self.path.with_name(f"{self.path.name}.part")
        self._writer: webdataset.TarWriter | None = None

    def add(self, key: str, files: dict[str, bytes]) -> None:
        if self._writer is None:
            # The same samples must give the same bytes, whoever writes them and when.
            options = {"user": "", "group": "", "mode": 0o644, "mtime": 0}
            self._writer = webdataset.TarWriter(str(self._partial), encoder=False, **options)
        self.bytes += self._writer.write({"__key__": key, **files})

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._partial.replace(self.path)
