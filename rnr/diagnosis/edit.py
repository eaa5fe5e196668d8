"""Changing a diagnosis: a person overrules a severity, or a group of candidates is spread by small errors."""

import dataclasses
import math

import torch

from rnr.degradation.fog import MIN_TRANSMISSION
from rnr.degradation.shake import RADIUS
from rnr.diagnosis.types import FINDINGS, KINDS, Diagnosis, Finding, Fog, Noise, Rain, Shake, quantities

TYPICAL = Diagnosis(
    fog=Fog(50.0, (0.85, 0.85, 0.85), 0.53),
    shake=Shake(20.0, 0.0, 2.9, 0.18),
    rain=Rain(10.0, 0.002, 0.0, 20.0, 1.5, 0.6, (0.85, 0.85, 0.85)),
    noise=Noise(30.0, 0.15, 10.0),
)
"""What is assumed of a degradation that a person adds by its severity alone."""

LEAST = 0.05 / 99
"""Half the last digit of a severity, as a share of its range: what prints as 1.0 is no weaker for all one knows."""


def surely(diagnosis: Diagnosis, chance: float) -> Diagnosis:
    """``diagnosis`` without what is less sure to be there than ``chance``. ``ValueError`` for one outside [0, 1]."""
    if not 0 <= chance <= 1:
        raise ValueError(f"chance must lie within [0, 1], got {chance:g}")
    doubted = [kind for kind in KINDS if diagnosis[kind] is not None and diagnosis[kind].chance < chance]
    return dataclasses.replace(diagnosis, **dict.fromkeys(doubted))


def with_severity(diagnosis: Diagnosis, kind: str, severity: float) -> Diagnosis:
    """``diagnosis`` with the severity of ``kind`` set, 0 meaning absence, and the parameters that go with it.

    Severity is a function of the parameters (A.2), so these follow: transmission for fog, length and energy for shake,
    density for rain, k and b for noise. A person is sure. ``ValueError`` for an unknown kind, or a severity neither 0 nor in
    [1, 100].
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no degradation; there are {', '.join(KINDS)}")
    if severity == 0:
        return dataclasses.replace(diagnosis, **{kind: None})
    if not 1 <= severity <= 100:
        raise ValueError(f"{kind} must be 0 (absent) or a severity within [1, 100], got {severity:g}")
    finding = _with_strength(diagnosis[kind] or TYPICAL[kind])
    ratio = (severity - 1) / 99
    changes = {"severity": severity, "chance": 1.0}
    if isinstance(finding, Fog) and finding.transmission is not None:
        changes["transmission"] = 1 - ratio * (1 - MIN_TRANSMISSION)
    elif isinstance(finding, Shake) and finding.length is not None:
        # r_rms scales with the kernel, whose energy falls with its extent.
        old = (finding.severity or TYPICAL.shake.severity) - 1
        factor = max(ratio * RADIUS, 0.1) / max(old / 99 * RADIUS, 0.1)
        changes["length"] = min(finding.length * factor, 64)
        changes["energy"] = min((finding.energy or 0.2) / factor, 1)
    elif isinstance(finding, Rain) and finding.density is not None:
        # Coverage c of overlapping streaks is about 1 - exp(-density * area).
        old = min(((finding.severity or TYPICAL.rain.severity) - 1) / 99, 0.99)
        factor = math.log1p(-min(ratio, 0.99)) / math.log1p(-max(old, LEAST))
        changes["density"] = min(finding.density * factor, 1)
    elif isinstance(finding, Noise) and finding.k is not None:
        factor = _louder(finding, ratio)
        if max(finding.k * factor, abs(finding.b or 0) * factor / 99) > 1:  # one would stop there, and the other go on
            finding, factor = TYPICAL.noise, _louder(TYPICAL.noise, ratio)
        changes |= {"k": finding.k * factor, "b": finding.b and finding.b * factor}
    return dataclasses.replace(diagnosis, **{kind: dataclasses.replace(finding, **changes)})


def _louder(noise: Noise, ratio: float) -> float:
    """By which sigma(x) is multiplied; severity goes by its square."""
    old = ((noise.severity or TYPICAL.noise.severity) - 1) / 99
    return math.sqrt(ratio / max(old, LEAST))


def _with_strength(finding: Finding) -> Finding:
    """``finding``, or what is typical where a number is stated by which nothing can be scaled: a length of 0, say."""
    if isinstance(finding, Shake) and finding.length == 0:
        return dataclasses.replace(TYPICAL.shake, direction=finding.direction)
    if isinstance(finding, Rain) and finding.density == 0:
        return dataclasses.replace(finding, severity=TYPICAL.rain.severity, density=TYPICAL.rain.density)
    if isinstance(finding, Noise) and finding.k is not None and 255 * finding.k + (finding.b or 0) <= 0:
        return TYPICAL.noise
    return finding


def jitter(diagnosis: Diagnosis, strength: float, generator: torch.Generator) -> Diagnosis:
    """``diagnosis`` with each stated number off by a normal error: ``strength`` times its size, but at least
    ``strength`` times a tenth of what is typical, of an angle ``strength`` times 60 degrees, kept within its range. Presence,
    its chance and scene stay."""
    changed = {kind: diagnosis[kind] and _jitter(diagnosis[kind], TYPICAL[kind], strength, generator) for kind in KINDS}
    return dataclasses.replace(diagnosis, **changed)


def _jitter(finding: Finding, typical: Finding, strength: float, generator: torch.Generator) -> Finding:
    changes = {}
    for key, spec in quantities(FINDINGS[type(finding).__name__.lower()]).items():
        value, usual = getattr(finding, key), getattr(typical, key)
        if value is None:
            continue
        values, usuals = (value, usual) if spec.count > 1 else ((value,), (usual,))
        errors = torch.randn(spec.count, generator=generator).tolist()
        noisy = []
        for number, normal, error in zip(values, usuals, errors, strict=True):
            # An angle's error has nothing to do with its size.
            size = 60.0 if spec.unit == "deg" else max(abs(number), abs(normal) / 10)
            moved = number + strength * size * error
            noisy.append(moved % spec.period if spec.period else min(max(moved, spec.low), spec.high))
        changes[key] = tuple(noisy) if spec.count > 1 else noisy[0]
    return dataclasses.replace(finding, **changes)
