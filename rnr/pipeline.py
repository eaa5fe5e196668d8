"""Reason and Restore on one page: a photo is diagnosed, the diagnosis may be overruled, the photo is repaired by it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnr.diagnosis import FIELDS, Diagnosis, ParseFailure
from rnr.diagnosis.edit import surely, with_severity
from rnr.models.interfaces import Reasoner, Restorer, TrainableRestorer
from rnr.models.load import load_reasoner, load_restorer
from rnr.models.reward import Reward


@dataclass(frozen=True)
class Repair:
    """image: (3, H, W) in [0, 1], of the photo's own size. diagnosis: what the restorer was given, None for nothing.
    failure: the reasoner's answer, where it was no diagnosis. rewards: those of the candidates that the image was picked
    from, in points of severity; empty where there was but one."""

    image: Tensor
    diagnosis: Diagnosis | None
    failure: ParseFailure | None = None
    rewards: tuple[float, ...] = ()


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
        return self.reasoner.diagnose(checked(photo)[None], FIELDS)[0]

    def restore(self, photo: Tensor, diagnosis: Diagnosis | None, seed: int = 0) -> Tensor:
        """Restore (section 3.2). photo: (3, H, W) in [0, 1]; the result has its size. None: nothing is known."""
        return restore(self.restorer, checked(photo), diagnosis, seed)

    def __call__(
        self,
        photo: Tensor,
        overrule: Mapping[str, float] | None = None,
        seed: int = 0,
        best_of: int = 1,
        strength: float = 1.0,
        sure: float = 0.0,
    ) -> Repair:
        """Both. overrule: severities (0: absent) that replace the reasoner's, see :func:`with_severity`. best_of: of so many
        candidates the reasoner picks one, see :func:`best`. strength: how much of the change is made, see :func:`blended`.
        sure: what the reasoner is less sure of is left alone, see :func:`surely`.

        An answer that does not parse is passed on in ``failure``; the photo is then restored by what was overruled
        alone, or without a diagnosis.

        Raises ``ValueError`` for what is no photo, here and in the two phases alone.
        """
        photo = checked(photo)
        answer = self.diagnose(photo)
        failure = answer if isinstance(answer, ParseFailure) else None
        diagnosis = None if failure else surely(answer, sure)
        if overrule:
            diagnosis = diagnosis or Diagnosis()
            for kind, severity in overrule.items():
                diagnosis = with_severity(diagnosis, kind, severity)
        if best_of == 1:
            return Repair(blended(photo, self.restore(photo, diagnosis, seed), strength), diagnosis, failure)
        choice = best(self.reasoner, self.restorer, photo, diagnosis, best_of, seed)
        return Repair(blended(photo, choice.image, strength), diagnosis, failure, choice.rewards)


def checked(photo: Tensor) -> Tensor:
    """``photo`` in float32. Raises ``ValueError`` unless it is (3, H, W), in floating point, and within [0, 1]."""
    if photo.ndim != 3 or len(photo) != 3 or not photo.numel() or not photo.is_floating_point():
        raise ValueError(f"a photo is (3, H, W) in floating point, got {tuple(photo.shape)} in {photo.dtype}")
    low, high = photo.detach().aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"the values of a photo lie within [0, 1], got {low:.4g} to {high:.4g}")
    return photo.float()


def restore(restorer: Restorer, photo: Tensor, diagnosis: Diagnosis | None, seed: int = 0) -> Tensor:
    """(3, H, W) in [0, 1]. photo: the same. What is grey stays grey: restorers know colored photos alone."""
    return grey_as(photo, restorer.restore(photo[None], [diagnosis], [seed])[0])


def blended(photo: Tensor, restored: Tensor, strength: float) -> Tensor:
    """``photo`` with so much of the change to ``restored`` as ``strength`` says: 0 is faithful, the photo as it is, 1 all of
    it. Raises ``ValueError`` for a strength outside [0, 1]."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie within [0, 1], got {strength:g}")
    return photo.lerp(restored, strength)


def grey_as(photo: Tensor, images: Tensor) -> Tensor:
    """``images`` (..., 3, H, W), their channels all the mean of them if those of ``photo`` (3, H, W) are equal."""
    if not photo.eq(photo[:1]).all():
        return images
    return images.mean(dim=-3, keepdim=True).repeat_interleave(3, dim=-3)


@dataclass(frozen=True)
class Choice:
    """image: the candidate that was picked, (3, H, W) in [0, 1]. index: its place. rewards: of all, NaN where the reasoner's
    answer did not parse."""

    image: Tensor
    index: int
    rewards: tuple[float, ...]


@torch.no_grad()
def best(
    reasoner: Reasoner,
    restorer: Restorer,
    photo: Tensor,
    diagnosis: Diagnosis | None,
    count: int,
    seed: int = 0,
    reward: Reward = Reward(),  # noqa: B008  (frozen)
) -> Choice:
    """The candidate of the highest reward among ``count`` of the restorer's rollout. The first of them is what
    :meth:`ReasonAndRestore.restore` gives, and is kept where no other is better. They are made in one batch, in ``count``
    times the memory of one.

    Raises ``ValueError`` for fewer than two, and for a restorer that makes no candidates.
    """
    if count < 2:
        raise ValueError(f"the best of at least 2 candidates can be picked, got {count}")
    if not isinstance(restorer, TrainableRestorer):
        raise ValueError(f"{type(restorer).__name__} makes one result of a photo, and no candidates to pick from")
    images = grey_as(photo, restorer.rollout(photo[None], [diagnosis], [seed], count).clamp(0, 1))
    before = reasoner.severities(photo[None])
    rewards = reward(reasoner, images, photo[None], [diagnosis], before).total[0]
    index = int(rewards.nan_to_num(nan=-torch.inf).argmax())
    return Choice(images[0, index], index, tuple(rewards.tolist()))
