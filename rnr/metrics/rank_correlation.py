"""Spearman's rank correlation."""

import math

from scipy import stats
from torch import Tensor


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Of two (n,), in [-1, 1]. NaN where one of them is the same throughout, has numbers that are not finite, or none."""
    if len(a) == 0 or not (a.isfinite().all() and b.isfinite().all()) or a.min() == a.max() or b.min() == b.max():
        return math.nan
    return float(stats.spearmanr(a.double().cpu().numpy(), b.double().cpu().numpy()).statistic)
