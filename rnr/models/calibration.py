"""From what a reasoner weighed of degraded photos, and what was so, to the calibration by which it is as sure as it may be.

Presence is fitted on yes and no, intervals on where the true numbers lie. The model need not be run again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnr.diagnosis import KINDS, Diagnosis, Finding
from rnr.diagnosis.types import Quantity
from rnr.metrics.calibration import LEVELS, IntervalFigures, interval_figures, margin, temperature
from rnr.metrics.intervals import Interval, paired_interval
from rnr.models.estimates import Calibration, Reading, chance, estimates, expected, intervals, presence
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


def fit(looks: Sequence[Look], form: Form) -> Calibration:
    """The temperatures under which the presence of all ``looks`` is likeliest, and the margins with which intervals cover as
    many of their numbers as they should. Numbers count where their degradation is both there and found."""
    flags: dict[str, list[tuple[Tensor, int]]] = {kind: [] for kind in KINDS}
    for look in looks:
        for kind, scores in presence(look.reading.answer).items():
            flags[kind].append((scores, int(look.truth[kind] is not None)))
    margins: dict[str, dict[str, list[float]]] = {}
    for (kind, key), one in told(looks, [Calibration()] * len(looks), form).items():
        found = (margin(one.intervals[level], one.truth, level, one.spec.period) for level in LEVELS)
        margins.setdefault(kind, {})[key] = [_written(each) for each in found]
    return Calibration({kind: _temperature(choices) for kind, choices in flags.items()}, margins)


def crossed(looks: Sequence[Look], form: Form) -> list[Calibration]:
    """For each look the calibration that the other half of the photos gives: what holds of photos not fitted on. The halves
    are the first and the second, for photos taken one after the other are often alike."""
    middle = (max((look.photo for look in looks), default=0) + 1) / 2
    first = fit([look for look in looks if look.photo < middle], form)
    second = fit([look for look in looks if look.photo >= middle], form)
    return [second if look.photo < middle else first for look in looks]


def proven(
    looks: Sequence[Look], before: Calibration, elsewhere: Sequence[Calibration], fitted: Calibration, form: Form
) -> Calibration:
    """``fitted`` where photos that were not fitted on are judged better so, else ``before``: a kind's presence where the
    Brier score falls for sure, by its paired interval over photos, a quantity's intervals by how far the shares that they
    cover lie from those they should. elsewhere: :func:`crossed`."""
    both = ([before] * len(looks), elsewhere)
    presence = {
        kind: (fitted if _brier_rises(looks, both, kind).high < 0 else before).presence[kind] for kind in KINDS
    }
    margins = {kind: dict(stated) for kind, stated in before.margins.items()}
    old, new = (told(looks, at, form) for at in both)
    for (kind, key), one in old.items():
        if _miss(new[kind, key]) < _miss(one):
            margins.setdefault(kind, {})[key] = fitted.margins[kind][key]
    return Calibration(presence, margins)


def _brier_rises(looks: Sequence[Look], both: Sequence[Sequence[Calibration]], kind: str) -> Interval:
    """By how much, from the first of ``both`` to the second."""
    (old, there), (new, _) = (chances(looks, at, kind) for at in both)
    rises: dict[int, list[float]] = {}
    for look, rise in zip(looks, ((new - there.double()) ** 2 - (old - there.double()) ** 2).tolist(), strict=True):
        rises.setdefault(look.photo, []).append(rise)
    return paired_interval([sum(each) / len(each) for each in rises.values()])


def _miss(one: Told) -> float:
    return sum(abs(one.figures(level).covered - level) for level in LEVELS)


def told(looks: Sequence[Look], calibrations: Sequence[Calibration], form: Form) -> dict[tuple[str, str], Told]:
    """By kind and quantity what is said of it. calibrations: one a look."""
    rows: dict[tuple[str, str], list[tuple[Quantity, list[tuple[float, float]], float]]] = {}
    for look, at in zip(looks, calibrations, strict=True):
        found = estimates(look.reading, form)
        levels = intervals(expected(look.reading.written, found), found, at, LEVELS)
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


def chances(looks: Sequence[Look], calibrations: Sequence[Calibration], kind: str) -> tuple[Tensor, Tensor]:
    """(n,) the chance that ``kind`` is there, and (n,) bool whether it is. calibrations: one a look."""
    given = [
        chance(presence(look.reading.answer)[kind], at.presence[kind])
        for look, at in zip(looks, calibrations, strict=True)
    ]
    return torch.tensor(given, dtype=torch.float64), torch.tensor([look.truth[kind] is not None for look in looks])


def _written(value: float) -> float:
    """In four digits, rounded up: an interval that ends short of a number does not cover it."""
    if not (value := round(value, 9)):
        return 0.0
    digit = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
    return float(f"{math.ceil(round(value / digit, 6)) * digit:.4g}")


def _temperature(choices: Sequence[tuple[Tensor, int]]) -> float:
    if not choices:
        return 1.0
    scores = torch.stack([scores.cpu() for scores, _ in choices])
    return round(temperature(scores, torch.tensor([right for _, right in choices])), 3)


def _true(finding: Finding, key: str, index: int) -> float:
    value = getattr(finding, key)
    return value[index] if isinstance(value, tuple) else value
