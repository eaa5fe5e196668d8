"""Which diagnosis a restorer is given: the truth, the reasoner's own, a blurred truth or none, and which of its fields."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rnr.data.batch import DegradedBatch
from rnr.diagnosis import FIELDS, KINDS, Diagnosis, ParseFailure
from rnr.diagnosis.edit import jitter
from rnr.models.interfaces import Reasoner


@dataclass(frozen=True)
class Conditioning:
    """How diagnoses are mixed in training; validation and test always take the reasoner's, or the truth without one.

    fields: what of a diagnosis the restorer ever sees (Table 3's rows are choices of these). Presence comes with its
        chance. None of them: it is given no diagnosis at all, a blind restorer.
    predicted: share of training batches with the reasoner's own diagnoses; the others have the truth.
    none: of the photos that are given the truth, share from which it is withheld.
    drop: of these, share of which one present degradation is called absent.
    withhold: of all photos, share that loses its severities, share that loses its parameters, and its scene, each by itself:
        a restorer that has learned to do without takes a diagnosis that a person wrote in part.
    jitter: relative error put on the truth's numbers, so that the restorer does not trust them beyond reason.
    doubt: of the reasoner's own diagnoses, standard deviation of the noise put on the log-odds of each degradation. It
        knows the photos it was trained on, and is right of them more often than it will be of others; a restorer that
        saw no other mistakes would trust it too much.
    """

    fields: Sequence[str] = FIELDS
    predicted: float = 0.0
    none: float = 0.05
    drop: float = 0.05
    withhold: float = 0.0
    jitter: float = 0.1
    doubt: float = 0.0

    def __post_init__(self) -> None:
        Diagnosis().keep(self.fields or ["presence"])  # raises for fields that do not exist
        for name in ("predicted", "none", "drop", "withhold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"conditioning.{name} must lie within [0, 1], got {getattr(self, name):g}")
        for name in ("jitter", "doubt"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"conditioning.{name} must be a finite number from 0 on, got {getattr(self, name):g}")

    def train(
        self, batch: DegradedBatch, reasoner: Reasoner | None, generator: torch.Generator
    ) -> list[Diagnosis | None]:
        """What the restorer is given of a training batch. An answer that does not parse counts as no diagnosis."""
        if not self.fields:
            return [None] * len(batch.truth)
        predicted = torch.rand((), generator=generator) < self.predicted
        if predicted and reasoner is not None:
            shape = (len(batch.degraded), len(KINDS))
            noise = self.doubt * torch.randn(shape, generator=generator) if self.doubt else None
            return self._without(self.keep(reasoner.diagnose(batch.degraded, self.fields, lean=noise)), generator)
        given: list[Diagnosis | None] = []
        for truth in batch.truth:
            none, drop, which = torch.rand(3, generator=generator).tolist()
            if none < self.none:
                given.append(None)
                continue
            present = [kind for kind in KINDS if truth[kind] is not None]
            if present and drop < self.drop:
                truth = dataclasses.replace(truth, **{present[int(which * len(present))]: None})
            given.append(jitter(truth, self.jitter, generator))
        return self._without(self.keep(given), generator)

    def _without(self, given: list[Diagnosis | None], generator: torch.Generator) -> list[Diagnosis | None]:
        """``given``, of some the one or other field withheld."""
        if not self.withhold:
            return given
        kept = torch.rand(len(given), len(FIELDS), generator=generator) >= self.withhold
        kept[:, FIELDS.index("presence")] = True
        return [
            diagnosis and diagnosis.keep([field for field, stays in zip(FIELDS, row, strict=True) if stays])
            for diagnosis, row in zip(given, kept.tolist(), strict=True)
        ]

    def keep(self, answers: Sequence[Diagnosis | ParseFailure | None]) -> list[Diagnosis | None]:
        """``answers`` cut down to ``fields``; what did not parse is no diagnosis."""
        if not self.fields:
            return [None] * len(answers)
        return [answer.keep(self.fields) if isinstance(answer, Diagnosis) else None for answer in answers]
