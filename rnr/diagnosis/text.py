"""A diagnosis as text, in the paper's order: presence, severities, parameters, scene. ``render`` and ``parse`` are inverse
for diagnoses that state of all that is there the same fields, each in full.

Every number has one printed form (zero-padded, fixed decimals), so that a language model always meets a quantity's
digits at the same place::

    Degradations: fog yes, motion blur no, rain streaks no, sensor noise yes.
    Severity: fog 055.9, sensor noise 012.4.
    Fog: atmospheric light 0.86 0.91 0.79, transmission 0.43.
    Sensor noise: k 0.120, b +05.0.
    Scene: A red bus before a brick building.
"""

import re
from collections.abc import Iterable

from rnr.diagnosis.types import FIELDS, FINDINGS, KINDS, Diagnosis, Finding, ParseFailure, Quantity, quantities

NAMES = {"fog": "fog", "shake": "motion blur", "rain": "rain streaks", "noise": "sensor noise"}


def render(diagnosis: Diagnosis, fields: Iterable[str] = FIELDS) -> str:
    """The text of ``diagnosis``, cut down to ``fields`` (see :meth:`Diagnosis.keep`)."""
    diagnosis = diagnosis.keep(fields)
    present = {kind: diagnosis[kind] for kind in KINDS if diagnosis[kind] is not None}
    flags = (f"{NAMES[kind]} {'yes' if kind in present else 'no'}" for kind in KINDS)
    lines = [f"Degradations: {', '.join(flags)}."]
    scores = [
        f"{NAMES[kind]} {_print(finding.severity, quantities(type(finding))['severity'])}"
        for kind, finding in present.items()
        if finding.severity is not None
    ]
    if scores:
        lines.append(f"Severity: {', '.join(scores)}.")
    for kind, finding in present.items():
        stated = [
            f"{spec.label} {_print(getattr(finding, key), spec)}"
            for key, spec in _parameters(finding).items()
            if getattr(finding, key) is not None
        ]
        if stated:
            lines.append(f"{NAMES[kind].capitalize()}: {', '.join(stated)}.")
    if diagnosis.scene is not None:
        lines.append(f"Scene: {diagnosis.scene}")
    return "\n".join(lines)


def parse(text: str) -> Diagnosis | ParseFailure:
    """The diagnosis that ``text`` spells, or a :class:`ParseFailure` that says where it goes wrong. Never raises.

    Only what :func:`render` prints is read, but for white space around it: no -00 deg, no second space in the scene.
    """
    try:
        diagnosis = _parse(text)
        if (printed := render(diagnosis)) != text.strip():
            raise ValueError(f"not in the one printed form, which is {printed!r}")
        return diagnosis
    except ValueError as error:
        return ParseFailure(text, str(error))


def _parse(text: str) -> Diagnosis:
    lines = text.strip().split("\n")
    match = _PRESENCE.fullmatch(lines.pop(0))
    if not match:
        raise ValueError("the first line must state presence: 'Degradations: fog yes|no, ...'")
    present = [kind for kind in KINDS if match[kind] == "yes"]
    stated: dict[str, dict[str, object]] = {kind: {} for kind in present}
    if lines and lines[0].startswith("Severity:"):
        line = lines.pop(0)
        pattern = ", ".join(f"{NAMES[kind]} {_pattern(_SEVERITY, kind)}" for kind in present)
        if not (present and (match := re.fullmatch(f"Severity: {pattern}\\.", line))):
            raise ValueError(f"the severity line must score just what is present, got {line!r}")
        for kind in present:
            stated[kind]["severity"] = _read(match[kind])
    for kind in present:
        if lines and lines[0].startswith(f"{NAMES[kind].capitalize()}:"):
            line = lines.pop(0)
            if not (match := _PARAMETERS[kind].fullmatch(line)):
                raise ValueError(f"malformed parameters of {kind}: {line!r}")
            stated[kind] |= {key: _read(value) for key, value in match.groupdict().items()}
    scene = None
    if lines and lines[0].startswith("Scene: "):
        scene = lines.pop(0).removeprefix("Scene: ")
    if lines:
        raise ValueError(f"unexpected line {lines[0]!r}")
    findings = {
        kind: FINDINGS[kind](**{key: values.get(key) for key in quantities(FINDINGS[kind])})
        for kind, values in stated.items()
    }
    return Diagnosis(**findings, scene=scene)


def _print(value: float | tuple[float, ...], spec: Quantity) -> str:
    width = spec.digits + spec.signed + (spec.decimals + 1 if spec.decimals else 0)
    form = f"{'+' if spec.signed else ''}0{width}.{spec.decimals}f"
    numbers = " ".join(f"{spec.round(v):{form}}" for v in (value if spec.count > 1 else (value,)))
    return f"{numbers} {spec.unit}" if spec.unit else numbers


def _read(text: str) -> float | tuple[float, ...]:
    numbers = tuple(float(word) for word in text.split())
    return numbers if len(numbers) > 1 else numbers[0]


def _pattern(spec: Quantity, group: str) -> str:
    number = rf"{'[+-]' if spec.signed else ''}[0-9]{{{spec.digits}}}"
    if spec.decimals:
        number += rf"\.[0-9]{{{spec.decimals}}}"
    unit = f" {spec.unit}" if spec.unit else ""
    return f"(?P<{group}>{' '.join([number] * spec.count)}){unit}"


def _parameters(finding: Finding | type[Finding]) -> dict[str, Quantity]:
    kind = finding if isinstance(finding, type) else type(finding)
    return {key: spec for key, spec in quantities(kind).items() if key != "severity"}


_SEVERITY = quantities(FINDINGS["fog"])["severity"]
_PRESENCE = re.compile("Degradations: " + ", ".join(f"{NAMES[kind]} (?P<{kind}>yes|no)" for kind in KINDS) + r"\.")
_PARAMETERS = {
    kind: re.compile(
        f"{NAMES[kind].capitalize()}: "
        + ", ".join(f"{spec.label} {_pattern(spec, key)}" for key, spec in _parameters(finding).items())
        + r"\."
    )
    for kind, finding in FINDINGS.items()
}
