"""How good descriptions of clean scenes are: their overlap with the reference, and what they say that they must not.

Overlap is chrF (Popovic, 2015), an F-score of character n-grams in [0, 1] that needs no word list. Its rival never looks
at the photo: it gives each photo the reference of another one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torchmetrics.functional.text import chrf_score

from rnr.diagnosis.scene import degradation_words


class SceneFigures(NamedTuple):
    """photos: with a scene both said and known. overlap, overlap_of_another: mean chrF in [0, 1] of what is said, and of
    the next reference that is another; NaN without any. forbidden: share of all scenes said that have a word of
    degradation."""

    photos: int
    overlap: float
    overlap_of_another: float
    forbidden: float


def scene_figures(said: Sequence[str | None], truth: Sequence[str | None]) -> SceneFigures:
    """said, truth: one a photo, None where there is none."""
    if len(said) != len(truth):
        raise ValueError(f"{len(said)} scenes do not fit {len(truth)} references")
    spoken = [scene for scene in said if scene is not None]
    pairs = [(scene, known) for scene, known in zip(said, truth, strict=True) if scene is not None and known is not None]
    known = [reference for _, reference in pairs]
    different = list(dict.fromkeys(known))  # several looks at a photo share one
    others = dict(zip(different, different[1:] + different[:1], strict=True)) if len(different) > 1 else {}
    return SceneFigures(
        photos=len(pairs),
        overlap=_mean([overlap(scene, reference) for scene, reference in pairs]),
        overlap_of_another=_mean([overlap(others[each], each) for each in known if each in others]),
        forbidden=_mean([float(bool(degradation_words(scene))) for scene in spoken]),
    )


def overlap(said: str, reference: str) -> float:
    """chrF of one description, in [0, 1]."""
    return chrf_score([said], [[reference]], n_word_order=0).item()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
