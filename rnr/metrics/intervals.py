"""How sure a mean difference between two restorers is, from the same photos restored by both.

With d_1 ... d_n the differences, photo by photo, of a figure such as PSNR, m their mean and s their (unbiased) standard
deviation, the interval is Student's::

    m +- t_{n-1, (1 + level) / 2} * s / sqrt(n)

Not a bootstrap: this one is deterministic, needs no seed, and for a mean over some tens of photos covers as well or
better (a percentile bootstrap is too narrow for small n). It speaks of other photos like these, not of other runs of
the training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` photos and its confidence interval [``low``, ``high``], in the unit of what was averaged."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], n = {self.n}"


def paired_interval(differences: Tensor | Sequence[float], level: float = 0.95) -> Interval:
    """The interval of the mean of ``differences``, (n,) finite numbers.

    One photo says nothing about spread: n = 1 gives [-inf, inf]. n = 0 gives a mean of NaN and the same interval.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    values = torch.as_tensor(differences, dtype=torch.float64, device="cpu")
    if values.ndim != 1:
        raise ValueError(f"differences must have shape (n,), got {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"differences must be finite, got {values[~values.isfinite()][0].item()}")
    n, mean = len(values), values.mean().item()
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * values.std().item() / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)
