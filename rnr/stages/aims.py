"""What the energies of a group measure the distance to: the clean photo, the photo itself, or the candidates.

    Clean      E_k = |J_k - J|^2              Algorithm 1. Needs the clean photo.
    Cycle      E_k = |degraded(J_k) - I|^2    the same with :mod:`rnr.diagnosis.cycle`, for photos without a clean one.
    Own        E_k = |M - J_k|^2              a Gaussian around what the restorer makes of the photo, M: policy gradient.
    OwnFlow    E_k = |v - (eps - J_k)|^2      flow matching on the candidate, for flow models: policy gradient too.

Squares are means over pixels (latents for ``OwnFlow``). In the first two the gradient flows through the candidates, in the
others J_k is held fixed, and only its reward counts.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from rnr import grpo
from rnr.data.batch import DegradedBatch
from rnr.diagnosis.cycle import degraded_again, shrunk
from rnr.models.interfaces import TrainableRestorer
from rnr.models.reward import depth_of_degraded
from rnr.stages.spread import ByDiagnosis, Given

Policy = TrainableRestorer | ByDiagnosis


class Prediction(NamedTuple):
    """value: what the restorer says, with gradient. target: what its energies measure the distance to. Both broadcast to
    (B, N, ...)."""

    value: Tensor
    target: Tensor

    @property
    def energies(self) -> Tensor:
        """(B, N)."""
        return grpo.distances(self.value, self.target)


class Drawn(NamedTuple):
    """images: the candidates to be judged, (B, N, 3, H, W), no gradient."""

    images: Tensor
    prediction: Prediction


class Aim(ABC):
    """See the module."""

    @abstractmethod
    def draw(self, restorer: Policy, batch: DegradedBatch, given: Given, group: int) -> Drawn:
        """N = ``group`` candidates a photo, and what the policy says of them."""

    @abstractmethod
    def predict(self, restorer: Policy, batch: DegradedBatch, given: Given, images: Tensor) -> Prediction:
        """What the restorer, in whatever state its weights are, says of candidates (B, N, 3, H, W) that were drawn."""


class _Moved(Aim):
    """Aims whose gradient flows through the candidates."""

    def draw(self, restorer: Policy, batch: DegradedBatch, given: Given, group: int) -> Drawn:
        moved = restorer.rollout(batch.degraded, given, batch.seed, group)
        return Drawn(moved.detach(), self.aimed(moved, batch, given))

    def predict(self, restorer: Policy, batch: DegradedBatch, given: Given, images: Tensor) -> Prediction:
        return self.aimed(restorer.rollout(batch.degraded, given, batch.seed, images.shape[1]), batch, given)

    @abstractmethod
    def aimed(self, moved: Tensor, batch: DegradedBatch, given: Given) -> Prediction:
        """moved: candidates (B, N, 3, H, W) with gradient."""


@dataclass(frozen=True)
class Clean(_Moved):
    def aimed(self, moved: Tensor, batch: DegradedBatch, given: Given) -> Prediction:
        return Prediction(moved, batch.clean[:, None])


@dataclass(frozen=True)
class Cycle(_Moved):
    def aimed(self, moved: Tensor, batch: DegradedBatch, given: Given) -> Prediction:
        again = degraded_again(moved, depth_of_degraded(batch.degraded), given)
        return Prediction(again, shrunk(batch.degraded)[:, None])


class _Fixed(Aim):
    """Aims that hold the candidates fixed."""

    def draw(self, restorer: Policy, batch: DegradedBatch, given: Given, group: int) -> Drawn:
        with torch.no_grad():
            images = restorer.rollout(batch.degraded, given, batch.seed, group)
        return Drawn(images, self.predict(restorer, batch, given, images))


@dataclass(frozen=True)
class Own(_Fixed):
    """M is the first candidate of the rollout, which is what ``restore`` gives (but for what a restorer leaves out while it
    trains); the others are its exploration."""

    def predict(self, restorer: Policy, batch: DegradedBatch, given: Given, images: Tensor) -> Prediction:
        return Prediction(restorer.rollout(batch.degraded, given, batch.seed, 1), images)


@runtime_checkable
class FlowRestorer(Protocol):
    """A restorer that can be asked for its velocity."""

    def velocities(
        self, degraded: Tensor, images: Tensor, diagnoses: Given, seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Predicted and true velocity towards ``images``, each (B, N, ...): at one noise level and by one noise a photo,
        drawn from its seed, the same for all of its candidates. degraded: (B, 3, H, W), images: (B, N, 3, H, W), both in
        [0, 1]."""


@dataclass(frozen=True)
class OwnFlow(_Fixed):
    """``ValueError`` for a restorer that is no :class:`FlowRestorer`."""

    def predict(self, restorer: Policy, batch: DegradedBatch, given: Given, images: Tensor) -> Prediction:
        if not isinstance(restorer, FlowRestorer):
            raise ValueError(f"{type(restorer).__name__} is no flow model: it has no velocities; take rnr.stages.aims.Own")
        return Prediction(*restorer.velocities(batch.degraded, images, given, batch.seed))
