"""What every model of rnr is to the rest of it: a :class:`Reasoner` or a :class:`Restorer`, at any scale.

Images are float tensors (B, 3, H, W), RGB in [0, 1]. A :class:`Diagnosis` may be cut down to some fields; ``None`` in
its place means that nothing at all is known of the photo.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rnr.diagnosis import FIELDS, Diagnosis, ParseFailure
from rnr.diagnosis.examination import Examination


class Reasoner(nn.Module, ABC):
    """Looks at photos and writes their diagnoses (section 3.1)."""

    @abstractmethod
    def examine(
        self, images: Tensor, fields: Sequence[str] = FIELDS, lean: Tensor | None = None
    ) -> list[Examination | ParseFailure]:
        """One diagnosis a photo, with how sure it is. images: (B, 3, H, W) in [0, 1]. Only ``fields`` are asked for.
        lean: (B, 4), added to the log-odds that each of ``KINDS`` is there before it is decided, and before any
        calibration. No gradient."""

    @abstractmethod
    def loss(self, images: Tensor, diagnoses: Sequence[Diagnosis]) -> Tensor:
        """Mean cross-entropy of the true diagnoses' text, over the tokens of the answer alone. A scalar."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes all that ``checkpoint`` of the class needs, weights as safetensors."""

    def diagnose(
        self, images: Tensor, fields: Sequence[str] = FIELDS, lean: Tensor | None = None
    ) -> list[Diagnosis | ParseFailure]:
        """The diagnoses of :meth:`examine` alone."""
        found = self.examine(images, fields, lean)
        return [answer.diagnosis if isinstance(answer, Examination) else answer for answer in found]

    @abstractmethod
    def severities(self, images: Tensor) -> Tensor:
        """(B, 4): the severity to be expected of each of ``KINDS``, about 0 to 100, absence as 0, over all that the reasoner
        holds possible (section 3.3): it does not leap where a finding comes or goes. A row of NaN where there is none.
        images: (B, 3, H, W) in [0, 1]. No gradient."""

    def assess(self, images: Tensor) -> tuple[list[Examination | ParseFailure], Tensor]:
        """What :meth:`examine` and :meth:`severities` say."""
        return self.examine(images), self.severities(images)


class Restorer(nn.Module, ABC):
    """Repairs photos according to their diagnoses (section 3.2)."""

    @abstractmethod
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """(B, 3, H, W) in [0, 1], at the size of ``images``, pixel on pixel. No gradient.

        images: (B, 3, H, W) in [0, 1]. seeds: one a photo; equal seeds give equal results, whatever else is in the batch.
        """


class TrainableRestorer(Restorer):
    """A restorer that the second and third stage can train."""

    @abstractmethod
    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """The loss of supervised fine-tuning, a scalar. degraded, clean: (B, 3, H, W) in [0, 1]."""

    @abstractmethod
    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """(B, N, 3, H, W): ``group`` = N candidates a photo, with gradient (Algorithm 1), not clamped.

        The N candidates of a photo are drawn from its seed and differ from each other.
        """

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes all that ``checkpoint`` of the class needs, weights as safetensors."""
