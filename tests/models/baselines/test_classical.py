"""Each filter makes a photo better that suffers from what it is for."""

import pytest
import torch
from skimage import data

from rnr.data import presets
from rnr.data.batch import CleanBatch
from rnr.data.datamodule import degrade
from rnr.metrics.restoration import psnr
from rnr.models.baselines.classical import Deblur, Dehaze, Denoise, Derain


@pytest.fixture(scope="module")
def clean():
    """(1, 3, 160, 192) at 8-bit levels."""
    return torch.from_numpy(data.astronaut()[20:180, 120:312].copy()).permute(2, 0, 1)[None] / 255


def degraded(clean, kind, seed):
    depth = torch.linspace(255, 60, clean.shape[-2]).byte().view(1, 1, -1, 1).expand(1, 1, *clean.shape[-2:])
    batch = CleanBatch((clean * 255).byte(), depth, torch.tensor([0]), torch.tensor([seed]))
    return degrade(clean, batch, presets.load(kind), [None], ["photo"]).degraded


@pytest.mark.parametrize(
    ("kind", "restorer", "gain"),
    [("noise", Denoise(), 4), ("rain", Derain(), 0.5), ("shake", Deblur(), 0.3), ("fog", Dehaze(), 4)],
)
def test_it_helps_against_what_it_is_for(kind, restorer, gain, clean):
    gains = []
    for seed in range(4):
        photo = degraded(clean, kind, seed)
        gains.append((psnr(restorer.restore(photo, [None], [0]), clean) - psnr(photo, clean)).item())
    assert sum(gains) / len(gains) > gain, gains


@pytest.mark.parametrize("restorer", [Denoise(), Derain(), Deblur(), Dehaze()])
@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 48)])
def test_every_size_is_kept_and_photos_do_not_meet(restorer, size):
    photos = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    together = restorer.restore(photos, [None, None], [0, 1])
    assert together.shape == photos.shape and together.min() >= 0 and together.max() <= 1
    torch.testing.assert_close(together[1:], restorer.restore(photos[1:], [None], [0]))


@pytest.mark.parametrize("restorer", [Denoise(), Derain(), Deblur(), Dehaze()])
def test_a_plain_photo_stays_plain(restorer):
    plain = torch.full((1, 3, 64, 64), 0.5)
    restored = restorer.restore(plain, [None], [0])
    assert restored.std() < 1e-3
