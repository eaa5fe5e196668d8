"""Which photo comes when, at which size: the batches of training, and those of an evaluation."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed
from torch.utils.data import Sampler

from rnr.data.photos import Photo, PhotoError, photo_size
from rnr.data.rescale import Rescale

WHOLE = "whole"
Crop = int | Literal["whole"]
"""The side of a square in pixels, or photos nearly whole."""

LEAST = 0.8  # of a photo's height, and of its width, that is shown of one nearly whole
LARGEST = 768  # pixels of the longer side of one shown nearly whole, unless it can only be cut


class Visit(NamedTuple):
    """One look at a photo. crop: side of a random square crop in pixels, or its (height, width), or 0 for the whole photo.
    scale: how many times as large as in the photo it is shown, as far as that has room for it."""

    index: int
    epoch: int
    crop: int | tuple[int, int]
    scale: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the crop, in pixels."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


def seed_of(*key: object) -> int:
    """A 48-bit seed that depends on nothing but ``key``."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(errors="surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest, "big")


Group = tuple[int | tuple[int, int], list[tuple[int, int]]]
"""A side, or the (height, width) of whole photos, and which photos are visited for which time."""


class TrainBatches(Sampler[list[Visit]]):
    """Batches of visits to shuffled photos, anew each epoch, sharded over processes. Each batch draws one of ``crops``, and
    at what size by ``rescale``. ``visits`` looks are taken at each photo an epoch. The next pass begins with batch ``start``
    of the epoch.

    A batch of ``whole`` photos has photos of one size only, all cut to between :data:`LEAST` and all of their height and of
    their width. How many such batches there are depends on which photos came together; Lightning goes by the length of the
    first epoch. So all have that: of a longer one some batches are left out, by chance, and a shorter one looks at some
    photos again. sizes: (height, width) of each photo; asked for where ``whole`` is among the crops. largest: pixels of the
    longer side of one shown nearly whole, where larger ones are shown smaller; None: for photos that are only cut.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        crops: Sequence[Crop],
        seed: int,
        visits: int = 1,
        rescale: Rescale = Rescale(),  # noqa: B008  (frozen)
        sizes: Sequence[tuple[int, int]] | None = None,
        largest: int | None = LARGEST,
    ) -> None:
        if WHOLE in crops and sizes is None:
            raise ValueError("batches of whole photos need to know their sizes")
        self.count, self.batch_size, self.crops = count, batch_size, list(crops)
        self.seed, self.visits, self.rescale, self.sizes, self.largest = seed, visits, rescale, sizes, largest
        self.epoch = self.start = 0
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
        """The same on every process but for the photos, so that all take steps of equal cost."""
        groups, generator = self._groups_of(self.epoch)
        rank, world = rank_and_world()
        plan = []
        for crop, group in groups:
            size, scale = self._size(crop, generator)
            mine = _dealt(group, world)[rank::world]
            if len(group) < world:  # too few for one each: some are shown to several, never more than a batch to one
                mine = [group[(rank + i) % len(group)] for i in range(min(self.batch_size, len(group)))]
            plan.append([Visit(index, epoch, size, scale) for index, epoch in mine])
        return plan

    def _groups_of(self, epoch: int) -> tuple[list[Group], torch.Generator]:
        """All groups of an epoch, as many as the first one has, and the generator that they were drawn from."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
        visits = [
            (index, epoch * self.visits + v)
            for v in range(self.visits)
            for index in torch.randperm(self.count, generator=generator).tolist()
        ]
        _, world = rank_and_world()
        dealt, size = _dealt(visits, world), self.batch_size * world
        groups = self._groups(dealt, size, generator)
        if epoch and WHOLE in self.crops:
            count = len(self._groups_of(0)[0])
            while len(groups) < count:
                groups += self._groups(dealt, size, generator)
            groups = groups[:count]
        return groups, generator

    def _groups(self, visits: list[tuple[int, int]], size: int, generator: torch.Generator) -> list[Group]:
        """What all processes take at once, at most ``size`` visits each time, with the side of the squares to be cut or the
        (height, width) of the photos to be shown nearly whole."""
        groups, whole = [], {}
        for some in _chunks(visits, size):
            crop = self.crops[int(torch.randint(len(self.crops), (), generator=generator))]
            if crop != WHOLE:
                groups.append((crop, some))
                continue
            for visit in some:
                whole.setdefault(self.sizes[visit[0]], []).append(visit)
        if not whole:
            return groups
        groups += [(shape, some) for shape, alike in whole.items() for some in _chunks(alike, size)]
        return [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]

    def _size(
        self, crop: int | tuple[int, int], generator: torch.Generator
    ) -> tuple[int | tuple[int, int], float]:
        scale = self.rescale.draw(generator)
        if isinstance(crop, int):
            return crop, scale
        shares = (LEAST + (1 - LEAST) * torch.rand(2, generator=generator)).tolist()
        sides = [max(round(side * share), 1) for side, share in zip(crop, shares, strict=True)]
        scale = min(scale, math.inf if self.largest is None else self.largest / max(sides))
        height, width = (max(round(side * scale), 1) for side in sides)
        return (height, width), scale


def _dealt(items: list, world: int) -> list:
    """As many of them as can be dealt out evenly; all, if they are too few for one each."""
    return items[: len(items) - len(items) % world] or items


def _chunks(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


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
        # A photo that cannot be read gets a batch of its own; reading it will say what is wrong.
        super().__init__([size_or_none(photo) or (0, i) for i, photo in enumerate(photos)], batch_size, draws)


def size_or_none(photo: Photo) -> tuple[int, int] | None:
    """(height, width) of a photo, None if its file cannot be read."""
    try:
        return photo_size(photo.path)
    except PhotoError:
        return None


def rank_and_world() -> tuple[int, int]:
    """Of this process among those that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
