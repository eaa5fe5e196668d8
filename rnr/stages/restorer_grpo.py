"""Stage 3: the restorer is rewarded for the fall in severity that the frozen reasoner sees (section 3.3, Algorithm 1)."""

from pathlib import Path

import torch
from torch import Tensor

from rnr import grpo
from rnr.data.batch import DegradedBatch
from rnr.diagnosis import Diagnosis, ParseFailure
from rnr.metrics.restoration import as_saved
from rnr.models.interfaces import Reasoner, TrainableRestorer
from rnr.stages.conditioning import Conditioning
from rnr.stages.optimizer import Schedule
from rnr.stages.stage import Frozen, Stage


class RestorerGRPO(Stage):
    """Group relative policy optimisation of a restorer.

    Args:
        restorer: the policy to train, started from stage 2.
        reasoner: the frozen reasoner: it writes the diagnoses and, by its severities, the rewards.
        loss: on energies and advantages; ``rnr.grpo.Algorithm1`` is the paper's to the letter, ``Anchored`` keeps it
            bounded.
        group: N, the candidates a photo.
        floor: groups whose rewards have a standard deviation below this, in points of severity, are skipped.
        conditioning: only its ``fields`` count here; diagnoses are always the reasoner's own.
        schedule: of the optimiser.

    Raises:
        ValueError: a group of fewer than two candidates, which has no advantage.
    """

    def __init__(
        self,
        restorer: TrainableRestorer,
        reasoner: Reasoner,
        loss: grpo.PolicyLoss,
        group: int = 4,
        floor: float = 0.5,
        conditioning: Conditioning = Conditioning(),  # noqa: B008  (frozen)
        schedule: Schedule = Schedule(learning_rate=1e-5),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__(schedule)
        if group < 2:
            raise ValueError(f"group must be at least 2, got {group}: advantages compare candidates with each other")
        self.restorer = restorer
        self.judge = Frozen(reasoner)
        self.loss = loss
        self.group, self.floor = group, floor
        self.conditioning = conditioning

    @property
    def reasoner(self) -> Reasoner:
        """The frozen reasoner, on this stage's device."""
        return self.judge.on(self.device)

    def training_step(self, batch: DegradedBatch, batch_idx: int) -> Tensor:
        answers = self.reasoner.diagnose(batch.degraded)
        before = severities(answers).to(self.device)
        given = self.conditioning.keep(answers)
        candidates = self.restorer.rollout(batch.degraded, given, batch.seed, self.group)
        seen = as_saved(candidates.detach()).flatten(0, 1)
        after = self.reasoner.severities(seen).view(len(given), self.group, -1)
        rewards = grpo.rewards(before, after)
        advantages = grpo.advantages(rewards, self.floor)
        energies = grpo.energies(candidates, batch.clean)
        count = len(given)
        self.log("train/energy", energies.mean(), prog_bar=True, batch_size=count)
        self.log("train/groups_used", advantages.used.float().mean(), batch_size=count)
        scored = rewards[rewards.isfinite().all(dim=1)]
        if len(scored):
            self.log("train/reward", scored.mean(), prog_bar=True, batch_size=count)
            self.log("train/reward_spread", scored.std(dim=1, correction=0).mean(), batch_size=count)
        return self.log_loss(self.loss(energies, advantages), count)

    def repair(
        self, images: Tensor, seeds: list[int], truth: list[Diagnosis] | None
    ) -> tuple[list[Diagnosis | ParseFailure], Tensor]:
        """As in stage 2: by the reasoner's own diagnoses; what does not parse is restored without one."""
        answers = self.reasoner.diagnose(images)
        return answers, self.restorer.restore(images, self.conditioning.keep(answers), seeds)

    def save_weights(self, directory: Path) -> None:
        self.restorer.save(directory)


def severities(answers: list[Diagnosis | ParseFailure]) -> Tensor:
    """(B, 4): each answer's severities, 0 where absent, NaN where it did not parse: such a group is skipped."""
    return torch.tensor([[float("nan")] * 4 if isinstance(a, ParseFailure) else a.severities for a in answers])
