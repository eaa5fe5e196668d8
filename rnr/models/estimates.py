"""What a model thinks of a number, from the digits it weighed: a distribution over values, not the one greedy reading.

The probabilities of digits form a tree. Greedy decoding follows one branch of it; one level of its side branches is known
too (:attr:`rnr.models.decoding.Decision.rivals`). Each leaf of what is known is a value, the middle of the numbers that
begin so, with the product of the probabilities that lead to it.

A model trained on few photos is surer of itself than it may be. What held-out photos tell of that is its
:class:`Calibration`. It changes nothing that one look says, only how sure it is: yes stays yes, a number the expectation.
(A restorer may go by how sure a diagnosis is; repairs by it then change.)
"""

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.examination import Examination, Interval
from rnr.diagnosis.mean import mean_of
from rnr.diagnosis.types import FINDINGS, KINDS, Quantity, quantities
from rnr.diagnosis.uncertainty import Intervals, by_themselves
from rnr.metrics.calibration import LEVELS
from rnr.models.decoding import Answer, Decision
from rnr.models.form import Form, next_characters

Chance = float | Tensor
"""A number; of log-probabilities that have a gradient a scalar tensor that has it too, and so is all that is made of it."""


def _ones() -> dict[str, float]:
    return dict.fromkeys(KINDS, 1.0)


@dataclass(frozen=True)
class Calibration:
    """How sure a reasoner may be. It belongs to the weights: once these are trained further, to be fitted anew.

    presence: for each of ``KINDS`` the temperature T by which log-probabilities of its yes and no are divided (Guo et al., On
        Calibration of Modern Neural Networks, ICML 2017). 1 leaves them as they are, above 1 is less sure.
    margins: by kind and quantity, for each of ``LEVELS``, how far both ends of an interval are moved outwards, in the unit of
        the quantity (Romano et al., Conformalized Quantile Regression, NeurIPS 2019); below 0 inwards. What has none stays.
    """

    presence: dict[str, float] = field(default_factory=_ones)
    margins: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.presence, dict) or set(self.presence) != set(KINDS):
            raise ValueError(f"temperatures of presence must be given for each of {', '.join(KINDS)}, got {self.presence}")
        for kind, value in self.presence.items():
            if not (isinstance(value, (int, float)) and 0 < value < math.inf):
                raise ValueError(f"temperature of presence.{kind} must be a finite number above 0, got {value!r}")
        for kind, stated in self.margins.items():
            for key, values in stated.items():
                if kind not in KINDS or key not in quantities(FINDINGS[kind]):
                    raise ValueError(f"margins of {kind}.{key}: there is no such quantity")
                if len(values) != len(LEVELS) or not all(map(math.isfinite, values)):
                    raise ValueError(f"margins of {kind}.{key} must be {len(LEVELS)} finite numbers, got {values}")

    def margin(self, kind: str, key: str, level: float) -> float:
        """One of ``margins``, 0 where there is none."""
        return self.margins.get(kind, {}).get(key, _NO_MARGINS)[LEVELS.index(level)]


_NO_MARGINS = [0.0] * len(LEVELS)


@dataclass(frozen=True)
class Reading:
    """An answer and the diagnosis that it reads as, cut down to what was asked for."""

    answer: Answer
    written: Diagnosis


@dataclass(frozen=True)
class Number:
    """One number of an answer, the ``index``-th of its quantity. stated: as written. decisions: its own, in order; none
    where the form left no choice."""

    kind: str
    key: str
    index: int
    spec: Quantity
    stated: float
    decisions: list[Decision]


@dataclass(frozen=True)
class Estimate:
    """n values, rising, and their probabilities. period: after which values return to 0, or None."""

    values: Sequence[float]
    probabilities: Sequence[float]
    period: float | None = None

    @property
    def mean(self) -> float:
        """The expectation; of an angle the direction of the mean vector."""
        return mean_of(self.values, self.period, self.probabilities)

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """The values between which the middle ``share`` of the probability lies. Of an angle, the arc that begins half a
        period before the mean is laid out first: the lower end may be below 0, the upper above the period."""
        leaves = list(zip(self.values, self.probabilities, strict=True))
        if self.period is not None:
            start = self.mean - self.period / 2
            leaves = sorted(((value - start) % self.period + start, chance) for value, chance in leaves)
        below = list(accumulate(chance for _, chance in leaves))
        places = (bisect_left(below, end * below[-1]) for end in ((1 - share) / 2, (1 + share) / 2))
        return tuple(leaves[min(place, len(leaves) - 1)][0] for place in places)


Estimates = list[tuple[Number, Estimate]]


def estimate(decisions: Sequence[Decision], form: Form, spec: Quantity, stated: float) -> Estimate:
    """Of one number. decisions: its own, in order. stated: the number as written, for which none may be left to take."""
    if not decisions:
        return Estimate([stated], [1.0], spec.period)
    leaves: list[tuple[float, float]] = []  # value, probability
    reached = 1.0
    for decision in decisions:
        prefix, tokens = decision.choice.place.prefix, decision.choice.allowed.tolist()
        chances = [reached * share for share in _shares(decision.log_probabilities)]
        for token, chance in zip(tokens, chances, strict=True):
            begun = prefix + form.character(token)
            if token in decision.rivals:
                digits = form.after(decision.choice.place, token).tolist()
                shares = _shares(decision.rivals[token])
                leaves += [
                    (middle(spec, begun + form.character(digit)), chance * share)
                    for digit, share in zip(digits, shares, strict=True)
                ]
            elif token != decision.token or decision is decisions[-1]:  # the chosen one's followers decide on their own
                leaves.append((middle(spec, begun), chance))
        reached = chances[tokens.index(decision.token)]
    values, probabilities = zip(*sorted(leaves), strict=True)
    return Estimate(values, probabilities, spec.period)


def presence(answer: Answer) -> dict[str, Tensor]:
    """For each of ``KINDS`` the log-probabilities (2,) of no and yes."""
    places = ((decision.choice.place, decision.log_probabilities) for decision in answer.decisions)
    return {place.kind: scores for place, scores in places if place.key == "presence"}


def numbers(reading: Reading) -> list[Number]:
    """All that the diagnosis states."""
    by_place: dict[tuple[str | None, str, int], list[Decision]] = {}
    for decision in reading.answer.decisions:
        place = decision.choice.place
        by_place.setdefault((place.kind, place.key, place.index), []).append(decision)
    found = []
    for kind in KINDS:
        for key, spec in quantities(FINDINGS[kind]).items():
            if (value := getattr(reading.written[kind], key, None)) is not None:
                found += [
                    Number(kind, key, index, spec, stated, by_place.get((kind, key, index), []))
                    for index, stated in enumerate(value if spec.count > 1 else (value,))
                ]
    return found


def examination(reading: Reading, form: Form, calibration: Calibration) -> Examination:
    """What an answer says of a photo when all that was weighed in it is taken into account."""
    yes = {kind: chance(scores, calibration.presence[kind]) for kind, scores in presence(reading.answer).items()}
    found = estimates(reading, form)
    said = expected(reading.written, found)
    (spans,) = intervals(said, found, calibration, LEVELS[-1:])
    return Examination(said, yes, spans)


def estimates(reading: Reading, form: Form, keys: Sequence[str] | None = None) -> Estimates:
    """All that the diagnosis states, or of it the quantities ``keys``."""
    stated = [number for number in numbers(reading) if keys is None or number.key in keys]
    return [(number, estimate(number.decisions, form, number.spec, number.stated)) for number in stated]


def expected(written: Diagnosis, found: Estimates) -> Diagnosis:
    """The answer with the expectation of each of its numbers."""
    means: dict[str, dict[str, list[float]]] = {}
    for number, part in found:
        means.setdefault(number.kind, {}).setdefault(number.key, []).append(number.spec.round(part.mean))
    findings = {
        kind: dataclasses.replace(
            written[kind], **{key: tuple(mean) if len(mean) > 1 else mean[0] for key, mean in stated.items()}
        )
        for kind, stated in means.items()
    }
    return dataclasses.replace(written, **findings)


def intervals(said: Diagnosis, found: Estimates, calibration: Calibration, levels: Sequence[float]) -> list[Intervals]:
    """For each of ``levels``, some of ``LEVELS``, the intervals that hold such a share of the probability, each by itself
    (:mod:`rnr.diagnosis.uncertainty`), moved by the margins. said: the :func:`expected` diagnosis."""
    given: list[Intervals] = [{kind: {} for kind in KINDS if said[kind] is not None} for _ in levels]
    for number, part in found:
        for spans, level in zip(given, levels, strict=True):
            spans[number.kind].setdefault(number.key, []).append(part.interval(level))
    return [_moved(by_themselves(said, spans), calibration, level) for spans, level in zip(given, levels, strict=True)]


def _moved(spans: Intervals, calibration: Calibration, level: float) -> Intervals:
    """By the margins, within the bounds of each quantity; an interval never turns inside out."""
    moved: Intervals = {}
    for kind, stated in spans.items():
        moved[kind] = {}
        for key, ends in stated.items():
            spec, margin = quantities(FINDINGS[kind])[key], calibration.margin(kind, key, level)
            moved[kind][key] = [_outwards(low, high, margin, spec) for low, high in ends] if margin else ends
    return moved


def _outwards(low: float, high: float, margin: float, spec: Quantity) -> Interval:
    middle = (low + high) / 2
    reach = max((high - low) / 2 + margin, 0.0)
    if spec.period is not None:
        reach = min(reach, spec.period / 2)
        return middle - reach, middle + reach
    return max(middle - reach, spec.low), min(middle + reach, spec.high)


def chance(scores: Tensor, temperature: float = 1.0) -> Chance:
    """Of yes, from log-probabilities (2,) of no and yes. On which side of 1/2 it lies is the same at any temperature."""
    yes = torch.sigmoid((scores[1] - scores[0]) / temperature)
    return yes if scores.requires_grad else yes.item()


@cache
def middle(spec: Quantity, prefix: str) -> float:
    """The middle of the least and the greatest number within the bounds of ``spec`` that begins with ``prefix``."""
    return sum(_ends(spec, prefix)) / 2


@cache
def _ends(spec: Quantity, prefix: str) -> tuple[float, float]:
    """Least and greatest number within the bounds of ``spec`` that begins with ``prefix``."""
    ends = []
    for pick in (min, max):
        text = prefix
        while (following := next_characters(spec, text)) is not None:
            text += pick(following)
        ends.append(float(text))
    return min(ends), max(ends)  # below 0 the greater digit makes the lesser number


def _shares(log_probabilities: Tensor) -> Sequence[Chance]:
    """Probabilities."""
    if log_probabilities.requires_grad:
        return log_probabilities.softmax(dim=0).unbind()
    powers = [math.exp(score) for score in log_probabilities.tolist()]
    total = sum(powers)
    return [power / total for power in powers]
