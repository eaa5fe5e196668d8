"""Stored pairs of built sets, for the loaders: clean and degraded photos as they lie on disk, whole or cut alike.

As everywhere, a loader yields integers (and text): the truth travels as the sample's own JSON. Of a crop, the truth is
still that of the whole photo: severities and mean transmission are not measured anew.
"""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import webdataset
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from rnr.data.batch import DegradedBatch
from rnr.data.batches import Visit, seed_of
from rnr.data.built import BuiltSet, is_built, open_set, photo_of
from rnr.data.dataset import random_crop
from rnr.data.photos import PhotoError
from rnr.data.sample import Record, read_png

NEEDED = ("clean.png", "degraded.png", "sample.json")
BUFFER = 200  # samples that a stream shuffles among; they wait as PNG, about 1 MB each


class Pair(NamedTuple):
    """A stored sample. name: of its clean photo, told apart from those of other sets."""

    built: BuiltSet
    key: str
    name: str

    @property
    def shard(self) -> Path | None:
        """The shard it lies in; None if its set is one of folders."""
        places = self.built.places.get(self.key)
        return self.built.root / places["sample.json"][0] if places else None


class PairBatch(NamedTuple):
    """clean, degraded: (B, 3, H, W) uint8. seed: (B,) int64. records: the truth of each, as JSON."""

    clean: Tensor
    degraded: Tensor
    seed: Tensor
    names: list[str]
    records: list[str]


class Item(NamedTuple):
    """One of a :class:`PairBatch`."""

    clean: Tensor
    degraded: Tensor
    seed: int
    name: str
    record: str


def pairs_in(sources: Sequence[str]) -> list[list[Pair]] | None:
    """The pairs of each built set; None if none of ``sources`` is one.

    Raises :class:`PhotoError` if only some are, or one is broken or not whole yet.
    """
    built = [source for source in sources if is_built(source)]
    if not built:
        return None
    if others := [source for source in sources if source not in built]:
        raise PhotoError(f"{built[0]} is a built set and {others[0]} is not; a split takes either the one or the other")
    sets = [open_set(source) for source in sources]
    prefixes = [""] if len(sets) == 1 else [f"{i}/" for i in range(len(sets))]
    return [
        [Pair(one, key, prefix + one.header.photos[photo_of(key)]) for key in one.keys]
        for one, prefix in zip(sets, prefixes, strict=True)
    ]


def degraded_batch(batch: PairBatch) -> DegradedBatch:
    """The same in floats, on the batch's device."""
    truth = [Record.from_json(text).diagnosis for text in batch.records]
    seeds = [seed_of(seed, "model") for seed in batch.seed.tolist()]
    return DegradedBatch(batch.clean.float() / 255, batch.degraded.float() / 255, truth, seeds, batch.names)


def collate(items: Sequence[Item]) -> PairBatch:
    clean, degraded, seeds, names, records = zip(*items, strict=True)
    return PairBatch(torch.stack(clean), torch.stack(degraded), torch.tensor(seeds), list(names), list(records))


class PairDataset(Dataset):
    """Pairs by their place. A visit's crop and flip follow from (seed, epoch, name, key) alone."""

    def __init__(self, pairs: Sequence[Pair], seed: int, cache_bytes: int = 0) -> None:
        self.pairs, self.seed = list(pairs), seed
        self._free_bytes = cache_bytes
        self._cache: dict[int, Item] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, visit: Visit) -> Item:
        item = self._read(visit.index)
        if not visit.crop:
            return item
        pair = self.pairs[visit.index]
        return cut(item, visit.size, seed_of(self.seed, visit.epoch, pair.name, pair.key))

    @property
    def shards(self) -> set[Path]:
        """Those that hold the pairs; none for folders."""
        return {pair.shard for pair in self.pairs if pair.shard}

    @property
    def in_shards(self) -> bool:
        return all(pair.shard for pair in self.pairs)

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each pair."""
        texts = [pair.built.read(pair.key, ["sample.json"])["sample.json"] for pair in self.pairs]
        return [tuple(json.loads(text)["size"]) for text in texts]

    def _read(self, index: int) -> Item:
        if index in self._cache:
            return self._cache[index]
        pair = self.pairs[index]
        item = decode(pair.name, pair.key, pair.built.read(pair.key, NEEDED))
        if (size := item.clean.numel() + item.degraded.numel()) <= self._free_bytes:
            self._free_bytes -= size
            self._cache[index] = item
        return item


class PairStream(IterableDataset):
    """Training batches from the shards of built sets, read from front to back: for sets on slow or distant disks.

    Each epoch shuffles the shards, deals them out over processes and their workers, and shuffles samples within a
    buffer. Every process yields equally many batches, so that none waits for another; whoever has read all of its
    shards begins anew. ``ValueError`` if there are fewer shards than readers.

    ``epoch`` is the one that the next pass takes, and ``start`` the first of its batches that is yielded; those before
    are read all the same.
    """

    def __init__(
        self, pairs: Sequence[Pair], batch_size: int, crops: Sequence[int], seed: int, visits: int,
        rank: int, world: int, workers: int,
    ) -> None:  # fmt: skip
        self.names = {(str(pair.shard), pair.key): pair.name for pair in pairs}
        self.shards = sorted({shard for shard, _ in self.names})
        self.batch_size, self.crops, self.seed = batch_size, list(crops), seed
        self.rank, self.world, self.epoch, self.start = rank, world, 0, 0
        self.batches = max(1, len(pairs) * visits // (world * batch_size))  # an epoch, of this process
        if len(self.shards) < world * max(1, workers):
            raise ValueError(
                f"{len(self.shards)} shards cannot be dealt out to {world} processes of {max(1, workers)} readers each; "
                f"build the set with smaller shards"
            )

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[PairBatch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        worker = (worker + self.start) % workers  # the loader asks worker 0 first
        samples = self._samples(self.epoch, self.rank * workers + worker, self.world * workers)
        # The draw of crops is the same on every process, so all take steps of equal cost.
        sides = random.Random(seed_of(self.seed, "crop", self.epoch, worker))
        for number in range(worker, self.batches, workers):  # the loader asks its workers in turn
            side, items = sides.choice(self.crops), list(itertools.islice(samples, self.batch_size))
            if number >= self.start:
                yield collate([cut(item, (side, side), seed) for item, seed in items])

    def _samples(self, epoch: int, reader: int, readers: int) -> Iterator[tuple[Item, int]]:
        """Without end: each with the seed of its crop."""
        for lap in itertools.count():
            shards = random.Random(seed_of(self.seed, "shards", epoch, lap)).sample(self.shards, len(self.shards))
            stream = webdataset.DataPipeline(
                webdataset.SimpleShardList(shards[reader::readers]),
                webdataset.tarfile_to_samples(select_files=lambda name: name.partition(".")[2] in NEEDED),
                webdataset.select(lambda sample: (sample["__url__"], sample["__key__"]) in self.names),
                webdataset.shuffle(BUFFER, initial=BUFFER, seed=seed_of(self.seed, "samples", epoch, lap, reader)),
            )
            for sample in stream:
                name, key = self.names[sample["__url__"], sample["__key__"]], sample["__key__"]
                yield decode(name, key, sample), seed_of(self.seed, epoch, lap, name, key)


def decode(name: str, key: str, files: dict[str, bytes]) -> Item:
    """Raises :class:`PhotoError` for a sample that cannot be read."""
    try:
        clean, degraded = read_png(files["clean.png"]), read_png(files["degraded.png"])
        text = files["sample.json"].decode()
        return Item(clean, degraded, Record.from_json(text).seed, name, text)
    except (OSError, ValueError, KeyError) as error:
        raise PhotoError(f"{name}: sample {key} is broken ({error})") from error


def cut(item: Item, size: tuple[int, int], seed: int) -> Item:
    """The same random part of that (height, width) of clean and degraded, mirrored half of the time; ``seed`` takes the place
    of the item's."""
    generator = torch.Generator().manual_seed(seed + 1)
    clean, degraded = random_crop(item.clean, item.degraded, size, generator)
    return item._replace(clean=clean, degraded=degraded, seed=seed)
