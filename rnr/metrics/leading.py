"""Whether a diagnosis of a real photo agrees with a label by eye: photos in folders named after what is wrong with them.

A degradation leads a diagnosis if none that is there is more severe. The rival never looks: it always names the one kind
that leads most often over all folders.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rnr.diagnosis import KINDS, Diagnosis

FOLDERS = {"blur": "shake", "motion blur": "shake", "haze": "fog", **{kind: kind for kind in KINDS}}
"""Names of folders, and the kind of degradation that they stand for."""


class LeadingFigures(NamedTuple):
    """Of one folder. found: share of photos whose diagnosis has the folder's kind at all; leads: whose diagnosis it leads.
    rival: what naming the most frequent leader everywhere would get here, 0 or 1."""

    folder: str
    photos: int
    found: float
    leads: float
    rival: float


def leading(diagnosis: Diagnosis | None) -> str | None:
    """The kind of greatest severity, the first of equals; None where nothing is wrong, or there is no diagnosis."""
    if diagnosis is None:
        return None
    severities = dict(zip(KINDS, diagnosis.severities, strict=True))
    kind = max(severities, key=severities.__getitem__)
    return kind if severities[kind] > 0 else None


def can_be_led(diagnosis: Diagnosis | None) -> bool:
    """Whether it states the severity of all that it finds; what is no diagnosis finds nothing."""
    found = [diagnosis[kind] for kind in KINDS if diagnosis[kind]] if diagnosis else []
    return all(each.severity is not None for each in found)


def leading_figures(folders: Sequence[str], diagnoses: Sequence[Diagnosis | None]) -> list[LeadingFigures]:
    """One row a folder, in the order of :data:`KINDS`. folders: each photo's, a key of :data:`FOLDERS`. diagnoses: None
    where the answer was none, in which nothing is found."""
    leaders = [leading(diagnosis) for diagnosis in diagnoses]
    usual = next((kind for kind, _ in Counter(filter(None, leaders)).most_common(1)), None)
    rows = []
    for folder in sorted(set(folders), key=lambda name: KINDS.index(FOLDERS[name])):
        kind = FOLDERS[folder]
        there = [i for i, name in enumerate(folders) if name == folder]
        rows.append(
            LeadingFigures(
                folder=folder,
                photos=len(there),
                found=sum(diagnoses[i] is not None and diagnoses[i][kind] is not None for i in there) / len(there),
                leads=sum(leaders[i] == kind for i in there) / len(there),
                rival=float(usual == kind),
            )
        )
    return rows
