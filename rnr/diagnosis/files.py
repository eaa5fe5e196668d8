"""A diagnosis as JSON: the keys ``fog``, ``shake``, ``rain``, ``noise`` (each null or an object) and ``scene``.

Units and ranges are those of :mod:`rnr.diagnosis.types`. Each degradation may state the ``chance`` that it is there.
"""

import dataclasses
import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from rnr.atomic import whole
from rnr.diagnosis.types import FINDINGS, Diagnosis, quantities


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    content = dataclasses.asdict(diagnosis)
    for kind in FINDINGS:
        if content[kind] is not None and content[kind]["chance"] == 1:
            del content[kind]["chance"]
    return content


def from_dict(data: Any) -> Diagnosis:
    """Inverse of :func:`to_dict`. ``ValueError`` for unknown or missing keys and for values out of range."""
    findings: dict[str, Any] = {}
    _check_keys(data, {*FINDINGS, "scene"}, "a diagnosis")
    for kind, finding in FINDINGS.items():
        if (values := data[kind]) is None:
            continue
        _check_keys(values, set(quantities(finding)), kind, {"chance"})
        if missing := [key for key, value in values.items() if value is None]:
            raise ValueError(f"{kind}.{missing[0]} must be a number, got null")
        findings[kind] = finding(**values)
    return Diagnosis(**findings, scene=data["scene"])


def save(diagnosis: Diagnosis, path: Path) -> None:
    """Writes one diagnosis, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(to_dict(diagnosis), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> Diagnosis:
    """Reads one diagnosis, also what ``rnr diagnose --json`` prints of one photo. ``ValueError`` names the file and what is
    wrong with it; ``OSError`` if it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, list) and data and all(isinstance(each, dict) and "diagnosis" in each for each in data):
            if len(data) != 1:
                raise ValueError(f"holds the diagnoses of {len(data)} photos; one is wanted")
            data = data[0]["diagnosis"]
        return from_dict(data)
    except (ValueError, RecursionError) as error:  # ValueError: also malformed JSON and text that is not UTF-8
        raise ValueError(f"{path}: {error}") from error


def _check_keys(data: Any, expected: set[str], what: str, optional: Set[str] = frozenset()) -> None:
    if not isinstance(data, dict):
        raise ValueError(
            f"{what} must be an object with the keys {', '.join(sorted(expected))}, got {type(data).__name__}"
        )
    if unknown := set(data) - expected - optional:
        raise ValueError(f"{what} has no key {sorted(unknown)[0]!r}; its keys are {', '.join(sorted(expected | optional))}")
    if missing := expected - set(data):
        raise ValueError(f"{what} lacks the key {sorted(missing)[0]!r}")
