"""Stage 2: the restorer learns to repair photos under a diagnosis (section 3.2)."""

from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from rnr.data.batch import DegradedBatch
from rnr.diagnosis import Diagnosis, ParseFailure
from rnr.models.interfaces import Reasoner, Restorer, TrainableRestorer
from rnr.stages.conditioning import Conditioning
from rnr.stages.frozen import Frozen
from rnr.stages.optimizer import Schedule
from rnr.stages.stage import Stage


class RestorerSFT(Stage):
    """Supervised fine-tuning of a restorer: flow matching for Qwen-Image-Edit, regression for the compact one.

    Args:
        restorer: the model to train; one that is no :class:`TrainableRestorer` can only be evaluated.
        reasoner: a frozen reasoner, whose own diagnoses validation and test go by; null: they go by the truth.
        conditioning: which diagnoses training goes by.
        schedule: of the optimiser.
        seed: of what training draws (mix of diagnoses, noise of the flow).
        deal_reasoner: share the frozen reasoner out over all processes, see :mod:`rnr.stages.frozen`: less memory, more
            messages.

    Raises:
        ValueError: a share of predicted diagnoses without a reasoner.
    """

    def __init__(
        self,
        restorer: Restorer,
        reasoner: Reasoner | None,
        conditioning: Conditioning = Conditioning(),  # noqa: B008  (frozen)
        schedule: Schedule = Schedule(),  # noqa: B008  (frozen)
        seed: int = 0,
        deal_reasoner: bool = False,
    ) -> None:
        super().__init__(schedule)
        if conditioning.predicted and reasoner is None:
            raise ValueError(f"conditioning.predicted is {conditioning.predicted:g}, but there is no reasoner to ask")
        self.restorer = restorer
        self.judge = None if reasoner is None else Frozen(reasoner, deal_reasoner)
        self.conditioning = conditioning
        self.seed = seed

    def setup(self, stage: str) -> None:
        """``MisconfigurationException`` for a fit of what cannot be trained."""
        if stage == "fit" and not isinstance(self.restorer, TrainableRestorer):
            raise MisconfigurationException(f"{type(self.restorer).__name__} can be evaluated, but has nothing to train")

    @property
    def reasoner(self) -> Reasoner | None:
        """The frozen reasoner, on this stage's device."""
        return self.judge and self.judge.on(self.device)

    def generator(self, batch_idx: int) -> torch.Generator:
        """For this batch: a resumed run draws what an undisturbed one would."""
        together = self.trainer.accumulate_grad_batches  # batches that make up a step
        place = self.global_step * together + batch_idx % together
        return torch.Generator().manual_seed(hash((self.seed, self.global_rank, place)) % 2**62)

    def training_step(self, batch: DegradedBatch, batch_idx: int) -> Tensor:
        generator = self.generator(batch_idx)
        with self.judging():
            given = self.conditioning.train(batch, self.reasoner, generator)
        loss = self.restorer.loss(batch.degraded, batch.clean, given, generator)
        return self.log_loss(loss, len(batch.truth))

    def repair(
        self, images: Tensor, seeds: list[int], truth: list[Diagnosis] | None
    ) -> tuple[list[Diagnosis | ParseFailure] | None, Tensor]:
        """By the reasoner's diagnoses, or by the truth without a reasoner. What does not parse is restored without a
        diagnosis, and counted as such."""
        answers = self.reasoner.diagnose(images) if self.reasoner else None
        given = self.conditioning.keep(answers or truth or [None] * len(images))
        return answers, self.restorer.restore(images, given, seeds)

    def save_weights(self, directory: Path) -> None:
        self.restorer.save(directory)
