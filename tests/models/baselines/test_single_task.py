import pytest
import torch

from rnr.diagnosis.prompt import EXAMPLE
from rnr.metrics.restoration import psnr
from rnr.models.baselines.single_task import SingleTask
from rnr.models.unet import UNetSize

TINY = UNetSize(widths=(8, 8), blocks=(1, 1), condition=4)


@pytest.fixture
def living():
    """A network whose head is no longer zero."""
    torch.manual_seed(0)
    restorer = SingleTask(size=TINY)
    torch.nn.init.normal_(restorer.network.head.weight, std=0.02)
    return restorer


def test_a_new_one_changes_nothing(photo):
    torch.testing.assert_close(SingleTask(size=TINY).restore(photo[None], [None], [0])[0], photo)


def noisy(photos, generator):
    return (photos + 0.15 * torch.randn(photos.shape, generator=generator)).clamp(0, 1)


def test_it_learns_its_degradation(photo):
    torch.manual_seed(0)
    restorer, generator = SingleTask(size=TINY), torch.Generator().manual_seed(0)
    clean = torch.stack([photo, photo.flip(1), photo.flip(2), photo.transpose(1, 2)])
    optimizer = torch.optim.AdamW(restorer.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        restorer.loss(noisy(clean, generator), clean, [None] * 4, generator).backward()
        optimizer.step()
    degraded = noisy(clean, torch.Generator().manual_seed(1))
    restored = restorer.restore(degraded, [None] * 4, [0] * 4)
    assert (psnr(restored, clean) > psnr(degraded, clean) + 2).all()


def test_it_comes_back_from_its_folder(living, tmp_path, photo):
    living.save(tmp_path)
    again = SingleTask(checkpoint=str(tmp_path))
    assert again.size == TINY
    assert torch.equal(again.restore(photo[None], [None], [0]), living.restore(photo[None], [EXAMPLE], [7]))


def test_another_models_folder_is_refused():
    with pytest.raises(ValueError, match="not of a single-task restorer"):
        SingleTask(checkpoint="shipped/reasoner")


def test_tiles_leave_no_seams(living, photo):
    whole = living.restore(photo[None], [None], [0])
    living.tile, living.overlap = 40, 24
    torch.testing.assert_close(living.restore(photo[None], [None], [0]), whole, rtol=0, atol=0.02)


def test_candidates(living, photo):
    photos = torch.stack([photo, photo.flip(0)])
    candidates = living.rollout(photos, [None, None], [1, 2], group=3)
    assert candidates.shape == (2, 3, *photo.shape) and candidates.requires_grad
    torch.testing.assert_close(candidates[:, 0].clamp(0, 1), living.restore(photos, [None, None], [1, 2]))
    assert min((candidates[:, a] - candidates[:, b]).abs().max() for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-3
    assert torch.equal(candidates, living.rollout(photos, [None, None], [1, 2], group=3))
