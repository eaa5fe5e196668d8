"""From what a reasoner weighed of degraded photos, and what was so, to the temperatures at which it is as sure as it may be.

Presence is fitted on yes and no, numbers on their digits: the choices that the true number would have taken, as far as
they were weighed (:func:`rnr.models.estimates.path`). The model need not be run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnr.diagnosis import KINDS, Diagnosis, Finding
from rnr.diagnosis.types import Quantity
from rnr.metrics.calibration import LEVELS, IntervalFigures, interval_figures, presence_figures, temperature
from rnr.models.estimates import Reading, Temperatures, chance, estimates, expected, intervals, numbers, path, presence
from rnr.models.form import Form


@dataclass(frozen=True)
class Look:
    """What the reasoner made of one degraded photo, and what was so. photo: the number of the clean one."""

    photo: int
    reading: Reading
    truth: Diagnosis


@dataclass(frozen=True)
class Told:
    """One quantity of one kind wherever it is there and found, n numbers in all (three of a color).

    intervals: (n, 2) for each of ``LEVELS``. truth: (n,), as it would be printed.
    """

    spec: Quantity
    intervals: dict[float, Tensor]
    truth: Tensor

    def figures(self, level: float) -> IntervalFigures:
        return interval_figures(self.intervals[level], self.truth, level, self.spec.period)


def fit(looks: Sequence[Look], form: Form) -> Temperatures:
    """The temperatures under which the truth of all ``looks`` is likeliest. Numbers count where their degradation is both
    there and found."""
    flags: dict[str, list[tuple[Tensor, int]]] = {kind: [] for kind in KINDS}
    digits: dict[str, list[tuple[Tensor, int]]] = {kind: [] for kind in KINDS}
    for look in looks:
        for kind, scores in presence(look.reading.answer).items():
            flags[kind].append((scores, int(look.truth[kind] is not None)))
        for number in numbers(look.reading):
            if (finding := look.truth[number.kind]) is not None:
                digits[number.kind] += path(number, form, _true(finding, number.key, number.index))
    return Temperatures(
        {kind: _temperature(choices) for kind, choices in flags.items()},
        {kind: _temperature(choices) for kind, choices in digits.items()},
    )


def crossed(looks: Sequence[Look], form: Form) -> list[Temperatures]:
    """For each look the temperatures that the other half of the photos gives: what holds of photos not fitted on. The halves
    are the first and the second, for photos taken one after the other are often alike."""
    middle = (max((look.photo for look in looks), default=0) + 1) / 2
    first = fit([look for look in looks if look.photo < middle], form)
    second = fit([look for look in looks if look.photo >= middle], form)
    return [second if look.photo < middle else first for look in looks]


def proven(
    looks: Sequence[Look], before: Temperatures, elsewhere: Sequence[Temperatures], fitted: Temperatures, form: Form
) -> Temperatures:
    """``fitted`` where photos that were not fitted on are judged better so, else ``before``: a kind's presence by the Brier
    score, its numbers by how far the shares that intervals cover lie from those they should. elsewhere: :func:`crossed`."""
    both = ([before] * len(looks), elsewhere)
    old, new = (told(looks, at, form) for at in both)
    presence, numbers = {}, {}
    for kind in KINDS:
        was, would_be = (presence_figures(*chances(looks, at, kind)).brier for at in both)
        presence[kind] = (fitted if would_be < was else before).presence[kind]
        was, would_be = (sum(_miss(each) for (of, _), each in found.items() if of == kind) for found in (old, new))
        numbers[kind] = (fitted if would_be < was else before).numbers[kind]
    return Temperatures(presence, numbers)


def _miss(one: Told) -> float:
    return sum(abs(one.figures(level).covered - level) for level in LEVELS)


def told(looks: Sequence[Look], temperatures: Sequence[Temperatures], form: Form) -> dict[tuple[str, str], Told]:
    """By kind and quantity what is said of it. temperatures: one a look."""
    rows: dict[tuple[str, str], list[tuple[Quantity, list[tuple[float, float]], float]]] = {}
    for look, at in zip(looks, temperatures, strict=True):
        found = estimates(look.reading, form)
        levels = intervals(expected(look.reading.written, found), found, form, at, LEVELS)
        for number, _ in found:
            if (finding := look.truth[number.kind]) is None:
                continue
            truth = number.spec.round(_true(finding, number.key, number.index))
            spans = [spans[number.kind][number.key][number.index] for spans in levels]
            rows.setdefault((number.kind, number.key), []).append((number.spec, spans, truth))
    result = {}
    for name, found in sorted(rows.items(), key=lambda row: KINDS.index(row[0][0])):
        specs, spans, truth = zip(*found, strict=True)
        ends = torch.tensor(spans, dtype=torch.float64).unbind(dim=1)
        result[name] = Told(specs[0], dict(zip(LEVELS, ends, strict=True)), torch.tensor(truth, dtype=torch.float64))
    return result


def chances(looks: Sequence[Look], temperatures: Sequence[Temperatures], kind: str) -> tuple[Tensor, Tensor]:
    """(n,) the chance that ``kind`` is there, and (n,) bool whether it is. temperatures: one a look."""
    given = [
        chance(presence(look.reading.answer)[kind], at.presence[kind])
        for look, at in zip(looks, temperatures, strict=True)
    ]
    return torch.tensor(given, dtype=torch.float64), torch.tensor([look.truth[kind] is not None for look in looks])


def _temperature(choices: Sequence[tuple[Tensor, int]]) -> float:
    if not choices:
        return 1.0
    scores = [scores.cpu() for scores, _ in choices]
    padded = torch.nn.utils.rnn.pad_sequence(scores, batch_first=True, padding_value=float("-inf"))
    return round(temperature(padded, torch.tensor([right for _, right in choices])), 3)


def _true(finding: Finding, key: str, index: int) -> float:
    value = getattr(finding, key)
    return value[index] if isinstance(value, tuple) else value
