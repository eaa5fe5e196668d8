"""A map-style data set of photos."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rnr.data.batch import CleanBatch
from rnr.data.batches import Visit, seed_of, size_or_none
from rnr.data.depth import depth_of
from rnr.data.photos import Photo, open_photo
from rnr.data.rescale import resized, source


class PhotoDataset(Dataset):
    """Photos, each of a name of its own, as uint8 tensors with their depth. A visit's crop, flip and degradation follow from
    (seed, epoch, name) alone. Decoded photos are kept in memory up to ``cache_bytes``. trim: pixels that are cut off each
    side of a photo, as far as that leaves any."""

    def __init__(self, photos: Sequence[Photo], seed: int, cache_bytes: int = 0, trim: int = 0) -> None:
        self.photos = list(photos)
        self.seed, self.trim = seed, trim
        self.free_bytes = cache_bytes
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, visit: Visit) -> tuple[Tensor, Tensor, int, int]:
        photo, depth = self._read(visit.index)
        seed = seed_of(self.seed, visit.epoch, self.photos[visit.index].name)
        if visit.crop:
            generator = torch.Generator().manual_seed(seed + 1)
            part = random_crop(photo, depth, source(visit.size, visit.scale, photo.shape[-2:]), generator)
            photo, depth = resized(*part, visit.size)
        return photo, depth, visit.index, seed

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each photo, without what ``trim`` cuts off; (0, 0) for one that cannot be read, which is found
        out when it is its turn."""
        return [_left(size_or_none(photo) or (0, 0), self.trim) for photo in self.photos]

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
    height, width = _left(image.shape[1:], trim)
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width].contiguous()


def _left(size: Sequence[int], trim: int) -> tuple[int, int]:
    height, width = (side - 2 * max(min(trim, (side - 1) // 2), 0) for side in size)
    return height, width


def random_crop(
    photo: Tensor, depth: Tensor, size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random crop of ``size`` (height, width), mirrored half of the time; a photo too small is repeated by reflection
    first."""
    both, (height, width) = torch.cat([photo, depth]), size
    for axis, side in ((1, height), (2, width)):
        while both.shape[axis] < side:
            both = torch.cat([both, both.flip(axis)], dim=axis)
    top, left, mirror = (
        int(torch.randint(n, (), generator=generator))
        for n in (both.shape[1] - height + 1, both.shape[2] - width + 1, 2)
    )
    both = both[:, top : top + height, left : left + width]
    both = both.flip(2) if mirror else both
    return both[:3], both[3:]
