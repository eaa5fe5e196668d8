"""Validation photos are the same, to the bit, on one process and on two that share them."""

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from rnr.data.datamodule import DegradationDataModule, Sources
from rnr.degradation import Degrader, FogPrior, NoisePrior, RainPrior, ShakePrior

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

COUNT = 11  # of two sizes; with two a batch the processes get unequal shares and the last batches are short


class Keeper(LightningModule):
    """Writes each validation photo that its process is given, as it was degraded, to ``<folder>/<rank>-<name>.pt``."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(()))  # DDP wants something to train

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def validation_step(self, batch, index):
        for row in zip(batch.clean, batch.degraded, batch.truth, batch.seed, batch.names, strict=True):
            *kept, name = row
            torch.save(kept, f"{self.folder}/{self.global_rank}-{name.replace('/', '-')}.pt")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(COUNT):
        side = 40 if i % 3 else 56
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, 48), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")
    return str(folder)


def validated(photos, folder, devices):
    """What each photo was given to, by (rank, name)."""
    folder.mkdir()
    always = Degrader(FogPrior(1), ShakePrior(1), RainPrior(1, density=(0.01, 0.02)), NoisePrior(1, b=(5, 20)))
    module = DegradationDataModule(
        Sources(train=[photos], val=[photos]), eval_batch_size=2, eval_degrader=always, eval_seed=3
    )
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy="ddp_spawn" if devices > 1 else "auto",
        use_distributed_sampler=False, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.validate(Keeper(str(folder)), datamodule=module, verbose=False)
    found = {}
    for path in folder.glob("*.pt"):
        rank, _, name = path.stem.partition("-")
        found[int(rank), name] = torch.load(path, weights_only=False)
    return found


def test_two_processes_see_the_validation_photos_that_one_sees(photos, tmp_path):
    one = {name: kept for (_, name), kept in validated(photos, tmp_path / "one", 1).items()}
    two = validated(photos, tmp_path / "two", 2)
    assert len(one) == COUNT
    assert {rank for rank, _ in two} == {0, 1}
    assert sorted(name for _, name in two) == sorted(one)  # each photo on one process only
    for (_, name), (clean, degraded, truth, seed) in two.items():
        expected_clean, expected, expected_truth, expected_seed = one[name]
        assert clean.equal(expected_clean)
        assert degraded.equal(expected)
        assert not degraded.equal(clean)
        assert (truth, seed) == (expected_truth, expected_seed)
