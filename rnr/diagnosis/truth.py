"""Between what was applied (:mod:`rnr.degradation`) and what is said of it (:class:`Diagnosis`), in both directions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rnr.degradation import Degradation, Degraded, FogParams, NoiseParams, RainParams, ShakeParams, fog, noise, shake
from rnr.degradation.fog import beta_for
from rnr.degradation.shake import gaussian_kernel
from rnr.diagnosis.types import FINDINGS, KINDS, Diagnosis, Fog, Noise, Rain, Shake, quantities

ROUND = 0.95
"""Deviation of a Gaussian blur across over that along it, above which it has no direction to speak of."""

AT_ODDS = 12
"""Points of severity, more than what the shipped reasoner says differs from what its own parameters make of it."""


def diagnoses(degraded: Degraded, scenes: Sequence[str | None] | None = None) -> list[Diagnosis]:
    """The true diagnosis of each photo of a batch. scenes: the clean scene of each, where known."""
    count = len(degraded.image)
    scenes = scenes or [None] * count
    findings: list[dict[str, object]] = [{} for _ in range(count)]
    for kind, step in degraded.steps.items():
        columns = {"severity": step.severity, **step.parameters}
        lists = {key: values.cpu().double().tolist() for key, values in columns.items()}  # one copy from the device each
        for i, present in enumerate(step.present.tolist()):
            if present:
                values = {key: tuple(v[i]) if isinstance(v[i], list) else v[i] for key, v in lists.items()}
                findings[i][kind] = FINDINGS[kind](**values)
    return [Diagnosis(**found, scene=scene) for found, scene in zip(findings, scenes, strict=True)]


def degradation(diagnoses: Sequence[Diagnosis], depth: Tensor, seeds: Sequence[int]) -> Degradation:
    """The degradation that a fully stated diagnosis describes, for photos of relative ``depth`` (B, 1, H, W) in [0, 1].

    The mean transmission fixes beta; the blur's direction, length and energy fix a Gaussian kernel. Severities follow
    from the parameters and are not read. ``seeds`` place the streaks and the noise. ``ValueError`` where a parameter
    is not stated.
    """
    stand_in = Diagnosis(Fog(1, (1, 1, 1), 1), Shake(1, 0, 1, 0.3), Rain(1, 0, 0, 1, 1, 0, (1, 1, 1)), Noise(1, 0, 0))

    def column(kind: str, key: str) -> Tensor:
        values = [getattr(d[kind] or stand_in[kind], key) for d in diagnoses]
        if None in values:
            raise ValueError(f"the diagnosis does not state {kind}.{key}")
        return torch.tensor(values, dtype=torch.float64)

    present = {kind: torch.tensor([d[kind] is not None for d in diagnoses]) for kind in KINDS}
    seed = torch.tensor(seeds, dtype=torch.int64)
    return Degradation(
        FogParams(
            present["fog"],
            column("fog", "atmospheric_light"),
            beta_for(depth.double().cpu(), column("fog", "transmission")),
        ),
        ShakeParams(
            present["shake"], gaussian_kernel(*(column("shake", k) for k in ("direction", "length", "energy")))
        ),
        RainParams(
            present["rain"],
            *(column("rain", key) for key in ("density", "slant", "length", "width", "opacity", "color")),
            seed=seed,
        ),
        NoiseParams(present["noise"], column("noise", "k"), column("noise", "b"), seed=seed + 1),
    )


def missed(asked: Diagnosis, applied: Diagnosis) -> list[str]:
    """Of what was asked for, the parameters that were applied otherwise, such as ``shake length 9.48 instead of 30``.
    Severities do not count, nor what differs by less than a fiftieth, or than what a diagnosis prints, nor the direction of a
    blur that is as wide as it is long."""
    lines = []
    for kind in KINDS:
        if asked[kind] is None:
            continue
        if applied[kind] is None:
            lines.append(f"no {kind} to be seen")
            continue
        for key, spec in list(quantities(FINDINGS[kind]).items())[1:]:
            wanted, got = (getattr(each[kind], key) for each in (asked, applied))
            wanted, got = (value if spec.count > 1 else (value,) for value in (wanted, got))
            if key == "direction" and _is_round(applied.shake):
                continue
            least = 10.0**-spec.decimals
            for a, b in zip(wanted, got, strict=True):
                off, allowed = abs(a - b), max(least, 0.02 * abs(a))
                if spec.period is not None:
                    off, allowed = abs((a - b + spec.period / 2) % spec.period - spec.period / 2), least
                if off > allowed:
                    lines.append(f"{kind} {key.replace('_', ' ')} {b:.4g} instead of {a:.4g}")
    return lines


def at_odds(diagnosis: Diagnosis, photo: Tensor) -> dict[str, str]:
    """By kind, where a severity is not that of the parameters beside it, by more than :data:`AT_ODDS`: ``fog of severity 20
    with the parameters of 64``. Of rain it is not known. photo: (3, H, W) in [0, 1], what is diagnosed."""
    made = {}
    if (seen := diagnosis.fog) and seen.transmission is not None:
        made["fog"] = fog.severity(torch.tensor([seen.transmission]))
    if (seen := diagnosis.shake) and seen.length is not None and seen.energy is not None:
        across = min(_across(seen), seen.length)
        made["shake"] = shake.severity(torch.tensor([math.hypot(seen.length, across)]))
    if (seen := diagnosis.noise) and None not in (seen.k, seen.b):
        deviation = noise.sigma(photo[None], *(torch.tensor([value]).to(photo) for value in (seen.k, seen.b)))
        made["noise"] = noise.severity(deviation.square().mean()[None])
    stated = {kind: (diagnosis[kind].severity, severity.item()) for kind, severity in made.items()}
    return {
        kind: f"{kind} of severity {severity:.0f} with the parameters of {other:.0f}"
        for kind, (severity, other) in stated.items()
        if severity is not None and abs(severity - other) > AT_ODDS
    }


def _is_round(shake: Shake) -> bool:
    """Whether its Gaussian's deviation across is about the one along it."""
    return _across(shake) > ROUND * shake.length


def _across(shake: Shake) -> float:
    """The deviation across of the Gaussian of its length and energy, 1 / (4 pi length energy^2)."""
    return 1 / (4 * math.pi * max(shake.length, 1e-6) * max(shake.energy, 1e-6) ** 2)
