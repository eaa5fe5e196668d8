"""The cycle: a restored photo, degraded again as its diagnosis says, should be the photo that was restored.

    e_k = sqrt( mean( (S(B * (t J_k + (1 - t) A)) - S(I))^2 ) )

I: the photo, J_k: what a restorer made of it, t and A the diagnosed fog (depth gives t its shape), B the diagnosed blur,
S: both shrunk by :data:`SHRINK`, averaged over areas. Streaks and noise are drawn at random, so their own places cannot
be found again: they are left out of Eq. 1, and S averages out what the photo has of them. It needs no clean photo, and
is fooled by a wrong diagnosis.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rnr.degradation import Degrader
from rnr.diagnosis.truth import degradation
from rnr.diagnosis.types import KINDS, Diagnosis, quantities

SHRINK = 4
FOUND_AGAIN = ("fog", "shake")


def degraded_again(candidates: Tensor, depth: Tensor, diagnoses: Sequence[Diagnosis | None]) -> Tensor:
    """S of Eq. 1's fog and blur on candidates, (B, N, 3, h, w), with their gradient.

    candidates: (B, N, 3, H, W), within [0, 1] or not. depth: (B, 1, H, W) relative, in [0, 1]. diagnoses: one a photo;
    what they do not state in full counts as absent. ``ValueError`` unless there are B of each.
    """
    count, group = candidates.shape[:2]
    if len(diagnoses) != count or len(depth) != count:
        raise ValueError(f"{count} photos need as many diagnoses and depths, got {len(diagnoses)} and {len(depth)}")
    drawn = degradation([_found_again(diagnosis) for diagnosis in diagnoses], depth, [0] * count)
    drawn, far = drawn.rows(torch.arange(count).repeat_interleave(group)), depth.repeat_interleave(group, dim=0)
    flat = candidates.flatten(0, 1)
    with torch.autocast(flat.device.type, enabled=False):
        again = Degrader.apply(flat.float().clamp(0, 1), far.float(), drawn).image
    return shrunk(again).unflatten(0, (count, group))


def shrunk(images: Tensor) -> Tensor:
    """S: (B, 3, h, w) of (B, 3, H, W); photos of fewer than two blocks a side stay as they are."""
    return F.avg_pool2d(images, SHRINK) if min(images.shape[-2:]) >= 2 * SHRINK else images


def cycle_errors(
    candidates: Tensor, degraded: Tensor, depth: Tensor, diagnoses: Sequence[Diagnosis | None]
) -> Tensor:
    """e_k, (B, N), root mean square in units of full scale. degraded: (B, 3, H, W) in [0, 1]; the rest as above."""
    again = degraded_again(candidates, depth, diagnoses)
    return (again - shrunk(degraded.float())[:, None]).square().mean(dim=(2, 3, 4)).sqrt()


def _found_again(diagnosis: Diagnosis | None) -> Diagnosis:
    found = Diagnosis() if diagnosis is None else diagnosis
    absent = [kind for kind in KINDS if kind not in FOUND_AGAIN or not _stated(found, kind)]
    return dataclasses.replace(found, **dict.fromkeys(absent))


def _stated(diagnosis: Diagnosis, kind: str) -> bool:
    finding = diagnosis[kind]
    return finding is not None and all(
        getattr(finding, key) is not None for key in quantities(type(finding)) if key != "severity"
    )
