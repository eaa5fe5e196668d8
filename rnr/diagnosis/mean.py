"""The mean of one quantity's numbers; of those that return to 0 after a period, as directions do, that of the mean vector:

    P / (2 pi) atan2( sum w_i sin(2 pi x_i / P), sum w_i cos(2 pi x_i / P) )  mod P
"""

import math
from collections.abc import Sequence


def mean_of(values: Sequence[float], period: float | None = None, weights: Sequence[float] | None = None) -> float:
    """values: at least one. weights: of each, in sum 1; None: all the same. Weights may be scalar tensors, whose gradient the
    mean of what has no period keeps."""
    weights = [1 / len(values)] * len(values) if weights is None else weights
    if period is None:
        return sum(weight * value for value, weight in zip(values, weights, strict=True))
    turns = [2 * math.pi * value / period for value in values]
    sine, cosine = (sum(w * wave(turn) for turn, w in zip(turns, weights, strict=True)) for wave in (math.sin, math.cos))
    return math.atan2(sine, cosine) / (2 * math.pi) * period % period
