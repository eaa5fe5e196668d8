"""Stage 3: the restorer is rewarded for the fall in severity that the frozen reasoner sees (section 3.3, Algorithm 1)."""

from pathlib import Path

import torch
from torch import Tensor

from rnr import grpo
from rnr.data.batch import DegradedBatch
from rnr.diagnosis import KINDS, Diagnosis, ParseFailure
from rnr.diagnosis.examination import Examination
from rnr.metrics.judge import look
from rnr.metrics.restoration import as_saved
from rnr.models.interfaces import Reasoner, TrainableRestorer
from rnr.models.reference import adapted_layers, without_adapters
from rnr.models.reward import Reward, Rewards
from rnr.stages.aims import Aim, Clean, OwnFlow, Policy
from rnr.stages.conditioning import Conditioning
from rnr.stages.frozen import Frozen
from rnr.stages.optimizer import Schedule
from rnr.stages.spread import ByDiagnosis, Given, likely
from rnr.stages.stage import Stage

WATCHED = ("reward", "haze", "sharpness", "noise")
"""What is measured of restored photos beside their fidelity: the reward, and a judge that nothing is trained on."""


class RestorerGRPO(Stage):
    """Group relative policy optimisation of a restorer.

    Args:
        restorer: the policy to train, started from stage 2.
        reasoner: the frozen reasoner: it writes the diagnoses and, by its severities, the rewards.
        loss: on energies and advantages; ``rnr.grpo.Algorithm1`` is the paper's to the letter, ``Anchored`` keeps it
            bounded, ``PolicyGradient`` goes with the aims ``Own`` and ``OwnFlow``.
        aim: what energies measure the distance to; ``rnr.stages.aims.Clean`` is the paper's.
        reward: the fall in severity, and the weight of the cycle beside it.
        kl_weight: of the mean squared distance to what the restorer predicts with its adapter switched off.
        group: N, the candidates a photo.
        sampled: they differ by diagnoses drawn from how sure the reasoner is, not by the restorer's own rollout (see
            :mod:`rnr.stages.spread`).
        floor: groups whose rewards have a standard deviation below this, in points of severity, are skipped.
        conditioning: only its ``fields`` count here; diagnoses are always the reasoner's own.
        schedule: of the optimiser.
        deal_reasoner: share the frozen reasoner out over all processes, see :mod:`rnr.stages.frozen`: less memory, more
            messages.

    Raises:
        ValueError: a group of fewer than two candidates, which has no advantage; a ``kl_weight`` below 0, or above 0 for a
            restorer without an adapter; ``sampled`` with the aim ``OwnFlow``, whose candidates have one diagnosis.
    """

    def __init__(
        self,
        restorer: TrainableRestorer,
        reasoner: Reasoner,
        loss: grpo.PolicyLoss,
        aim: Aim = Clean(),  # noqa: B008  (frozen)
        reward: Reward = Reward(),  # noqa: B008  (frozen)
        kl_weight: float = 0.0,
        group: int = 4,
        sampled: bool = False,
        floor: float = 0.5,
        conditioning: Conditioning = Conditioning(),  # noqa: B008  (frozen)
        schedule: Schedule = Schedule(learning_rate=1e-5),  # noqa: B008  (frozen)
        deal_reasoner: bool = False,
    ) -> None:
        super().__init__(schedule)
        if group < 2:
            raise ValueError(f"group must be at least 2, got {group}: advantages compare candidates with each other")
        if not kl_weight >= 0:
            raise ValueError(f"kl_weight must be at least 0, got {kl_weight}")
        if kl_weight and not adapted_layers(restorer):
            raise ValueError(f"kl_weight is {kl_weight:g}, but {type(restorer).__name__} has no adapter: give it a lora_rank")
        if sampled and isinstance(aim, OwnFlow):
            raise ValueError("sampled diagnoses do not go with the aim OwnFlow: a photo's velocity has one diagnosis")
        self.restorer = restorer
        self.judge = Frozen(reasoner, deal_reasoner)
        self.loss, self.aim, self.reward = loss, aim, reward
        self.kl_weight, self.group, self.sampled, self.floor = kl_weight, group, sampled, floor
        self.conditioning = conditioning

    @property
    def reasoner(self) -> Reasoner:
        """The frozen reasoner, on this stage's device."""
        return self.judge.on(self.device)

    def training_step(self, batch: DegradedBatch, batch_idx: int) -> Tensor:
        with self.judging():
            examined, before = self.reasoner.assess(batch.degraded)
        given = self.conditioning.keep(diagnoses(examined))
        policy = self._policy(batch.seed, examined)
        images, prediction = self.aim.draw(policy, batch, given, self.group)
        self._demand(bool(images.isfinite().all()), "a candidate is not finite")
        with self.judging():
            rewards = self.reward(self.reasoner, images, batch.degraded, given, before)
        advantages = grpo.advantages(rewards.total, self.floor)
        energies = prediction.energies
        loss = self.loss(energies, advantages)
        if self.kl_weight:
            kl = grpo.distances(prediction.value, self._reference(policy, batch, given, images)).mean()
            self.log("train/kl", kl, batch_size=len(given))
            loss = loss + self.kl_weight * kl
        self._log_group(images, energies, rewards, advantages)
        return self.log_loss(loss, len(given))

    def _policy(self, seeds: list[int], examined: list[Examination | ParseFailure]) -> Policy:
        if not self.sampled:
            return self.restorer
        sure = [each if isinstance(each, Examination) else None for each in examined]
        groups = [likely(each, self.group, seed) for each, seed in zip(sure, seeds, strict=True)]
        return ByDiagnosis(self.restorer, [self.conditioning.keep(group) for group in groups])

    @torch.no_grad()
    def _reference(self, policy: Policy, batch: DegradedBatch, given: Given, images: Tensor) -> Tensor:
        with without_adapters(self.restorer):
            return self.aim.predict(policy, batch, given, images).value

    def _log_group(self, images: Tensor, energies: Tensor, rewards: Rewards, advantages: grpo.Advantages) -> None:
        count = len(images)
        self.log("train/energy", energies.mean(), prog_bar=True, batch_size=count)
        self.log("train/groups_used", advantages.used.float().mean(), batch_size=count)
        skipped = (~advantages.used).float().sum()  # of an epoch, by all processes
        self.log("train/groups_skipped", skipped, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True)
        seen = look(as_saved(images).flatten(0, 1))
        for name in WATCHED[1:]:
            self.log(f"train/{name}", getattr(seen, name).mean(), batch_size=count)
        scored = rewards.total.isfinite().all(dim=1)
        if scored.any():
            total = rewards.total[scored]
            self.log("train/reward", total.mean(), prog_bar=True, batch_size=count)
            self.log("train/reward_spread", total.std(dim=1, correction=0).mean(), batch_size=count)
            self.log("train/reward_severity", rewards.severity[scored].mean(), batch_size=count)
            left = rewards.severities[scored].flatten(0, 1).mean(dim=0)
            self.log_dict({f"train/left_{kind}": each for kind, each in zip(KINDS, left, strict=True)}, batch_size=count)
            if rewards.cycle is not None:
                self.log("train/reward_cycle", rewards.cycle[scored].mean(), batch_size=count)

    def validation_step(self, batch: DegradedBatch, batch_idx: int) -> None:
        answers, restored = self.evaluate(batch)
        if batch_idx == 0:
            self.show(batch, answers, restored)
            self._show_group(batch)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        figures = {f"val/{name}": self.evaluation.mean(name) for name in WATCHED}
        self.log_dict({name: value for name, value in figures.items() if value == value}, sync_dist=True)

    def evaluate(self, batch: DegradedBatch) -> tuple[list[Diagnosis | ParseFailure], Tensor]:
        """As in every stage, and beside it what is :data:`WATCHED`."""
        answers, restored = super().evaluate(batch)
        saved = as_saved(restored)
        before = self.reasoner.severities(batch.degraded)
        given = self.conditioning.keep(answers)
        rewards = self.reward(self.reasoner, saved[:, None], batch.degraded, given, before)
        seen = look(saved)
        columns = (rewards.total[:, 0], seen.haze, seen.sharpness, seen.noise)
        lists = [column.tolist() for column in columns]
        for row, *values in zip(self.evaluation.photos[-len(batch.names) :], *lists, strict=True):
            row |= dict(zip(WATCHED, values, strict=True))
        return answers, restored

    def _show_group(self, batch: DegradedBatch) -> None:
        """The group of the first validation photo, always the same, to TensorBoard if that is the logger."""
        board = getattr(self.logger, "experiment", None)
        if hasattr(board, "add_image"):
            image, seed = batch.degraded[:1], batch.seed[:1]
            examined = self.reasoner.examine(image)
            given = self.conditioning.keep(diagnoses(examined))
            images = self._policy(seed, examined).rollout(image, given, seed, self.group)[0]
            board.add_image("val/group", torch.cat(list(as_saved(images)), dim=2), self.global_step)

    def repair(
        self, images: Tensor, seeds: list[int], truth: list[Diagnosis] | None
    ) -> tuple[list[Diagnosis | ParseFailure], Tensor]:
        """As in stage 2: by the reasoner's own diagnoses; what does not parse is restored without one."""
        answers = self.reasoner.diagnose(images)
        return answers, self.restorer.restore(images, self.conditioning.keep(answers), seeds)

    def save_weights(self, directory: Path) -> None:
        self.restorer.save(directory)


def diagnoses(examined: list[Examination | ParseFailure]) -> list[Diagnosis | ParseFailure]:
    """What is said, without how sure it is beyond each finding's chance."""
    return [each.diagnosis if isinstance(each, Examination) else each for each in examined]
