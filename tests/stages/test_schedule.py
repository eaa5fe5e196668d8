import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from rnr.stages.optimizer import Schedule


def test_rate_climbs_then_falls_along_a_half_cosine():
    schedule = Schedule(warmup=10, final=0.1)
    factors = [schedule.factor(step, 110) for step in range(111)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[60] == pytest.approx((1 + 0.1) / 2)
    assert factors[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(factors[10:]))


def test_rate_stays_where_a_run_has_no_end():
    assert Schedule(warmup=5).factor(10**6, math.inf) == 1.0


def test_vectors_are_not_decayed_and_frozen_parameters_left_out():
    model = nn.Linear(3, 2)
    frozen = nn.Linear(3, 2).requires_grad_(False)
    optimizer = Schedule(weight_decay=0.5).configure([*model.parameters(), *frozen.parameters()], 100)["optimizer"]
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.5 and [p.ndim for p in decayed["params"]] == [2]
    assert plain["weight_decay"] == 0 and [p.ndim for p in plain["params"]] == [1]
    assert isinstance(optimizer, torch.optim.AdamW)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="learning_rate must be above 0, got 0"):
        Schedule(learning_rate=0)
