import math
from itertools import pairwise

import pytest
import torch
from tiny_stages import tiny_data, tiny_stage, tiny_trainer
from torch import nn

from rnr.stages.optimizer import Schedule
from rnr.stages.stage import trainable


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
    parameters = [*model.named_parameters(), *frozen.named_parameters()]
    optimizer = Schedule(weight_decay=0.5).configure(parameters, 100)["optimizer"]
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.5 and [p.ndim for p in decayed["params"]] == [2]
    assert plain["weight_decay"] == 0 and [p.ndim for p in plain["params"]] == [1]
    assert isinstance(optimizer, torch.optim.AdamW)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="learning_rate must be above 0, got 0"):
        Schedule(learning_rate=0)


def test_a_part_may_have_a_rate_of_its_own():
    schedule = Schedule(learning_rate=1e-3, rates={"visual.": 1e-5, "visual.merger.": 1e-4})
    visual = nn.ModuleDict({"merger": nn.Linear(2, 2), "block": nn.Linear(2, 2)})
    parts = nn.ModuleDict({"visual": visual, "head": nn.Linear(2, 2)})
    optimizer = schedule.configure(parts.named_parameters(), 100)["optimizer"]
    found = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parts.named_parameters():
        expected = 1e-4 if "merger" in name else 1e-5 if "visual" in name else 1e-3
        assert found[id(parameter)] == expected, name
    with pytest.raises(ValueError, match=r"visual\. must be above 0, got 0"):
        Schedule(rates={"visual.": 0.0})


def test_what_is_trained_is_said_part_by_part():
    model = nn.ModuleDict({"visual": nn.ModuleDict({"merger": nn.Linear(2, 3), "block": nn.Linear(2, 2)})})
    model["visual"]["block"].requires_grad_(False)
    lines = [line.split() for line in trainable(model).splitlines()]
    assert lines == [["visual.merger", "9", "of", "9", "trained"], ["visual.block", "0", "of", "6", "trained"]]


def test_a_fit_says_what_is_trained_before_it_begins(tmp_path, caplog):
    stage = tiny_stage("reasoner_sft")
    with caplog.at_level("INFO"):
        tiny_trainer(tmp_path, 1).fit(stage, tiny_data())
    (said,) = [record.message for record in caplog.records if record.message == trainable(stage)]
    assert "language_model.layers" in said
