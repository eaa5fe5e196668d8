"""The structured diagnosis (section 3.1): which degradations are there, how severe, with which parameters, over which scene.

A :class:`Diagnosis` speaks of one photo. A degradation that is absent is ``None``, never a zero strength: the paper's
scale gives 0 to absence and starts at 1 for the faintest presence. A quantity that is ``None`` is *not stated*: a
diagnosis cut down to some :data:`FIELDS` (Table 3) has such quantities; one that describes a photo fully has none.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FIELDS = ("presence", "severity", "parameters", "scene")
"""The four components of a diagnosis, in the paper's order."""

KINDS = ("fog", "shake", "rain", "noise")
"""The four degradations, in the order in which they are applied (appendix A.2)."""

MAX_SCENE_WORDS = 30

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Quantity:
    """How one number of a diagnosis is bounded and printed, always at the same width.

    ``digits`` and ``decimals`` count the places before and after the point; a ``signed`` number always prints its sign.
    """

    label: str
    low: float
    high: float
    digits: int
    decimals: int
    unit: str = ""
    signed: bool = False
    count: int = 1
    period: float | None = None

    def check(self, name: str, value: Any) -> float | RGB:
        """``value`` as float (or a triple of floats); ``ValueError`` names the value and the limit it breaks."""
        values = value if self.count > 1 else (value,)
        if not isinstance(values, (tuple, list)) or len(values) != self.count:
            raise ValueError(f"{name} must be {self.count} numbers, got {value!r}")
        for number in values:
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not (is_number and -math.inf < number < math.inf):  # math.isfinite overflows on a huge int
                raise ValueError(f"{name} must be a finite number, got {number!r}")
            if not self.low <= number <= self.high:
                raise ValueError(f"{name} must lie within [{self.low:g}, {self.high:g}], got {number!r}")
        return tuple(float(v) for v in values) if self.count > 1 else float(value)

    def round(self, value: float) -> float:
        """``value`` as it reads once printed."""
        rounded = round(value, self.decimals) + 0.0  # no negative zero
        return rounded % self.period if self.period else rounded


def quantity(label: str, low: float, high: float, digits: int, decimals: int, **extra: Any) -> Any:
    return dataclasses.field(metadata={"quantity": Quantity(label, low, high, digits, decimals, **extra)})


def severity() -> Any:
    return quantity("severity", 1, 100, 3, 1)


@dataclass(frozen=True)
class Finding:
    """What is said of one degradation that is there: its severity in [1, 100], then its parameters.

    ``chance``: how sure whoever says so is that it is there at all, in (0, 1]; the truth, and a person, are sure. It is not
    part of what is written.
    """

    severity: float | None
    chance: float = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        if isinstance(self.chance, bool) or not isinstance(self.chance, (int, float)) or not 0 < self.chance <= 1:
            raise ValueError(f"{name}.chance must be a number within (0, 1], got {self.chance!r}")
        for key, spec in quantities(type(self)).items():
            if (value := getattr(self, key)) is not None:
                object.__setattr__(self, key, spec.check(f"{name}.{key}", value))

    def keep(self, fields: Iterable[str]) -> "Finding":
        """The same finding with only the quantities of ``fields`` stated."""
        dropped = [
            key for key in quantities(type(self)) if ("severity" if key == "severity" else "parameters") not in fields
        ]
        return dataclasses.replace(self, **dict.fromkeys(dropped))


@dataclass(frozen=True)
class Fog(Finding):
    """Atmospheric scattering. ``atmospheric_light``: RGB in [0, 1]. ``transmission``: the mean t of Eq. 1, in [0, 1]."""

    severity: float | None = severity()
    atmospheric_light: RGB | None = quantity("atmospheric light", 0, 1, 1, 2, count=3)
    transmission: float | None = quantity("transmission", 0, 1, 1, 2)


@dataclass(frozen=True)
class Shake(Finding):
    """Motion blur, by the moments of its kernel.

    ``direction``: degrees in [0, 180), counter-clockwise from the horizontal. ``length``: the effective length, square
    root of the largest eigenvalue of the kernel's second moments, in pixels. ``energy``: the kernel's L2 norm, in (0, 1].
    """

    severity: float | None = severity()
    direction: float | None = quantity("direction", 0, 180, 3, 0, unit="deg", period=180)
    length: float | None = quantity("length", 0, 64, 2, 1, unit="px")
    energy: float | None = quantity("energy", 0, 1, 1, 3)


@dataclass(frozen=True)
class Rain(Finding):
    """Rain streaks. ``density``: share of pixels that seed a streak. ``slant``: degrees in [-90, 90] from the vertical,
    positive where streaks lean to the right at the top. ``length`` and ``width``: pixels. ``opacity``: in [0, 1].
    ``color``: RGB in [0, 1]."""

    severity: float | None = severity()
    density: float | None = quantity("density", 0, 1, 1, 4)
    slant: float | None = quantity("slant", -90, 90, 2, 0, unit="deg", signed=True)
    length: float | None = quantity("length", 1, 64, 2, 0, unit="px")
    width: float | None = quantity("width", 0.5, 9, 1, 1, unit="px")
    opacity: float | None = quantity("opacity", 0, 1, 1, 2)
    color: RGB | None = quantity("color", 0, 1, 1, 2, count=3)


@dataclass(frozen=True)
class Noise(Finding):
    """Signal-dependent Gaussian noise: standard deviation sigma(x) = max(0, k x + b) at intensity x in [0, 255]."""

    severity: float | None = severity()
    k: float | None = quantity("k", 0, 1, 1, 3)
    b: float | None = quantity("b", -99, 99, 2, 1, signed=True)


FINDINGS: dict[str, type[Finding]] = {"fog": Fog, "shake": Shake, "rain": Rain, "noise": Noise}


def quantities(finding: type[Finding]) -> dict[str, Quantity]:
    """The quantities of a kind of finding by name, severity first."""
    return {f.name: f.metadata["quantity"] for f in dataclasses.fields(finding) if "quantity" in f.metadata}


@dataclass(frozen=True)
class Diagnosis:
    """All that is said of one photo. ``scene``: the clean scene in one line of at most 30 words, or None if not described.

    Raises ``ValueError`` for a finding of the wrong kind, a number out of its range, or a scene too long.
    """

    fog: Fog | None = None
    shake: Shake | None = None
    rain: Rain | None = None
    noise: Noise | None = None
    scene: str | None = None

    def __post_init__(self) -> None:
        for kind, finding in FINDINGS.items():
            value = getattr(self, kind)
            if value is not None and not isinstance(value, finding):
                raise ValueError(f"{kind} must be a {finding.__name__} or None, got {type(value).__name__}")
        if self.scene is not None:
            if not isinstance(self.scene, str) or not self.scene.strip():
                raise ValueError(f"scene must be text or None, got {self.scene!r}")
            object.__setattr__(self, "scene", " ".join(self.scene.split()))
            if (words := len(self.scene.split())) > MAX_SCENE_WORDS:
                raise ValueError(f"scene must have at most {MAX_SCENE_WORDS} words, got {words}")

    def __getitem__(self, kind: str) -> Finding | None:
        if kind not in FINDINGS:
            raise KeyError(f"{kind!r} is none of {', '.join(KINDS)}")
        return getattr(self, kind)

    @property
    def severities(self) -> tuple[float, float, float, float]:
        """Severity of each of :data:`KINDS`, absence as 0: what a reward sums (section 3.3)."""
        if any(self[kind] is not None and self[kind].severity is None for kind in KINDS):
            raise ValueError("this diagnosis does not state its severities")
        return tuple(0.0 if self[kind] is None else self[kind].severity for kind in KINDS)

    def keep(self, fields: Iterable[str]) -> "Diagnosis":
        """The same diagnosis with only ``fields`` stated; ``presence`` cannot be dropped.

        Raises ``ValueError`` for an unknown field or a missing ``presence``.
        """
        fields = set(fields)
        if unknown := fields - set(FIELDS):
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}; fields are {', '.join(FIELDS)}")
        if "presence" not in fields:
            raise ValueError("every diagnosis states presence; give no diagnosis at all to leave it out")
        findings = {kind: self[kind] and self[kind].keep(fields) for kind in KINDS}
        return Diagnosis(**findings, scene=self.scene if "scene" in fields else None)


@dataclass(frozen=True)
class ParseFailure:
    """Text that is no diagnosis, and why. Whoever gets one must say what it does with it."""

    text: str
    reason: str
