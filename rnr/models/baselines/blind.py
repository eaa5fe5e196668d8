"""A restorer that is told nothing of a photo, whatever is known of it."""

from collections.abc import Sequence

from torch import Tensor

from rnr.diagnosis import Diagnosis
from rnr.models.interfaces import Restorer


class Blind(Restorer):
    """``restorer`` without any diagnosis: the blind row of a restorer that could be told, and a model that is asked for
    a restoration in general (the paper's Qwen-Image row)."""

    def __init__(self, restorer: Restorer) -> None:
        super().__init__()
        self.restorer = restorer

    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        return self.restorer.restore(images, [None] * len(images), seeds)
