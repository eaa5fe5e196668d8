"""A diagnosis as a vector of numbers of about unit size, for networks that take no text."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rnr.diagnosis.types import FINDINGS, KINDS, Diagnosis, quantities

# What each number is divided by.
SCALES = {
    "severity": 100, "atmospheric_light": 1, "transmission": 1, "energy": 0.5, "density": 0.004, "slant": 30,
    "shake.length": 8, "rain.length": 32, "width": 2, "opacity": 1, "color": 1, "k": 0.3, "b": 20,
}  # fmt: skip


def encode(diagnoses: Sequence[Diagnosis | None], like: Tensor) -> Tensor:
    """(B, D): diagnoses as numbers, on the device and in the type of ``like``.

    For each degradation: is it known whether it is there, the chance that it is if it is said to be, and for each quantity
    whether it is stated and its value (a direction as cosine and sine of its double). Zeros stand for what is not.
    """
    return torch.tensor([_encode_one(diagnosis) for diagnosis in diagnoses], dtype=torch.float32).to(like)


def _encode_one(diagnosis: Diagnosis | None) -> list[float]:
    row: list[float] = []
    for kind in KINDS:
        finding = diagnosis and diagnosis[kind]
        row += [float(diagnosis is not None), finding.chance if finding is not None else 0.0]
        for key, spec in quantities(FINDINGS[kind]).items():
            value = getattr(finding, key) if finding is not None else None
            if spec.period:
                turn = 2 * math.pi * (value or 0) / spec.period
                row += [1.0, math.cos(turn), math.sin(turn)] if value is not None else [0.0] * 3
                continue
            scale = SCALES.get(f"{kind}.{key}") or SCALES[key]
            values = [0.0] * spec.count if value is None else list(value) if spec.count > 1 else [value]
            row += [float(value is not None), *(v / scale for v in values)]
    return row


LENGTH = len(_encode_one(None))
"""D of :func:`encode`."""


def stated_by() -> list[int | None]:
    """For each place of :func:`encode` that holds a quantity's value, the place that says whether it is stated; None for
    places that hold such a flag themselves."""
    places: list[int | None] = []
    for kind in KINDS:
        places += [None, None]
        for spec in quantities(FINDINGS[kind]).values():
            places += [None, *([len(places)] * (2 if spec.period else spec.count))]
    return places
