"""On a GPU photos are degraded, diagnosed and restored as on a CPU, but for rounding, and every stage trains:
``pytest -m gpu``."""

import pytest
import torch
from tiny_stages import opinionated, tiny_data, tiny_stage, tiny_trainer

from rnr.data import presets
from rnr.data.batch import CleanBatch
from rnr.data.batches import WholePhotoBatches
from rnr.data.datamodule import degrade
from rnr.data.dataset import PhotoDataset, collate
from rnr.data.jpeg import Jpeg
from rnr.data.photos import shipped_photos
from rnr.data.tone import Tone
from rnr.degradation import Degrader
from rnr.degradation.noise import NoisePrior
from rnr.degradation.rain import RainPrior
from rnr.models.compact import CompactRestorer
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.small_restorer import SmallRestorer

pytestmark = pytest.mark.gpu
SHIPPED = {"reasoner": "shipped/reasoner", "restorer": "shipped/restorer"}


@pytest.fixture(scope="module", autouse=True)
def a_gpu():
    assert torch.cuda.is_available(), "these tests are for a machine with a GPU"


def degraded_on(device, degrader, draws=4):
    """A crop of a photo that ships, degraded ``draws`` times."""
    photos = PhotoDataset(shipped_photos("test")[:1], seed=0)
    (visits,) = list(WholePhotoBatches(photos.photos, 1))
    batch = collate([photos[visits[0]]])
    clean = batch.photo[..., 40:296, 40:296].expand(draws, -1, -1, -1).to(device).float() / 255
    depth = batch.depth[..., 40:296, 40:296].expand(draws, -1, -1, -1).to(device)
    batch = CleanBatch(batch.photo, depth, batch.index.expand(draws), torch.arange(draws))
    return degrade(clean, batch, degrader, [None] * draws, ["photo"] * draws, Jpeg(share=0.5))


def test_photos_are_degraded_as_on_a_cpu():
    # Noise, and where streaks fall, are drawn on the device, by its own generator.
    dry = Degrader(noise=NoisePrior(probability=0.0), rain=RainPrior(probability=0.0))
    here, there = degraded_on("cuda", dry), degraded_on("cpu", dry)
    assert here.degraded.is_cuda
    for kind in ("fog", "shake"):
        assert any(truth[kind] is not None for truth in there.truth), kind
    assert (here.degraded.cpu() - there.degraded).abs().mean() < 1e-3
    assert_alike(here.truth, there.truth, abs=0.2)


def test_rain_and_noise_are_as_heavy_as_on_a_cpu():
    # The same drops fall elsewhere, so that one photo's severity differs by a few points: not so their mean.
    here, there = (degraded_on(device, Degrader(), draws=64).truth for device in ("cuda", "cpu"))
    for kind in ("rain", "noise"):
        pairs = [(ours[kind], theirs[kind]) for ours, theirs in zip(here, there, strict=True) if theirs[kind]]
        assert len(pairs) > 32, kind
        ours, theirs = (torch.tensor([found.severity for found in side]) for side in zip(*pairs, strict=True))
        assert (ours - theirs).mean().abs() < 0.75, kind
        assert (ours - theirs).abs().max() < 5, kind


def assert_alike(ours, theirs, abs):
    """abs: how far apart severities may be."""
    for one, other in zip(ours, theirs, strict=True):
        for kind in ("fog", "shake", "rain", "noise"):
            assert (one[kind] is None) == (other[kind] is None)
            assert one[kind] is None or one[kind].severity == pytest.approx(other[kind].severity, abs=abs)


def test_tones_are_those_of_a_cpu():
    images = (torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    toned = Tone(share=1.0).apply(images.cuda(), range(8)).cpu()
    assert (toned - Tone(share=1.0).apply(images, range(8))).abs().max() < 1.1 / 255


def test_shipped_models_say_and_restore_what_they_do_on_a_cpu():
    images = degraded_on("cpu", presets.mixture("paper")).degraded
    outcomes = {}
    for device in ("cpu", "cuda"):
        reasoner = Qwen3VLReasoner(SHIPPED["reasoner"]).to(device).eval()
        restorer = CompactRestorer(SHIPPED["restorer"]).to(device).eval()
        outcomes[device] = reasoner.diagnose(images.to(device)), reasoner.severities(images.to(device)).cpu()
        with torch.no_grad():
            outcomes[device] += (restorer.restore(images.to(device), outcomes["cpu"][0], [0] * 4).cpu(),)
    (said, scores, restored), (said_there, scores_there, restored_there) = outcomes["cpu"], outcomes["cuda"]
    assert [[d[kind] is None for kind in ("fog", "shake", "rain", "noise")] for d in said] == [
        [d[kind] is None for kind in ("fog", "shake", "rain", "noise")] for d in said_there
    ]
    assert (scores - scores_there).abs().max() < 2
    assert (restored - restored_there).square().mean() < 1e-6


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["reasoner_sft", "restorer_sft", "grpo"])
def test_every_stage_trains(name, precision, tmp_path):
    stage = tiny_stage(name)
    if name == "grpo":
        stage = opinionated(stage)
    before = {key: value.clone() for key, value in stage.state_dict().items()}
    trainer = tiny_trainer(tmp_path, accelerator="gpu", devices=1, precision=precision, limit_val_batches=1)
    trainer.fit(stage, datamodule=tiny_data())
    assert trainer.global_step == 3
    after = {key: value.cpu() for key, value in stage.state_dict().items()}
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[key]) for key, value in after.items() if value.is_floating_point())
    assert (tmp_path / "weights").is_dir()


def test_a_photo_is_edited():
    edit = QwenImageEditRestorer(small=SmallRestorer(), steps=2)
    images = degraded_on("cuda", presets.mixture("paper")).degraded[:1, :, :64, :64]
    here = edit.cuda().restore(images, [None], [0]).cpu()
    assert here.shape == (1, 3, 64, 64) and here.isfinite().all()
    torch.testing.assert_close(here, edit.cpu().restore(images.cpu(), [None], [0]), atol=0.02, rtol=0)
