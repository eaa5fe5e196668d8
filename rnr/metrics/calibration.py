"""How sure a reasoner may be: whether what it calls 80 % likely is there 80 % of the time, and the temperature that
makes it so; whether an interval of 90 % holds nine of ten true numbers, and the margin with which it does.

With p_i the chance that was given and y_i in {0, 1} what was so, over n photos::

    Brier score      1/n sum (p_i - y_i)^2
    expected calibration error (ECE)      sum_b n_b / n |mean of p in b - mean of y in b|

The bins b, at most 10, hold equally many photos each, 10 or more: of equal width, most would be empty, since a reasoner is
mostly sure. ECE is never 0 where photos are few, so it stands beside what a reasoner would get by chance that is right
about how sure it is. The rival that never looks always says the base rate, or the middle of the true numbers: well
calibrated, and useless.

Whether a chance tells photos apart is another matter than whether it is right::

    area under the ROC curve (AUC)      share of the pairs of a photo that has it and one that has not, p_i > p_j

It is 1/2 for whoever never looks. Among degradations of one and the same photo it leaves out what photos have by themselves,
such as the haze of a far hill: where it is the higher there, such are what it fails by.
"""

import math
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

BINS = 10
LEAST = 10  # photos in a bin
ROUNDING = 1e-9  # of sums of numbers that are printed in a few decimals: where an interval ends, such a number may be as well
LEVELS = (0.5, 0.8, 0.9)
"""Nominal shares of the intervals that are looked at."""

COLDEST, HOTTEST = 0.5, 10.0
BELIEF = math.log(2)


@dataclass(frozen=True)
class Reliability:
    """Of each bin, (b,): the mean chance that was given, the share of photos where it was so, and how many photos."""

    chance: Tensor
    share: Tensor
    photos: Tensor


@dataclass(frozen=True)
class PresenceFigures:
    """Of the presence of one kind. brier_of_base_rate: of always saying the share of these very photos that have it, a
    rival slightly favoured (its ECE is 0). ece_by_chance: expected if just these chances were right."""

    photos: int
    brier: float
    brier_of_base_rate: float
    ece: float
    ece_by_chance: float


@dataclass(frozen=True)
class IntervalFigures:
    """Of one quantity's intervals at one nominal share. covered: share of the ``numbers`` that lie in theirs. width: mean,
    in the quantity's unit; width_of_rival: of the one interval that holds that share of these very numbers."""

    numbers: int
    covered: float
    width: float
    width_of_rival: float


def presence_figures(chances: Tensor, there: Tensor) -> PresenceFigures:
    """chances: (n,) in [0, 1]. there: (n,) bool. NaN for no photos."""
    rate = there.double().mean()
    bins = reliability(chances, there)
    weight = bins.photos / bins.photos.sum()
    # A bin's share of n_b events of chances p_i is about normal, and E|Z| = sqrt(2 / pi) for a standard normal Z.
    spread = torch.stack([(part * (1 - part)).sum().sqrt() / len(part) for part in _bins(chances.sort().values.double())])
    return PresenceFigures(
        photos=len(there),
        brier=(chances.double() - there.double()).square().mean().item(),
        brier_of_base_rate=(rate * (1 - rate)).item(),
        ece=(weight * (bins.chance - bins.share).abs()).sum().item(),
        ece_by_chance=(weight * spread).sum().item() * math.sqrt(2 / math.pi),
    )


def area_under_roc(chances: Tensor, there: Tensor, group: Tensor | None = None) -> float:
    """Share of the pairs of one that has it and one that has not in which the former was given the higher chance, ties by
    half; NaN for no pairs. chances: (n,) in [0, 1]. there: (n,) bool. group: (n,), given, only pairs within one count."""
    higher = chances[there][:, None] - chances[~there]
    won = (higher > 0).double() + (higher == 0).double() / 2
    if group is not None:
        won = won[group[there][:, None] == group[~there]]
    return won.mean().item()


def reliability(chances: Tensor, there: Tensor) -> Reliability:
    """The points of the reliability curve: photos in order of their chances, in parts as equal as can be; of photos with one
    and the same chance each counts as their mean. chances: (n,) in [0, 1]. there: (n,) bool."""
    values, place, count = chances.unique(return_inverse=True, return_counts=True)
    share = torch.zeros(len(values), dtype=torch.float64).index_add_(0, place, there.double()) / count
    order = chances.argsort()
    given, found = _bins(chances[order].double()), _bins(share[place][order])
    return Reliability(
        torch.stack([part.mean() for part in given]),
        torch.stack([part.mean() for part in found]),
        torch.tensor([len(part) for part in given]),
    )


def covered(intervals: Tensor, truth: Tensor, period: float | None = None) -> Tensor:
    """(n,) bool: which of ``truth`` (n,) lie within ``intervals`` (n, 2), ends included. Those of a quantity that returns to
    0 after ``period`` may reach beyond it."""
    low, high = intervals.double().unbind(dim=1)
    low, high = low - ROUNDING, high + ROUNDING
    ahead = truth.double() - low
    return (ahead >= 0) & (ahead <= high - low) if period is None else ahead % period <= high - low


def margin(intervals: Tensor, truth: Tensor, share: float, period: float | None = None) -> float:
    """How far both ends of ``intervals`` (n, 2) are to be moved outwards so that they cover a ``share`` of numbers like
    ``truth`` (n,), which the intervals were not made by: conformalized quantile regression (Romano et al., NeurIPS 2019), the
    ceil((n + 1) share)-th least distance of a number from its interval, below 0 for those inside. As far as the farthest
    where n is too small for that; 0 for none."""
    low, high = intervals.double().unbind(dim=1)
    middle, half = (low + high) / 2, (high - low) / 2
    away = (truth.double() - middle).abs()
    if period is not None:
        away = away % period
        away = torch.minimum(away, period - away)
    rank = min(math.ceil((len(truth) + 1) * share), len(truth))
    return (away - half).sort().values[rank - 1].item() if rank else 0.0


def interval_figures(intervals: Tensor, truth: Tensor, share: float, period: float | None = None) -> IntervalFigures:
    """intervals: (n, 2), of nominal ``share``. truth: (n,). NaN for no numbers."""
    width = (intervals[:, 1] - intervals[:, 0]).double().mean().item()
    inside = covered(intervals, truth, period).double().mean().item()
    return IntervalFigures(len(truth), inside, width, _width(truth.double(), share, period))


def temperature(log_probabilities: Tensor, chosen: Tensor) -> float:
    """The T in [:data:`COLDEST`, :data:`HOTTEST`] that makes what was so likeliest, once l is divided by it.

    log_probabilities: l, (n, m), of n choices among up to m, -inf where there are fewer. chosen: (n,) int64, which of them
    was right. Found on choices that were not trained on; as likelihood weighs every one of them, tens of photos are enough.
    Before any is seen, T is believed to be log-normal around 1,
    with a factor of 2 as its standard deviation: where a reasoner made no mistake in a few photos, that does not make it
    infinitely sure. No choices give 1.
    """
    scores = log_probabilities.double()

    def surprise(log_t: float) -> float:
        likelihood = (scores / math.exp(log_t)).log_softmax(dim=1).gather(1, chosen[:, None]).sum().item()
        return (log_t / BELIEF) ** 2 / 2 - likelihood

    found = minimize_scalar(surprise, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return math.exp(found.x)


def _bins(values: Tensor) -> tuple[Tensor, ...]:
    return values.tensor_split(min(BINS, max(len(values) // LEAST, 1)))


def _width(values: Tensor, share: float, period: float | None) -> float:
    """Between which the middle ``share`` of ``values`` (n,) lies; of an angle, around the direction of their mean vector."""
    if len(values) == 0:
        return math.nan
    if period is not None:
        turn = 2 * math.pi / period * values
        start = torch.atan2(turn.sin().mean(), turn.cos().mean()) / (2 * math.pi) * period - period / 2
        values = (values - start) % period
    low, high = values.quantile(torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=values.dtype))
    return (high - low).item()
