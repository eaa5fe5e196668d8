"""What several looks at one photo agree on, some of them at its mirror image.

A reasoner errs in one way about a photo and in another about its mirror image; the mean of both errs less. It is taken of
everything: of the chance that something is there, of each number over the looks that found it (of angles the direction of
the mean vector), and of the ends of its interval, in which lies what is said, rounded. As a mean is surer than what it is
taken of, such intervals are wide rather than narrow.
"""

import dataclasses
from collections.abc import Sequence
from statistics import fmean

from rnr.diagnosis.examination import Examination, Interval
from rnr.diagnosis.mean import mean_of
from rnr.diagnosis.types import FINDINGS, KINDS, Diagnosis, Finding, Quantity, quantities

TURNED = (("shake", "direction"), ("rain", "slant"))
"""Angles that a mirror turns into their negative."""


def mirrored(examination: Examination) -> Examination:
    """That of the photo whose mirror image, left for right, was examined."""
    findings, intervals = {}, {kind: dict(stated) for kind, stated in examination.intervals.items()}
    for kind, key in TURNED:
        finding = examination.diagnosis[kind]
        if finding is None or (angle := getattr(finding, key)) is None:
            continue
        spec = quantities(FINDINGS[kind])[key]
        turned = -angle % spec.period if spec.period else -angle
        findings[kind] = dataclasses.replace(finding, **{key: turned})
        if key in intervals.get(kind, {}):
            down, up = _reach(intervals[kind][key][0], angle, spec)
            intervals[kind][key] = [(turned - up, turned - down)]
    diagnosis = dataclasses.replace(examination.diagnosis, **findings)
    return Examination(diagnosis, examination.presence, intervals)


def consensus(looks: Sequence[Examination]) -> Examination:
    """Of one or more looks at the same photo; scene and statement of what is not a number are the first one's."""
    if len(looks) == 1:
        return looks[0]
    presence = {kind: fmean(look.presence[kind] for look in looks) for kind in KINDS}
    findings: dict[str, Finding | None] = {}
    intervals: dict[str, dict[str, list[Interval]]] = {}
    for kind in KINDS:
        found = [look for look in looks if look.diagnosis[kind] is not None]
        if presence[kind] < 0.5 or not found:
            findings[kind] = None
            continue
        findings[kind], intervals[kind] = _mean(kind, found)
    return Examination(Diagnosis(**findings, scene=looks[0].diagnosis.scene), presence, intervals)


def _mean(kind: str, found: Sequence[Examination]) -> tuple[Finding, dict[str, list[Interval]]]:
    """Of looks that all found ``kind``."""
    means, spans = {}, {}
    for key, spec in quantities(FINDINGS[kind]).items():
        if getattr(found[0].diagnosis[kind], key) is None:
            continue
        rows = [getattr(look.diagnosis[kind], key) for look in found]
        rows = [row if spec.count > 1 else (row,) for row in rows]
        columns = list(zip(*rows, strict=True))
        exact = [mean_of(column, spec.period) for column in columns]
        mean = [spec.round(value) for value in exact]
        means[key] = tuple(mean) if spec.count > 1 else mean[0]
        if key not in found[0].intervals.get(kind, {}):
            continue
        spans[key] = []
        for index, (said, middle, column) in enumerate(zip(mean, exact, columns, strict=True)):
            ends = [look.intervals[kind][key][index] for look in found]
            reaches = [_reach(interval, each, spec) for interval, each in zip(ends, column, strict=True)]
            down, up = map(fmean, zip(*reaches, strict=True))
            rounded_off, _ = _reach((middle, middle), said, spec)
            spans[key].append((said + min(rounded_off + down, 0.0), said + max(rounded_off + up, 0.0)))
    return dataclasses.replace(found[0].diagnosis[kind], **means), spans


def _reach(interval: Interval, value: float, spec: Quantity) -> tuple[float, float]:
    """From ``value`` to either end; an interval of angles may lie a period away."""
    low, high = interval[0] - value, interval[1] - value
    away = spec.period * round((low + high) / 2 / spec.period) if spec.period else 0.0
    return low - away, high - away
