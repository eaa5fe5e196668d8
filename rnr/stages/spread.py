"""What makes the candidates of a group differ: the restorer's own rollout, or diagnoses that might be true as well.

With the second, a reward compares what would be made of a photo if this or that were true, as far as the reasoner thinks it
likely: where it is sure the candidates are alike, where it is not they are apart. A cycle in the reward takes the said
diagnosis for all of them, and so favours that; a candidate judged by its own could please it at will.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.uncertainty import drawn
from rnr.models.interfaces import TrainableRestorer

Given = Sequence[Diagnosis | None]


def likely(examination: Examination | None, count: int, seed: int) -> list[Diagnosis | None]:
    """``count`` diagnoses of one photo: the one that is said, and others drawn from how sure it is. None, ``count`` times,
    where there is none."""
    if examination is None:
        return [None] * count
    generator = torch.Generator().manual_seed(seed)
    return [examination.diagnosis, *(drawn(examination, generator) for _ in range(count - 1))]


@dataclass(frozen=True)
class ByDiagnosis:
    """The policy of one batch whose candidates are restored each by a diagnosis of its own. diagnoses: N a photo, the said
    one first."""

    restorer: TrainableRestorer
    diagnoses: Sequence[Given]

    def rollout(self, degraded: Tensor, diagnoses: Given, seeds: Sequence[int], group: int) -> Tensor:
        """As :meth:`TrainableRestorer.rollout`; ``diagnoses`` do not count beyond the first candidate. Of a photo all are
        drawn from one seed, so that nothing but the diagnosis is different."""
        if group == 1:  # what a batch is asked for besides its candidates need not be one of them
            return self.restorer.rollout(degraded, diagnoses, seeds, 1)
        each = [diagnosis for photo in self.diagnoses for diagnosis in photo[:group]]
        seed_of_each = [seed for seed in seeds for _ in range(group)]
        images = self.restorer.rollout(degraded.repeat_interleave(group, dim=0), each, seed_of_each, 1)
        return images.view(len(degraded), group, *images.shape[2:])
