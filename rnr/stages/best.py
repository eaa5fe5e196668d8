"""Weights, or their moving average, judged by validation: the best are kept, and the run stops where none get better."""

import json
import math
import uuid
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from rnr.stages.callbacks import SaveWeights, weights_of
from rnr.stages.stage import Stage

FILE = "validation.json"


class BestWeights(SaveWeights):
    """Takes the place of :class:`SaveWeights` where more training may do harm, as under a reward.

    ``weights`` are at any time those of the best validation so far, whatever ends the run: its last step, a loss that is no
    number, a kill. With ``trainer.num_sanity_val_steps: -1`` the start is judged too, and is what is left where no step was
    an improvement. Without any validation the last ones are written at the end. Steps after the last validation do not
    count: let ``trainer.val_check_interval`` divide ``max_steps``. Nor does a validation that was cut off before it ended,
    when the run goes on. One that ended and was the best stands beside the weights (``validation.json``), and counts even
    where the run goes on from an earlier checkpoint. Where a run goes on in another folder, or by another figure, it begins
    anew to look for the best.

    Args:
        figure: of validation, ``psnr`` or ``ssim``, or another column of the photos; more is better.
        patience: the run stops after so many validations in a row without a better one.
        fall: or where the figure is so far below the best one: it diverges.
    """

    def __init__(self, figure: str = "psnr", patience: int = 4, fall: float = 1.0) -> None:
        if patience < 1 or not fall > 0:
            raise ValueError(f"patience must be at least 1 and fall above 0, got {patience} and {fall}")
        super().__init__()
        self.figure, self.patience, self.fall = figure, patience, fall
        self.best, self.best_step, self.waited = -math.inf, 0, 0
        self.run = uuid.uuid4().hex  # and all that goes on from its checkpoints

    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        super().on_train_start(trainer, pl_module)
        self.run = trainer.strategy.broadcast(self.run)  # ZeRO-3 gives each process back what it had itself
        if trainer.ckpt_path is None:
            return
        written = trainer.strategy.broadcast(_read(weights_of(trainer) / FILE))  # others may not see the folder
        if (written.get("run"), written.get("figure")) != (self.run, self.figure):  # they are not here, or of another figure
            self.best, self.best_step, self.waited = -math.inf, 0, 0
        elif self.best_step < written["step"] <= trainer.global_step:
            self.best, self.best_step, self.waited = written["best"], written["step"], 0

    def on_validation_end(self, trainer: Trainer, pl_module: Stage) -> None:
        # Only now is a sharded model dealt out again, and its evaluation that of all processes.
        if trainer.state.fn == TrainerFn.FITTING:
            self._judge(trainer, pl_module, pl_module.evaluation.mean(self.figure))

    def _judge(self, trainer: Trainer, stage: Stage, value: float) -> None:
        if trainer.sanity_checking and trainer.num_sanity_val_steps != math.inf:
            return  # of a few batches, which does not compare with one of all
        if value > self.best:
            self.best, self.best_step, self.waited = value, trainer.global_step, 0
            self._save(trainer, stage)
            return
        self.waited += 1
        judged = self.best > -math.inf
        fallen = judged and not value > self.best - self.fall  # NaN has fallen
        if (fallen or self.waited >= self.patience) and not trainer.sanity_checking:
            why = f"val/{self.figure} fell to {value:.4g}" if fallen else f"{self.waited} validations brought nothing better"
            what = f"the best was {self.best:.4g}, after step {self.best_step}; its weights" if judged else "the last weights"
            rank_zero_info(f"{why}: {what} are kept")
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: Stage) -> None:
        if self.best == -math.inf:
            self._save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Stage, exception: BaseException) -> None:
        if self.best == -math.inf:
            super().on_exception(trainer, pl_module, exception)

    def _write(self, stage: Stage, folder: Path) -> None:
        super()._write(stage, folder)
        if self.best > -math.inf:
            written = {"run": self.run, "figure": self.figure, "best": self.best, "step": self.best_step}
            (folder / FILE).write_text(json.dumps(written) + "\n", encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited, "run": self.run}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step, self.waited = (state_dict[name] for name in ("best", "best_step", "waited"))
        self.run = state_dict.get("run", self.run)


def _read(file: Path) -> dict[str, Any]:
    """What :meth:`BestWeights._write` left, {} if nothing did."""
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        texts = {name: str(written[name]) for name in ("run", "figure")}
        return {**texts, "best": float(written["best"]), "step": int(written["step"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class BestAverage(EMAWeightAveraging, BestWeights):
    """:class:`BestWeights` of a moving average, which is what is validated. It is a second copy of the whole model, and so
    for models that are not sharded.

    Args:
        decay: of the average, a step.
        figure, patience, fall: as there.
    """

    def __init__(self, decay: float = 0.98, figure: str = "psnr", patience: int = 4, fall: float = 1.0) -> None:
        EMAWeightAveraging.__init__(self, decay=decay)
        BestWeights.__init__(self, figure, patience, fall)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Stage) -> None:
        if self._average_model is not None:  # it is in the model's place right now, and not any more when validation ends
            self._judge(trainer, pl_module, pl_module.evaluation.gathered().mean(self.figure))
        EMAWeightAveraging.on_validation_epoch_end(self, trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Stage) -> None:
        pass

    def on_train_end(self, trainer: Trainer, pl_module: Stage) -> None:
        EMAWeightAveraging.on_train_end(self, trainer, pl_module)
        BestWeights.on_train_end(self, trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Stage, exception: BaseException) -> None:
        BestWeights.on_exception(self, trainer, pl_module, exception)

    def state_dict(self) -> dict[str, Any]:
        return EMAWeightAveraging.state_dict(self) | BestWeights.state_dict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        EMAWeightAveraging.load_state_dict(self, state_dict)
        BestWeights.load_state_dict(self, state_dict)
