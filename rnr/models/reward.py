"""What a candidate is worth: the severity that the frozen reasoner still sees in it and, if wanted, the cycle's error.

    r_k = sum_i (s_i(I) - s_i(J_k))  -  w e_k

s_i: severity to be expected of degradation i (:mod:`rnr.models.expected_severity`); e_k: :mod:`rnr.diagnosis.cycle`; w its
weight. Neither term looks at a clean photo.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnr import grpo
from rnr.data.classical_depth import estimate
from rnr.diagnosis import Diagnosis
from rnr.diagnosis.cycle import cycle_errors
from rnr.metrics.restoration import as_saved
from rnr.models.interfaces import Reasoner

AT_ONCE = 8
"""How many photos are judged in one batch: more are hardly faster, and a step's memory would be the reasoner's."""


@dataclass(frozen=True)
class Rewards:
    """severities: s_i(J_k), (B, N, 4). The others (B, N): total = severity + cycle, all in points of severity; cycle is
    None where it was not asked for. NaN where an answer did not parse."""

    severities: Tensor
    severity: Tensor
    cycle: Tensor | None

    @property
    def total(self) -> Tensor:
        return self.severity if self.cycle is None else self.severity + self.cycle


@dataclass(frozen=True)
class Reward:
    """cycle_weight: w, the points of severity that a cycle error of full scale costs; 0: the cycle is not run. An error
    of 0.01 is a usual one, so that 100 makes it count as a point."""

    cycle_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.cycle_weight < math.inf:
            raise ValueError(f"cycle_weight must be a finite number of at least 0, got {self.cycle_weight}")

    @torch.no_grad()
    def __call__(
        self,
        reasoner: Reasoner,
        candidates: Tensor,
        degraded: Tensor,
        diagnoses: Sequence[Diagnosis | None],
        before: Tensor,
    ) -> Rewards:
        """candidates: (B, N, 3, H, W), judged as an 8-bit file would hold them, :data:`AT_ONCE` in a batch. degraded:
        (B, 3, H, W) in [0, 1]. before: (B, 4), severities of the degraded photos."""
        count, group = candidates.shape[:2]
        seen = as_saved(candidates)
        judged = [reasoner.severities(some) for some in seen.flatten(0, 1).split(AT_ONCE)]
        after = torch.cat(judged).view(count, group, -1)
        severity = grpo.rewards(before.to(after), after)
        if not self.cycle_weight:
            return Rewards(after, severity, None)
        errors = cycle_errors(seen, degraded, depth_of_degraded(degraded), diagnoses)
        return Rewards(after, severity, -self.cycle_weight * errors.to(severity))


def depth_of_degraded(degraded: Tensor) -> Tensor:
    """(B, 1, H, W): a classical guess at relative depth, all there is to go by where no clean photo is."""
    pixels = (degraded.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return torch.stack([estimate(photo) for photo in pixels]).to(degraded)
