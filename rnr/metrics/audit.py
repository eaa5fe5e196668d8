"""Is a reward to be trusted? Photos that it should rank, and how it ranks a restorer's own candidates.

A score (a reward, or any other number given to candidates) helps training only where, *within* the group of one photo's
candidates, more of it goes with more fidelity; and it is safe only where nothing that is no restoration scores as high
as the clean photo.
"""

from dataclasses import dataclass

import torch
from kornia.filters import gaussian_blur2d, median_blur
from torch import Tensor

from rnr.metrics.intervals import Interval, paired_interval
from rnr.metrics.rank_correlation import rank_correlation

CLEAN, RESTORED, INPUT = "clean", "restored", "input"
BLUR = 2.0  # sigma, in pixels
SHARPEN = 3.0  # what is added of the difference to a blurred copy


def versions(clean: Tensor, degraded: Tensor, restored: Tensor, other: Tensor) -> dict[str, Tensor]:
    """What the reward is asked about, each (B, 3, H, W) in [0, 1]: what it should like best first, then ways to cheat.

    other: clean photos of other scenes, (B, 3, h, w), of any size; repeated by reflection or cut to that of ``clean``.
    """
    smooth, soft = median_blur(restored, (7, 7)), gaussian_blur2d(restored, (7, 7), (1.0, 1.0))
    return {
        CLEAN: clean,
        RESTORED: restored,
        INPUT: degraded,
        "clean, blurred": gaussian_blur2d(clean, (13, 13), (BLUR, BLUR)),
        "restored, over-smoothed": smooth,
        "restored, over-sharpened": (restored + SHARPEN * (restored - soft)).clamp(0, 1),
        "constant": clean.mean(dim=(2, 3), keepdim=True).expand_as(clean),
        "another scene, clean": _fitted(other, *clean.shape[-2:]),
    }


def _fitted(images: Tensor, height: int, width: int) -> Tensor:
    for axis, side in ((-2, height), (-1, width)):
        while images.shape[axis] < side:
            images = torch.cat([images, images.flip(axis)], dim=axis)
    return images[..., :height, :width]


def rank_correlations(scores: Tensor, qualities: Tensor) -> Tensor:
    """Spearman's correlation within each group, (B,), NaN where one of the two is the same for all or is not finite.
    scores, qualities: (B, N)."""
    if scores.shape != qualities.shape or scores.ndim != 2:
        raise ValueError(f"both must be (B, N), got {tuple(scores.shape)} and {tuple(qualities.shape)}")
    pairs = zip(scores, qualities, strict=True)
    return torch.tensor([rank_correlation(a, b) for a, b in pairs], dtype=torch.float64)


@dataclass(frozen=True)
class Picked:
    """What picking the best of N brings. first: mean quality of the first candidate. picked: of the one with the highest
    score, gain: the paired difference to the first. oracle: of the best one there is."""

    count: int
    first: float
    picked: float
    gain: Interval
    oracle: float


def best_of(scores: Tensor, qualities: Tensor, photos: list[str], counts: list[int]) -> list[Picked]:
    """The curve of quality against N. scores, qualities: (B, M), candidates in the order in which they are drawn, at least
    the largest of ``counts``. photos: (B,) names; groups of one photo count by their mean in the interval. A score that
    is not finite is never picked, a group without any takes its first."""
    if scores.shape != qualities.shape or len(photos) != len(scores):
        raise ValueError(f"{len(photos)} names, {tuple(scores.shape)} scores, {tuple(qualities.shape)} qualities")
    curve = []
    for count in counts:
        some, known = scores[:, :count], qualities[:, :count]
        some = torch.where(some.isfinite(), some, -torch.inf)
        picked = known.gather(1, some.argmax(dim=1, keepdim=True)).squeeze(1)
        gains = over_photos(picked - known[:, 0], photos)
        first, best = (values.mean().item() for values in (known[:, 0], picked))
        curve.append(Picked(count, first, best, paired_interval(gains), known.amax(dim=1).mean().item()))
    return curve


def over_photos(values: Tensor, photos: list[str]) -> list[float]:
    """The mean of ``values`` (B,) a photo, those that are not finite left out: several draws are no independent evidence."""
    of: dict[str, list[float]] = {}
    for name, value in zip(photos, values.tolist(), strict=True):
        if value - value == 0:
            of.setdefault(name, []).append(value)
    return [sum(each) / len(each) for each in of.values()]
