"""Stage 1: the reasoner learns to write the true diagnosis (section 3.1). The loss is on the answer's tokens alone."""

from pathlib import Path

from torch import Tensor

from rnr.data.batch import DegradedBatch
from rnr.diagnosis import Diagnosis, ParseFailure
from rnr.models.interfaces import Reasoner
from rnr.stages.optimizer import Schedule
from rnr.stages.stage import Stage


class ReasonerSFT(Stage):
    """Supervised fine-tuning of a reasoner.

    Args:
        reasoner: the model to train.
        schedule: of the optimiser.
    """

    def __init__(self, reasoner: Reasoner, schedule: Schedule = Schedule()) -> None:  # noqa: B008  (frozen)
        super().__init__(schedule)
        self.reasoner = reasoner

    def training_step(self, batch: DegradedBatch, batch_idx: int) -> Tensor:
        return self.log_loss(self.reasoner.loss(batch.degraded, batch.truth), len(batch.truth))

    def repair(
        self, images: Tensor, seeds: list[int], truth: list[Diagnosis] | None
    ) -> tuple[list[Diagnosis | ParseFailure], None]:
        return self.reasoner.diagnose(images), None

    def save_weights(self, directory: Path) -> None:
        self.reasoner.save(directory)
