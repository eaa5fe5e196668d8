"""Restorers of one degradation each, one after the other (the paper's 3D, section 4.2).

They run in the reverse of the order in which the degradations came about: noise, rain, shake, fog. Each sees only the
photos whose diagnosis has its degradation; of a photo without a diagnosis all are assumed, as the paper does for real
photos (footnote 2).
"""

from collections.abc import Sequence

from torch import Tensor

from rnr.diagnosis import KINDS, Diagnosis
from rnr.models.interfaces import Restorer


class Chain(Restorer):
    """Each argument restores one degradation; one that is None is left as it is."""

    def __init__(
        self,
        noise: Restorer | None = None,
        rain: Restorer | None = None,
        shake: Restorer | None = None,
        fog: Restorer | None = None,
    ) -> None:
        super().__init__()
        self.noise, self.rain, self.shake, self.fog = noise, rain, shake, fog

    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        out = images.clone()
        for kind in reversed(KINDS):
            step: Restorer | None = getattr(self, kind)
            here = [i for i, diagnosis in enumerate(diagnoses) if diagnosis is None or diagnosis[kind] is not None]
            if step is not None and here:
                out[here] = step.restore(out[here], [diagnoses[i] for i in here], [seeds[i] for i in here])
        return out
