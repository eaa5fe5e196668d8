"""Stages at a size that fits in tests: a few thousand parameters, the photos that scikit-image ships."""

from functools import partial
from pathlib import Path

from lightning import Trainer, seed_everything

from rnr.data.datamodule import DegradationDataModule
from rnr.diagnosis import Diagnosis, Fog, Noise
from rnr.diagnosis.examination import Examination
from rnr.grpo import Anchored
from rnr.models.compact import CompactRestorer, CompactSize
from rnr.models.interfaces import Reasoner
from rnr.models.qwen3vl import Qwen3VLReasoner, SmallReasoner
from rnr.models.unet import UNetSize
from rnr.models.views import Views
from rnr.stages import ReasonerSFT, RestorerGRPO, RestorerSFT
from rnr.stages.callbacks import KeepCheckpoint, SaveWeights
from rnr.stages.optimizer import Schedule

FOUND = Diagnosis(Fog(50, (0.8, 0.8, 0.8), 0.5), noise=Noise(20, 0.1, 5))
EXAMINED = Examination(FOUND, {"fog": 0.6, "shake": 0.3, "rain": 0.0, "noise": 1.0})
TINY = CompactSize(UNetSize((8, 8), (1, 1), 8), UNetSize((8, 8), (1, 1), 8))


def tiny_reasoner(checkpoint: str | None = None) -> Qwen3VLReasoner:
    if checkpoint:
        return Qwen3VLReasoner(checkpoint=checkpoint)
    small = SmallReasoner(vision_depth=1, vision_width=64, patch=8, text_depth=1, text_width=64, vocab_size=400)
    return Qwen3VLReasoner(small=small, views=Views(size=32, tiles=1))


def tiny_restorer(checkpoint: str | None = None) -> CompactRestorer:
    return CompactRestorer(checkpoint=checkpoint, size=TINY)


def tiny_stage(name: str, reasoner: str | None = None, restorer: str | None = None):
    seed_everything(0, verbose=False)
    schedule = Schedule(learning_rate=1e-3, warmup=1)
    if name == "reasoner_sft":
        return ReasonerSFT(tiny_reasoner(), schedule)
    if name == "restorer_sft":
        return RestorerSFT(tiny_restorer(restorer), tiny_reasoner(reasoner), schedule=schedule)
    return RestorerGRPO(
        tiny_restorer(restorer), tiny_reasoner(reasoner), Anchored(tau=0.01, weight=175), group=2, schedule=schedule
    )


def opinionated(stage: RestorerGRPO) -> RestorerGRPO:
    """Its reasoner has an opinion: answers of an untrained one do not parse, which would let every group be skipped."""
    stage.reasoner.examine = lambda images, fields=None, lean=None: [EXAMINED] * len(images)
    stage.reasoner.severities = lambda images: images.mean(dim=(2, 3)).mean(dim=1, keepdim=True).repeat(1, 4) * 100
    stage.reasoner.assess = partial(Reasoner.assess, stage.reasoner)  # by these two
    stage.floor = 1e-6
    return stage


def tiny_data(**changes) -> DegradationDataModule:
    return DegradationDataModule(**{"batch_size": 2, "crops": (32,), "visits": 4, "eval_batch_size": 2, **changes})


def tiny_trainer(folder: Path, steps: int = 3, **changes) -> Trainer:
    settings = {
        "default_root_dir": folder,
        "max_steps": steps,
        "accelerator": "cpu",
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "callbacks": [SaveWeights(), KeepCheckpoint()],
    }
    return Trainer(**{**settings, **changes})
