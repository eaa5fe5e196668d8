"""Callbacks that all stages use."""

import shutil
from pathlib import Path

from lightning import Callback, Trainer

from rnr.stages.stage import Stage


class SaveWeights(Callback):
    """Writes the trained model as safetensors to ``<default_root_dir>/weights`` when training ends, also when it is
    interrupted. The folder appears whole or not at all: it is written beside its place and then moved there."""

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
