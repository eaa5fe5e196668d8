"""What follows from how sure a diagnosis is: intervals that hold for each number by itself, and other diagnoses that might
be true as well.

A reasoner writes one number after the other, so what it weighs of a parameter is weighed *given* what it has said already.
A mean transmission all but follows from the severity of the fog, however unsure that is. What the parameter would be at
either end of what it follows from (:func:`rnr.diagnosis.edit.with_severity`; of rain's color, the fog's light) is
therefore added to its own interval, as independent errors add up: in quadrature.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from rnr.diagnosis.edit import TYPICAL, with_severity
from rnr.diagnosis.examination import Examination, Interval
from rnr.diagnosis.types import FINDINGS, KINDS, Diagnosis, Finding, Quantity, quantities

Intervals = dict[str, dict[str, list[Interval]]]

FAINT = 10.0  # severity of what is drawn although the diagnosis calls it absent
MIDDLE = 2 * 1.645  # standard deviations between the ends of the middle 90 % of a normal distribution


def by_themselves(diagnosis: Diagnosis, given: Intervals) -> Intervals:
    """Intervals of each number, whatever was said before it. given: those that hold given what was said before it, of
    quantities that ``diagnosis`` states, as in :class:`Examination`."""
    found: Intervals = {}
    for kind, stated in given.items():
        finding, ends = diagnosis[kind], _at_either_end(diagnosis, given, kind)
        found[kind] = {
            key: [
                _widened(spec, _number(finding, key, i), interval, [_number(end, key, i) for end in ends.get(key, [])])
                for i, interval in enumerate(stated[key])
            ]
            for key, spec in quantities(FINDINGS[kind]).items()
            if key in stated
        }
    return found


def _at_either_end(diagnosis: Diagnosis, given: Intervals, kind: str) -> dict[str, list[Finding]]:
    """By quantity what the finding would be at either end of what the quantity follows from."""
    ends: dict[str, list[Finding]] = {}
    if "severity" in given[kind]:
        scores = [min(max(end, 1.0), 100.0) for end in given[kind]["severity"][0]]
        moved = [with_severity(diagnosis, kind, score)[kind] for score in scores]
        ends = {key: moved for key in given[kind] if key != "severity"}
    if kind == "rain" and (light := given.get("fog", {}).get("atmospheric_light")) and "color" in given[kind]:
        color, said = diagnosis.rain.color, diagnosis.fog.atmospheric_light
        shifts = [[span[side] - value for span, value in zip(light, said, strict=True)] for side in (0, 1)]
        ends["color"] = [_recolored(diagnosis.rain, color, shift) for shift in shifts]
    return ends


def _recolored(rain: Finding, color: Sequence[float], shift: Sequence[float]) -> Finding:
    return dataclasses.replace(rain, color=tuple(min(max(c + s, 0.0), 1.0) for c, s in zip(color, shift, strict=True)))


def _widened(spec: Quantity, value: float, interval: Interval, elsewhere: list[float]) -> Interval:
    down = max([0.0, *(value - other for other in elsewhere)])
    up = max([0.0, *(other - value for other in elsewhere)])
    if not (down or up):
        return interval
    low, high = value - math.hypot(value - interval[0], down), value + math.hypot(interval[1] - value, up)
    return max(low, spec.low), min(high, spec.high)


def drawn(examination: Examination, generator: torch.Generator) -> Diagnosis:
    """A diagnosis that might be true as well: each degradation is there by its chance, each number normal about the one that
    is said, as wide as its interval. What is drawn although it was called absent is faint and typical."""
    diagnosis = examination.diagnosis
    findings: dict[str, Finding | None] = {}
    for kind in KINDS:
        there = torch.rand((), generator=generator) < examination.presence[kind]
        if there and diagnosis[kind] is None:
            findings[kind] = with_severity(TYPICAL, kind, FAINT)[kind]
        else:
            findings[kind] = _redrawn(diagnosis[kind], examination.intervals.get(kind, {}), generator) if there else None
    return dataclasses.replace(diagnosis, **findings)


def _redrawn(finding: Finding, intervals: dict[str, list[Interval]], generator: torch.Generator) -> Finding:
    changes: dict[str, Any] = {"chance": 1.0}
    for key, spec in quantities(type(finding)).items():
        if key not in intervals:
            continue
        errors = torch.randn(spec.count, generator=generator).tolist()
        numbers = [
            _number(finding, key, i) + error * (high - low) / MIDDLE
            for i, ((low, high), error) in enumerate(zip(intervals[key], errors, strict=True))
        ]
        kept = [n % spec.period if spec.period else min(max(n, spec.low), spec.high) for n in numbers]
        changes[key] = tuple(kept) if spec.count > 1 else kept[0]
    return dataclasses.replace(finding, **changes)


def _number(finding: Finding, key: str, index: int) -> float:
    value = getattr(finding, key)
    return value[index] if isinstance(value, tuple) else value
