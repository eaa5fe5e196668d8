"""Callbacks that all stages use. Both keep to the run's folder, ``trainer.default_root_dir``."""

import shutil
from datetime import timedelta
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from rnr.stages.stage import Stage


class KeepCheckpoint(ModelCheckpoint):
    """Keeps the newest state of the run as ``checkpoints/last.ckpt``, written every ``minutes`` and at the end.

    ``rnr fit --config ... --ckpt_path <run>/checkpoints/last.ckpt`` goes on from it.
    """

    def __init__(self, minutes: float = 5.0) -> None:
        super().__init__(
            save_last=True, save_top_k=0, train_time_interval=timedelta(minutes=minutes), enable_version_counter=False
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning's own would save here only if nothing had been saved before.
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)


class SaveWeights(Callback):
    """Writes the trained model as safetensors to ``weights`` when training ends, also when it is interrupted. The
    folder appears whole or not at all: it is written beside its place and then moved there."""

    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        self._save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Stage, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step:
            self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, stage: Stage) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        final = Path(trainer.default_root_dir) / "weights"
        fresh, old = final.with_name("weights.new"), final.with_name("weights.old")
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)
        stage.save_weights(fresh)
        if final.exists():
            final.rename(old)
        fresh.rename(final)
        shutil.rmtree(old, ignore_errors=True)
