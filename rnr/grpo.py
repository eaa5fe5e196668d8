"""Group relative policy optimisation of the restorer with diagnostic rewards: section 3.3 and Algorithm 1.

For one degraded photo I with clean image J, the restorer makes a group of N candidates J_1 ... J_N. With s_i the
severity that the frozen reasoner gives to degradation i, 0 where absent::

    r_k      = sum_i (s_i(I) - s_i(J_k))                               reward
    A_k      = (r_k - mean(r)) / std(r)                                advantage, over the group
    E_k      = mean over pixels of (J_k - J)^2                         energy
    log P_k  = log( exp(-E_k / tau) / sum_j exp(-E_j / tau) )          policy (Eq. 6, with the log it lacks)
    L        = -1/N sum_k A_k log P_k                                  loss

The advantages of a group sum to zero, so the normaliser of P drops out and L = 1/(N tau) sum_k A_k E_k, exactly: s(I)
cancels, tau only scales the gradient, and nothing stops a candidate with A_k < 0 from moving away from J for ever.
:class:`Anchored` and :class:`AdvantageWeighted` are bounded below; :class:`Algorithm1` is kept to the letter.

Algorithm 1 is no policy gradient: that would raise the likelihood of good candidates, whatever their distance to J. For a
policy that draws J_k around what it predicts, log pi(J_k) = -E_k / tau up to a constant, with E_k the distance between
prediction and *candidate*, J_k held fixed. :class:`PolicyGradient` is REINFORCE with such energies, and it needs no J.
Whose energies a run uses is the choice of :mod:`rnr.stages.aims`; the losses are the same functions of them.

Pure functions on tensors of shape (B, N): B groups, one a photo, of N candidates.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Advantages:
    """``values``: (B, N), zero throughout a group that is not used. ``used``: (B,) bool, the groups to learn from."""

    values: Tensor
    used: Tensor

    def __post_init__(self) -> None:
        _check(self.values, "advantages", "(B, N)", 2)
        if self.used.shape != self.values.shape[:1] or self.used.dtype != torch.bool:
            raise ValueError(
                f"used must be a bool for each of {len(self.values)} groups, "
                f"got {self.used.dtype} of shape {tuple(self.used.shape)}"
            )


def rewards(before: Tensor, after: Tensor) -> Tensor:
    """Summed severity reduction r_k, (B, N). NaN where an answer did not parse.

    before: (B, 4), severities of the degraded photos; after: (B, N, 4), of their candidates, absence as 0, a row
    of NaN where there is none: a NaN in ``before`` makes the whole group NaN.
    """
    _check(before, "before", "(B, kinds)", 2)
    _check(after, "after", "(B, N, kinds)", 3)
    if (after.shape[0], after.shape[2]) != tuple(before.shape):
        raise ValueError(f"before {tuple(before.shape)} and after {tuple(after.shape)} differ in photos or in kinds")
    return (before[:, None] - after).sum(dim=-1)


def advantages(rewards: Tensor, floor: float) -> Advantages:
    """A_k = (r_k - mean(r)) / std(r) over each group. rewards: (B, N). No gradient.

    A group is not used where its std is below ``floor`` (in points of reward: dividing by next to nothing would blow
    rounding errors up to full size) or where a reward is not finite (a missing candidate shifts the others' mean).

    The std is the biased one (divided by N). The group is all there is to normalise, not a sample of something larger,
    and the mean of A^2 is then 1 for every N, so that a learning rate outlives a change of N; a group of one has std 0.
    """
    _check(rewards, "rewards", "(B, N)", 2)
    _check_positive("floor", floor)
    centred = rewards.detach() - rewards.detach().mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    used = spread >= floor  # a reward that is not finite makes the spread NaN, which is not >= anything
    return Advantages(torch.where(used, centred / spread, 0), used.squeeze(1))


def energies(candidates: Tensor, clean: Tensor) -> Tensor:
    """E_k, (B, N): mean squared error over channels and pixels. candidates: (B, N, 3, H, W), clean: (B, 3, H, W).

    The mean and not the sum of section 3.3: the sum grows with the image (10^5 times the mean at 256 x 256), and tau
    would have to grow with it. So tau is in units of mean squared error: 0.01 is an error of 20 dB.
    """
    _check(candidates, "candidates", "(B, N, 3, H, W)", 5)
    if clean.shape != candidates.shape[:1] + candidates.shape[2:]:
        raise ValueError(f"clean {tuple(clean.shape)} does not fit candidates {tuple(candidates.shape)}")
    return distances(candidates, clean[:, None])


def distances(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference over all but the first two dimensions, (B, N), of what broadcasts to (B, N, ...)."""
    precise = torch.promote_types(predicted.dtype, torch.float32)  # bf16 lacks the digits in which candidates differ
    return (predicted.to(precise) - target.to(precise)).square().flatten(2).mean(dim=2)


def log_policy(energies: Tensor, tau: float) -> Tensor:
    """log P_k, (B, N): log softmax of -E / tau over each group. energies: (B, N)."""
    return torch.log_softmax(-energies / tau, dim=1)


class PolicyLoss(ABC):
    """A loss that lowers the energy of candidates with high advantage. Groups that are not used give no gradient."""

    def __call__(self, energies: Tensor, advantages: Advantages) -> Tensor:
        """A scalar: mean over all groups, those that are not used as 0 (and still part of the graph). energies: (B, N).

        A mean over the used ones alone would weigh a group by how many others its process happens to use.
        """
        if energies.shape != advantages.values.shape:
            raise ValueError(
                f"energies {tuple(energies.shape)} and advantages {tuple(advantages.values.shape)} differ in shape"
            )
        used = advantages.used
        losses = self.of_groups(energies[used], advantages.values[used])
        return losses.sum() / max(len(used), 1)

    @abstractmethod
    def of_groups(self, energies: Tensor, advantages: Tensor) -> Tensor:
        """The loss of each group, (U,). energies, advantages: (U, N)."""


@dataclass(frozen=True)
class Algorithm1(PolicyLoss):
    """Algorithm 1 to the letter: -1/N sum_k A_k log P_k. Not bounded below: see the head of this module."""

    tau: float

    def __post_init__(self) -> None:
        _check_positive("tau", self.tau)

    def of_groups(self, energies: Tensor, advantages: Tensor) -> Tensor:
        return -(advantages * log_policy(energies, self.tau)).mean(dim=1)


@dataclass(frozen=True)
class Anchored(PolicyLoss):
    """Algorithm 1 plus ``weight`` times the mean squared error, each candidate's total weight kept at 0 or above.

    Algorithm1 + weight * mean(E) = 1/N sum_k (A_k / tau + weight) E_k. No candidate must be paid for a larger error, so
    what falls below 0 is clipped: L = 1/N sum_k max(0, A_k / tau + weight) E_k >= 0, and 0 where every candidate that
    counts is the clean image. Since A_k >= -sqrt(N - 1), nothing is clipped from weight = sqrt(N - 1) / tau on. With
    weight = 0 only candidates of positive advantage count.
    """

    tau: float
    weight: float

    def __post_init__(self) -> None:
        _check_positive("tau", self.tau)
        _check_weight(self.weight)

    def of_groups(self, energies: Tensor, advantages: Tensor) -> Tensor:
        return ((advantages / self.tau + self.weight).clamp(min=0) * energies).mean(dim=1)


@dataclass(frozen=True)
class AdvantageWeighted(PolicyLoss):
    """Cross-entropy between the target q = softmax(A / temperature) and the policy: -sum_k q_k log P_k.

    Bounded below by the entropy of q, reached where E_k = -tau A_k / temperature up to a constant of the group. Of that
    constant it says nothing: only differences of energies count. ``weight`` times the mean energy is added where the level
    matters.
    """

    tau: float
    temperature: float
    weight: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("tau", self.tau)
        _check_positive("temperature", self.temperature)
        _check_weight(self.weight)

    def of_groups(self, energies: Tensor, advantages: Tensor) -> Tensor:
        target = torch.softmax(advantages / self.temperature, dim=1)
        return -(target * log_policy(energies, self.tau)).sum(dim=1) + self.weight * energies.mean(dim=1)


@dataclass(frozen=True)
class PolicyGradient(PolicyLoss):
    """1/(N tau) sum_k max(-1, min(1, A_k / clip)) E_k, with E_k the distance to the candidate itself (see the module).

    One step is taken on each group, from the very weights that drew it. There the importance ratio is 1, and the gradient
    is that of GRPO's clipped objective and, candidates' energies being flow-matching errors, of advantage-weighted
    matching and of DiffusionNFT (Zheng et al., 2025), whose optimality probability is (1 + A_k / clip) / 2: the three
    differ only off policy. Not bounded below as a function of E, but E is drawn anew each step.
    """

    tau: float
    clip: float = 5.0

    def __post_init__(self) -> None:
        _check_positive("tau", self.tau)
        _check_positive("clip", self.clip)

    def of_groups(self, energies: Tensor, advantages: Tensor) -> Tensor:
        return ((advantages / self.clip).clamp(-1, 1) * energies).mean(dim=1) / self.tau


@dataclass(frozen=True)
class Supervised(PolicyLoss):
    """The control: ``weight`` times the mean energy of all groups, whatever their rewards. With the same start, steps, data
    and schedule it shows what further training alone brings; ``weight`` is that of the :class:`Anchored` beside it."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("weight", self.weight)

    def __call__(self, energies: Tensor, advantages: Advantages) -> Tensor:
        everyone = torch.ones_like(advantages.used)
        return super().__call__(energies, Advantages(torch.zeros_like(advantages.values), everyone))

    def of_groups(self, energies: Tensor, advantages: Tensor) -> Tensor:
        return self.weight * energies.mean(dim=1)


def _check(tensor: Tensor, name: str, shape: str, dimensions: int) -> None:
    if tensor.ndim != dimensions:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")


def _check_weight(weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be a finite number of at least 0, got {weight}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value}")
