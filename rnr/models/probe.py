"""An auxiliary task for a reasoner that starts from nothing: read the diagnosis' numbers off what it has made of a photo.

Text alone teaches a new model to write long before it teaches it to look. A linear layer that must give the numbers of
the true diagnosis sends a gradient straight to where the looking is done. It is dropped after training.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.vector import LENGTH, encode, stated_by

MOMENTUM = 0.02


class Probe(nn.Module):
    """width: of the states that are read."""

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, LENGTH)
        self.register_buffer("flag", torch.tensor([place is None for place in stated_by()]))
        self.register_buffer("stated_by", torch.tensor([i if p is None else p for i, p in enumerate(stated_by())]))
        self.register_buffer("mean", torch.zeros(LENGTH))
        self.register_buffer("variance", torch.ones(LENGTH))

    def forward(self, states: Tensor, diagnoses: Sequence[Diagnosis]) -> Tensor:
        """A scalar: cross-entropy of what is there, plus the squared error of what is stated, each number in units of
        its own spread (a running estimate). states: (B, width)."""
        numbers = encode(diagnoses, self.mean)
        stated = ~self.flag & numbers[:, self.stated_by].bool()
        if self.training:
            self._follow(numbers, stated)
        read = self.linear(states).float()
        presence = F.binary_cross_entropy_with_logits(read[:, self.flag], numbers[:, self.flag])
        error = (read - (numbers - self.mean) / self.variance.sqrt()).square()
        return presence + (error * stated).sum() / stated.sum().clamp(min=1)

    @torch.no_grad()
    def _follow(self, numbers: Tensor, stated: Tensor) -> None:
        count = stated.sum(dim=0)
        there = count > 1
        mean = (numbers * stated).sum(dim=0) / count.clamp(min=1)
        variance = ((numbers - mean).square() * stated).sum(dim=0) / (count - 1).clamp(min=1)
        self.mean[there] += MOMENTUM * (mean - self.mean)[there]
        self.variance[there] += MOMENTUM * (variance.clamp(min=1e-4) - self.variance)[there]
