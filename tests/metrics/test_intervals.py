import math

import numpy as np
import pytest
import torch
from scipy import stats

from rnr.metrics.intervals import Interval, paired_interval


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_it_is_the_interval_of_the_paired_t_test(level):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(25, 4, 30), rng.normal(24, 4, 30)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(level)
    interval = paired_interval(ours - theirs, level)
    assert interval.mean == pytest.approx((ours - theirs).mean())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.n == 30


@pytest.mark.parametrize("draw", [np.random.Generator.normal, np.random.Generator.laplace], ids=["normal", "laplace"])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_it_covers_the_true_mean_as_often_as_it_says(draw, n):
    rng = np.random.default_rng(n)
    intervals = [paired_interval(0.7 + draw(rng, size=n)) for _ in range(1500)]
    coverage = np.mean([interval.low <= 0.7 <= interval.high for interval in intervals])
    assert 0.93 <= coverage <= 0.98  # exact for normal differences, a little wide for heavy tails at small n


def test_it_is_deterministic_and_takes_any_sequence_of_numbers():
    values = [0.5, -0.25, 1.0]
    expected = paired_interval(values)
    assert paired_interval(torch.tensor(values)) == paired_interval(np.array(values)) == expected
    assert str(expected) == "+0.417 [-1.146, +1.980], n = 3"


def test_one_photo_says_nothing_about_spread():
    assert paired_interval([1.5]) == Interval(1.5, -math.inf, math.inf, 1)


def test_no_photo_says_nothing_at_all():
    interval = paired_interval([])
    assert math.isnan(interval.mean)
    assert (interval.low, interval.high, interval.n) == (-math.inf, math.inf, 0)


def test_equal_differences_leave_no_doubt():
    assert paired_interval([2.0] * 5) == Interval(2.0, 2.0, 2.0, 5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_differences_must_be_finite(bad):
    with pytest.raises(ValueError, match=f"differences must be finite, got {bad}"):
        paired_interval([0.0, bad])


def test_differences_must_be_one_a_photo():
    with pytest.raises(ValueError, match=r"shape \(n,\), got \(2, 3\)"):
        paired_interval(torch.zeros(2, 3))


@pytest.mark.parametrize("level", [0, 1, 95])
def test_the_level_must_be_a_share(level):
    with pytest.raises(ValueError, match=f"level must lie strictly between 0 and 1, got {level}"):
        paired_interval([0.0, 1.0], level)
