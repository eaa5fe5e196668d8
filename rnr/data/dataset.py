"""A map-style data set of photos, and the sampler that decides which photo comes when, at which size."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from rnr.data.batch import CleanBatch
from rnr.data.depth import depth_of
from rnr.data.photos import Photo, PhotoError, open_photo, photo_size
from rnr.data.rescale import Rescale, resized


class Visit(NamedTuple):
    """One look at a photo. crop: side of a random square crop in pixels, or 0 for the whole photo."""

    index: int
    epoch: int
    crop: int


def seed_of(*key: object) -> int:
    """A 48-bit seed that depends on nothing but ``key``."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


class PhotoDataset(Dataset):
    """Photos as uint8 tensors with their depth. A visit's crop, flip and degradation follow from (seed, epoch, name)
    alone; those of a photo that is listed again, also from how often it was listed before. Decoded photos are kept in
    memory up to ``cache_bytes``. trim: pixels that are cut off each side of a photo, as far as that leaves any. rescale: at
    what sizes photos are shown that are cropped."""

    def __init__(
        self,
        photos: Sequence[Photo],
        seed: int,
        cache_bytes: int = 0,
        trim: int = 0,
        rescale: Rescale = Rescale(),  # noqa: B008  (frozen)
    ) -> None:
        self.photos = list(photos)
        self.seed, self.trim, self.rescale = seed, trim, rescale
        seen: Counter[Photo] = Counter()
        self._before: list[int] = []
        for photo in self.photos:
            self._before.append(seen[photo])
            seen[photo] += 1
        self.free_bytes = cache_bytes
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, visit: Visit) -> tuple[Tensor, Tensor, int, int]:
        photo, depth = self._read(visit.index)
        before = self._before[visit.index]
        seed = seed_of(self.seed, visit.epoch, self.photos[visit.index].name, *([before] if before else []))
        if visit.crop:
            generator = torch.Generator().manual_seed(seed + 1)
            side = self.rescale.source(visit.crop, *photo.shape[-2:], generator)
            photo, depth = resized(*random_crop(photo, depth, side, generator), visit.crop)
        return photo, depth, visit.index, seed

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in self._cache:
            photo = torch.from_numpy(open_photo(self.photos[index].path)).permute(2, 0, 1).contiguous()
            pair = trimmed(photo, self.trim), trimmed(depth_of(self.photos[index], photo), self.trim)
            size = sum(t.numel() for t in pair)
            if size > self.free_bytes:
                return pair
            self.free_bytes -= size
            self._cache[index] = pair
        return self._cache[index]


def collate(items: list[tuple[Tensor, Tensor, int, int]]) -> CleanBatch:
    photos, depths, indices, seeds = zip(*items, strict=True)
    return CleanBatch(torch.stack(photos), torch.stack(depths), torch.tensor(indices), torch.tensor(seeds))


def trimmed(image: Tensor, trim: int) -> Tensor:
    """image: (C, H, W), less ``trim`` pixels at each side, or as many as leave one or two."""
    height, width = image.shape[1:]
    top, left = min(trim, (height - 1) // 2), min(trim, (width - 1) // 2)
    return image[:, top : height - top, left : width - left].contiguous()


def random_crop(photo: Tensor, depth: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random square crop, mirrored half of the time; a photo too small is repeated by reflection first."""
    both = torch.cat([photo, depth])
    for axis in (1, 2):
        while both.shape[axis] < side:
            both = torch.cat([both, both.flip(axis)], dim=axis)
    top, left, mirror = (
        int(torch.randint(n, (), generator=generator)) for n in (both.shape[1] - side + 1, both.shape[2] - side + 1, 2)
    )
    both = both[:, top : top + side, left : left + side]
    both = both.flip(2) if mirror else both
    return both[:3], both[3:]


class TrainBatches(Sampler[list[Visit]]):
    """Batches of visits to shuffled photos, anew each epoch, sharded over processes. Each batch draws one of ``crops``.
    ``visits`` looks are taken at each photo an epoch. The next pass begins with batch ``start`` of the epoch."""

    def __init__(self, count: int, batch_size: int, crops: Sequence[int], seed: int, visits: int = 1) -> None:
        self.count, self.batch_size, self.crops = count, batch_size, list(crops)
        self.seed, self.visits, self.epoch, self.start = seed, visits, 0, 0
        self._plans: dict[int, list[list[Visit]]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    @property
    def sampler(self) -> "TrainBatches":
        """Where Lightning looks for ``set_epoch``: it asks a batch sampler's own sampler, never the batch sampler."""
        return self

    def __iter__(self) -> Iterator[list[Visit]]:
        yield from self._plan()[self.start :]

    def __len__(self) -> int:
        return len(self._plan())

    def _plan(self) -> list[list[Visit]]:
        if self.epoch not in self._plans:
            self._plans = {self.epoch: self._make_plan()}
        return self._plans[self.epoch]

    def _make_plan(self) -> list[list[Visit]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        visits = [
            (index, self.epoch * self.visits + v)
            for v in range(self.visits)
            for index in torch.randperm(self.count, generator=generator).tolist()
        ]
        rank, world = rank_and_world()
        visits = visits[rank : len(visits) - len(visits) % world : world] if len(visits) >= world else visits
        batches = []
        # The draw of crops is the same on every process, so all take steps of equal cost.
        while visits:
            crop = self.crops[int(torch.randint(len(self.crops), (), generator=generator))]
            batches.append([Visit(index, epoch, crop) for index, epoch in visits[: self.batch_size]])
            visits = visits[self.batch_size :]
        return batches


class WholeBatches(Sampler[list[Visit]]):
    """Every photo whole and always the same, ``draws`` times, which differ in their seed; photos of equal size share a
    batch. Sharded over processes. sizes: (height, width) of each photo."""

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, draws: int = 1) -> None:
        rank, world = rank_and_world()
        groups: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(sizes):
            groups.setdefault(size, []).append(index)
        batches = [
            [Visit(index, draw, 0) for index in group[i : i + batch_size]]
            for draw in range(draws)
            for group in groups.values()
            for i in range(0, len(group), batch_size)
        ]
        # Every process takes part in an evaluation; one without a photo of its own looks at the first one again.
        self.batches = batches[rank::world] or batches[:1]

    def __iter__(self) -> Iterator[list[Visit]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class WholePhotoBatches(WholeBatches):
    """The same, of photos on disk."""

    def __init__(self, photos: Sequence[Photo], batch_size: int, draws: int = 1) -> None:
        super().__init__([_size(photo, index) for index, photo in enumerate(photos)], batch_size, draws)


def _size(photo: Photo, index: int) -> tuple[int, int]:
    try:
        return photo_size(photo.path)
    except PhotoError:
        return 0, index  # a batch of its own; reading it will say what is wrong


def rank_and_world() -> tuple[int, int]:
    """Of this process among those that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
