"""What a model thinks of a number, from the digits it weighed: a distribution over values, not the one greedy reading.

The probabilities of digits form a tree. Greedy decoding follows one branch of it; one level of its side branches is known
too (:attr:`rnr.models.decoding.Decision.rivals`). Each leaf of what is known is a value, the middle of the numbers that
begin so, with the product of the probabilities that lead to it.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.types import FINDINGS, KINDS, Quantity, quantities
from rnr.models.decoding import Answer, Decision
from rnr.models.form import Form, next_characters


@dataclass(frozen=True)
class Estimate:
    """values, probabilities: (n,), rising in value. period: after which values return to 0, or None."""

    values: Tensor
    probabilities: Tensor
    period: float | None = None

    @property
    def mean(self) -> Tensor:
        """The expectation, a scalar through which gradients flow; of an angle the direction of the mean vector."""
        if self.period is None:
            return (self.values * self.probabilities).sum()
        turn = 2 * math.pi * self.values / self.period
        sine, cosine = ((wave * self.probabilities).sum() for wave in (turn.sin(), turn.cos()))
        return torch.atan2(sine, cosine) / (2 * math.pi) * self.period % self.period

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """The values between which the middle ``share`` of the probability lies. Of an angle, the arc that begins half a
        period before the mean is laid out first: the lower end may be below 0, the upper above the period."""
        values, probabilities = self.values, self.probabilities
        if self.period is not None:
            start = float(self.mean) - self.period / 2
            values = (values - start) % self.period + start
            order = values.argsort()
            values, probabilities = values[order], probabilities[order]
        below = probabilities.cumsum(dim=0) / probabilities.sum()
        ends = ((1 - share) / 2, (1 + share) / 2)
        return tuple(values[min(int((below < end).sum()), len(values) - 1)].item() for end in ends)


def estimate(decisions: Sequence[Decision], form: Form, spec: Quantity, stated: float, temperature: float = 1.0) -> Estimate:
    """Of one number. decisions: its own, in order. stated: the number as written, for which none may be left to take.

    temperature: of all probabilities in it; above 1 they are flattened.
    """
    values, probabilities = [], []
    reached = torch.ones(())
    for place, decision in enumerate(decisions):
        chances = (decision.log_probabilities / temperature).softmax(dim=0).cpu()
        last = place == len(decisions) - 1
        for token, chance in zip(decision.choice.allowed.tolist(), chances, strict=True):
            prefix = decision.choice.place.prefix + form.character(token)
            if token == decision.token and not last:
                continue  # what follows has decisions of its own
            if token in decision.rivals:
                following = (decision.rivals[token] / temperature).softmax(dim=0).cpu()
                for digit, share in zip(form.after(decision.choice.place, token).tolist(), following, strict=True):
                    values.append(middle(spec, prefix + form.character(digit)))
                    probabilities.append(reached * chance * share)
            else:
                values.append(middle(spec, prefix))
                probabilities.append(reached * chance)
        reached = reached * chances[decision.choice.allowed.tolist().index(decision.token)]
    if not values:
        values, probabilities = [stated], [torch.ones(())]
    order = sorted(range(len(values)), key=values.__getitem__)
    return Estimate(
        torch.tensor([values[i] for i in order]), torch.stack([probabilities[i] for i in order]), spec.period
    )


def examination(answer: Answer, written: Diagnosis, form: Form) -> Examination:
    """What ``answer``, which reads as ``written``, says of a photo when all that was weighed in it is taken into account."""
    by_place: dict[tuple[str | None, str, int], list[Decision]] = {}
    for decision in answer.decisions:
        place = decision.choice.place
        by_place.setdefault((place.kind, place.key, place.index), []).append(decision)
    yes = {kind: by_place[kind, "presence", 0][0].log_probabilities[1].exp().item() for kind in KINDS}
    findings, intervals = {}, {}
    for kind in KINDS:
        if (finding := written[kind]) is None:
            continue
        means, ranges = {}, {}
        for key, spec in quantities(FINDINGS[kind]).items():
            if (value := getattr(finding, key)) is None:
                continue
            parts = [
                estimate(by_place.get((kind, key, index), []), form, spec, stated)
                for index, stated in enumerate(value if spec.count > 1 else (value,))
            ]
            rounded = [spec.round(float(part.mean)) for part in parts]
            means[key] = tuple(rounded) if spec.count > 1 else rounded[0]
            ranges[key] = [part.interval() for part in parts]
        findings[kind] = dataclasses.replace(finding, **means)
        intervals[kind] = ranges
    return Examination(dataclasses.replace(written, **findings), yes, intervals)


def middle(spec: Quantity, prefix: str) -> float:
    """The middle of the least and the greatest number within the bounds of ``spec`` that begins with ``prefix``."""
    ends = []
    for pick in (min, max):
        text = prefix
        while (following := next_characters(spec, text)) is not None:
            text += pick(following)
        ends.append(float(text))
    return sum(ends) / 2
