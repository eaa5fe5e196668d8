"""Reason and Restore on one page: a photo is diagnosed, the diagnosis may be overruled, the photo is repaired by it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rnr.diagnosis import FIELDS, Diagnosis, ParseFailure
from rnr.diagnosis.edit import with_severity
from rnr.models.interfaces import Reasoner, Restorer
from rnr.models.load import load_reasoner, load_restorer


@dataclass(frozen=True)
class Repair:
    """image: (3, H, W) in [0, 1], of the photo's own size. diagnosis: what the restorer was given, None for nothing.
    failure: the reasoner's answer, where it was no diagnosis."""

    image: Tensor
    diagnosis: Diagnosis | None
    failure: ParseFailure | None = None


class ReasonAndRestore:
    """The two phases of section 3.

    Example:
        >>> rnr = ReasonAndRestore.shipped()
        >>> repair = rnr(photo)                     # (3, H, W) in [0, 1]
        >>> repair.diagnosis.fog, repair.image
    """

    def __init__(self, reasoner: Reasoner, restorer: Restorer) -> None:
        self.reasoner, self.restorer = reasoner.eval(), restorer.eval()

    @classmethod
    def shipped(cls) -> "ReasonAndRestore":
        """The compact models that come with the package."""
        return cls(load_reasoner("shipped/reasoner"), load_restorer("shipped/restorer"))

    def diagnose(self, photo: Tensor) -> Diagnosis | ParseFailure:
        """Reason (section 3.1). photo: (3, H, W) in [0, 1]."""
        return self.reasoner.diagnose(photo[None], FIELDS)[0]

    def restore(self, photo: Tensor, diagnosis: Diagnosis | None, seed: int = 0) -> Tensor:
        """Restore (section 3.2). photo: (3, H, W) in [0, 1]; the result has its size. None: nothing is known."""
        return self.restorer.restore(photo[None], [diagnosis], [seed])[0]

    def __call__(self, photo: Tensor, overrule: Mapping[str, float] | None = None, seed: int = 0) -> Repair:
        """Both. overrule: severities (0: absent) that replace the reasoner's, see :func:`with_severity`.

        An answer that does not parse is passed on in ``failure``; the photo is then restored by what was overruled
        alone, or without a diagnosis.
        """
        answer = self.diagnose(photo)
        failure = answer if isinstance(answer, ParseFailure) else None
        diagnosis = None if failure else answer
        if overrule:
            diagnosis = diagnosis or Diagnosis()
            for kind, severity in overrule.items():
                diagnosis = with_severity(diagnosis, kind, severity)
        return Repair(self.restore(photo, diagnosis, seed), diagnosis, failure)
