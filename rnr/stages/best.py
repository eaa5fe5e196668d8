"""A moving average of the weights, judged by validation: the best one is kept, and the run stops where none gets better."""

import math
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from rnr.stages.callbacks import SaveWeights
from rnr.stages.stage import Stage


class BestAverage(EMAWeightAveraging, SaveWeights):
    """Takes the place of :class:`SaveWeights` where more training may do harm, as under a reward.

    ``weights`` is at any time the average of the best validation so far, whatever ends the run: its last step, a
    loss that is no number, a kill. With ``trainer.num_sanity_val_steps: -1`` the start is judged too, and is what is left
    where no step was an improvement. Without any validation the last average is written at the end. Steps after the last
    validation do not count: let ``trainer.val_check_interval`` divide ``max_steps``. Nor does a validation that was cut off
    before it ended, when the run goes on.

    Args:
        decay: of the average, a step.
        figure: of validation, ``psnr`` or ``ssim``, or another column of the photos; more is better.
        patience: the run stops after so many validations in a row without a better one.
        fall: or where the figure is so far below the best one: it diverges.
    """

    def __init__(self, decay: float = 0.98, figure: str = "psnr", patience: int = 4, fall: float = 1.0) -> None:
        if patience < 1 or not fall > 0:
            raise ValueError(f"patience must be at least 1 and fall above 0, got {patience} and {fall}")
        super().__init__(decay=decay)
        self.figure, self.patience, self.fall = figure, patience, fall
        self.best, self.best_step, self.waited = -math.inf, 0, 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Stage) -> None:
        if self._average_model is not None:  # it is in the model's place right now
            self._judge(trainer, pl_module)
        super().on_validation_epoch_end(trainer, pl_module)

    def _judge(self, trainer: Trainer, stage: Stage) -> None:
        value = stage.evaluation.gathered().mean(self.figure)
        if value > self.best:
            self.best, self.best_step, self.waited = value, trainer.global_step, 0
            self._save(trainer, stage)
            return
        self.waited += 1
        fallen = not value > self.best - self.fall  # NaN has fallen
        if (fallen or self.waited >= self.patience) and not trainer.sanity_checking:
            why = f"val/{self.figure} fell to {value:.4g}" if fallen else f"{self.waited} validations brought nothing better"
            rank_zero_info(f"{why}: the best was {self.best:.4g}, after step {self.best_step}; its weights are kept")
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: Stage) -> None:
        EMAWeightAveraging.on_train_end(self, trainer, pl_module)
        if self.best == -math.inf:
            self._save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Stage, exception: BaseException) -> None:
        if self.best == -math.inf:
            SaveWeights.on_exception(self, trainer, pl_module, exception)

    def state_dict(self) -> dict[str, Any]:
        own = {"best": self.best, "best_step": self.best_step, "waited": self.waited}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best, self.best_step, self.waited = (state_dict[name] for name in ("best", "best_step", "waited"))
