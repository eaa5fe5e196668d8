"""A clean photo degraded several times over, whole, as an evaluation would: for commands that take one photo after the
other and need no trainer."""

import torch

from rnr.data.batch import CleanBatch, DegradedBatch
from rnr.data.batches import seed_of
from rnr.data.datamodule import degrade
from rnr.data.depth import depth_of
from rnr.data.photos import Photo, open_photo
from rnr.degradation import Degrader


def draws_of(
    photo: Photo, degrader: Degrader, count: int, seed: int, device: torch.device, first: int = 0
) -> DegradedBatch:
    """``count`` degradations of ``photo`` with their truth, from number ``first`` on; the same ones that ``eval_draws`` and
    ``eval_seed`` of the DataModule give. Raises ``PhotoError`` if it cannot be opened."""
    pixels = torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1)
    image, depth = (part.to(device).expand(count, -1, -1, -1) for part in (pixels, depth_of(photo, pixels)))
    seeds = torch.tensor([seed_of(seed, draw, photo.name) for draw in range(first, first + count)])
    batch = CleanBatch(image, depth, torch.zeros(count, dtype=torch.int64), seeds)
    return degrade(image.float() / 255, batch, degrader, [photo.scene] * count, [photo.name] * count)
