"""What a model thinks of a number, from the digits it weighed: a distribution over values, not the one greedy reading.

The probabilities of digits form a tree. Greedy decoding follows one branch of it; one level of its side branches is known
too (:attr:`rnr.models.decoding.Decision.rivals`). Each leaf of what is known is a value, the middle of the numbers that
begin so, with the product of the probabilities that lead to it.

A model trained on few photos is surer of itself than it may be. Its log-probabilities l are therefore divided by a
temperature T that held-out photos tell (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)::

    p_i = exp(l_i / T) / sum_j exp(l_j / T)

Calibration changes nothing that is said, only how sure it is: yes stays yes, and a number stays the expectation at T = 1. (A
restorer may go by how sure a diagnosis is; repairs by it then change.) For digits are no scale: a little more chance for a
wrong first digit, which hardly moves the middle 90 %, moves the expectation of a density of 0.0013 by several times its size.
"""

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.types import FINDINGS, KINDS, Quantity, quantities
from rnr.diagnosis.uncertainty import Intervals, by_themselves
from rnr.models.decoding import Answer, Decision
from rnr.models.form import Form, next_characters

Chance = float | Tensor
"""A number; of log-probabilities that have a gradient a scalar tensor that has it too, and so is all that is made of it."""


def _ones() -> dict[str, float]:
    return dict.fromkeys(KINDS, 1.0)


@dataclass(frozen=True)
class Temperatures:
    """T for each of ``KINDS``: presence, of its yes and no; numbers, of the digits of its severity and parameters. 1 leaves
    things as they are, above 1 is less sure. They belong to the weights: once these are trained further, to be fitted
    anew."""

    presence: dict[str, float] = field(default_factory=_ones)
    numbers: dict[str, float] = field(default_factory=_ones)

    def __post_init__(self) -> None:
        for name, values in (("presence", self.presence), ("numbers", self.numbers)):
            if not isinstance(values, dict) or set(values) != set(KINDS):
                raise ValueError(f"temperatures of {name} must be given for each of {', '.join(KINDS)}, got {values}")
            for kind, value in values.items():
                if not (isinstance(value, (int, float)) and 0 < value < math.inf):
                    raise ValueError(f"temperature of {name}.{kind} must be a finite number above 0, got {value!r}")


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
        if self.period is None:
            return sum(map(mul, self.values, self.probabilities))
        turns = [2 * math.pi * value / self.period for value in self.values]
        sine, cosine = (sum(map(mul, map(wave, turns), self.probabilities)) for wave in (math.sin, math.cos))
        return math.atan2(sine, cosine) / (2 * math.pi) * self.period % self.period

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


def estimate(decisions: Sequence[Decision], form: Form, spec: Quantity, stated: float, temperature: float = 1.0) -> Estimate:
    """Of one number. decisions: its own, in order. stated: the number as written, for which none may be left to take.

    temperature: of all probabilities in it; above 1 they are flattened.
    """
    if not decisions:
        return Estimate([stated], [1.0], spec.period)
    leaves: list[tuple[float, float]] = []  # value, probability
    reached = 1.0
    for decision in decisions:
        prefix, tokens = decision.choice.place.prefix, decision.choice.allowed.tolist()
        chances = [reached * share for share in _shares(decision.log_probabilities, temperature)]
        for token, chance in zip(tokens, chances, strict=True):
            begun = prefix + form.character(token)
            if token in decision.rivals:
                digits = form.after(decision.choice.place, token).tolist()
                shares = _shares(decision.rivals[token], temperature)
                leaves += [
                    (middle(spec, begun + form.character(digit)), chance * share)
                    for digit, share in zip(digits, shares, strict=True)
                ]
            elif token != decision.token or decision is decisions[-1]:  # the chosen one's followers decide on their own
                leaves.append((middle(spec, begun), chance))
        reached = chances[tokens.index(decision.token)]
    values, probabilities = zip(*sorted(leaves), strict=True)
    return Estimate(values, probabilities, spec.period)


def path(number: Number, form: Form, value: float) -> list[tuple[Tensor, int]]:
    """The choices that would have led to ``value`` instead, as far as they were weighed: log-probabilities (n,) of what was
    allowed, and the place of the right one among them. As printed, ``value`` is within the bounds of its quantity."""
    steps, value = [], number.spec.round(value)
    for decision in number.decisions:
        prefix, allowed = decision.choice.place.prefix, decision.choice.allowed.tolist()
        right = _towards(value, number.spec, [prefix + form.character(token) for token in allowed])
        steps.append((decision.log_probabilities, right))
        if (token := allowed[right]) == decision.token:
            continue
        if token in decision.rivals:
            digits = form.after(decision.choice.place, token).tolist()
            begun = [prefix + form.character(token) + form.character(digit) for digit in digits]
            steps.append((decision.rivals[token], _towards(value, number.spec, begun)))
        break
    return steps


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


def examination(reading: Reading, form: Form, temperatures: Temperatures) -> Examination:
    """What an answer says of a photo when all that was weighed in it is taken into account."""
    yes = {kind: chance(scores, temperatures.presence[kind]) for kind, scores in presence(reading.answer).items()}
    found = estimates(reading, form)
    said = expected(reading.written, found)
    (spans,) = intervals(said, found, form, temperatures, [0.9])
    return Examination(said, yes, spans)


def estimates(reading: Reading, form: Form, keys: Sequence[str] | None = None) -> Estimates:
    """All that the diagnosis states, or of it the quantities ``keys``, at temperature 1."""
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


def intervals(
    said: Diagnosis, found: Estimates, form: Form, temperatures: Temperatures, shares: Sequence[float]
) -> list[Intervals]:
    """For each of ``shares`` the intervals that hold it, each by itself (:mod:`rnr.diagnosis.uncertainty`). said: the
    :func:`expected` diagnosis."""
    given: list[Intervals] = [{kind: {} for kind in KINDS if said[kind] is not None} for _ in shares]
    for number, part in found:
        if (temperature := temperatures.numbers[number.kind]) != 1:
            part = estimate(number.decisions, form, number.spec, number.stated, temperature)
        for spans, share in zip(given, shares, strict=True):
            spans[number.kind].setdefault(number.key, []).append(part.interval(share))
    return [by_themselves(said, spans) for spans in given]


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


def _towards(value: float, spec: Quantity, prefixes: Sequence[str]) -> int:
    """Which of ``prefixes`` the printed ``value`` begins with."""
    return next(i for i, prefix in enumerate(prefixes) if _ends(spec, prefix)[0] <= value <= _ends(spec, prefix)[1])


def _shares(log_probabilities: Tensor, temperature: float) -> Sequence[Chance]:
    """Probabilities at that temperature."""
    if log_probabilities.requires_grad:
        return (log_probabilities / temperature).softmax(dim=0).unbind()
    powers = [math.exp(score / temperature) for score in log_probabilities.tolist()]
    total = sum(powers)
    return [power / total for power in powers]
