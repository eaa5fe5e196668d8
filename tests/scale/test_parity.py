"""The same steps of every stage by one process and by two, under DDP, FSDP2 and DeepSpeed's own engine."""

import numpy as np
import pytest
import torch
from PIL import Image
from together import PROCESSES, STRATEGIES, Task, stage_of, together, train, trained

QUICK = ("restorer_sft", "DDP")
STAGES = ("reasoner_sft", "restorer_sft", "grpo")
RUNS = [
    *(
        pytest.param(stage, strategy, marks=pytest.mark.slow)
        for stage in STAGES
        for strategy in STRATEGIES
        if (stage, strategy) != QUICK
    ),
    *(pytest.param("grpo edit", strategy, marks=pytest.mark.slow) for strategy in ("DDP", "FSDP2", "ZeRO-3")),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three of two sizes: one process validates two of them, the other one."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i, size in enumerate([(40, 48), (40, 48), (48, 40)]):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, photos):
    """By stage: the folder, the losses of each step and the figures of a run by one process."""
    runs = {}

    def run(name: str):
        if name not in runs:
            import multiprocessing

            folder = tmp_path_factory.mktemp(name)
            with multiprocessing.get_context("forkserver").Pool(1) as pool:
                losses, figures = pool.apply(train, (Task(name, folder, photos),))
            runs[name] = folder, torch.tensor(losses).view(-1, PROCESSES).sum(dim=1), figures  # each is halved
        return runs[name]

    return run


@pytest.mark.parametrize(("stage", "strategy"), [QUICK, *RUNS])
def test_three_steps_agree(stage, strategy, alone, photos, tmp_path):
    folder, losses, figures = alone(stage)
    found = together(train, Task(stage, tmp_path, photos, strategy))
    mean = torch.tensor([each for each, _ in found]).mean(dim=0)
    torch.testing.assert_close(mean, losses, rtol=1e-4, atol=0)
    weights, expected = (trained(root) for root in (tmp_path, folder))
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    for _, each in found:
        assert each == pytest.approx(figures, rel=1e-3, abs=1e-3, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ZeRO-2", "ZeRO-3"])
def test_deepspeed_makes_the_steps_that_are_counted(strategy, photos, tmp_path):
    """Of two batches each in epochs of three: the last of an epoch goes with the first two of the next, where DeepSpeed's own
    count would have it go with the first."""
    found = together(train, Task("restorer_sft", tmp_path, photos, strategy, steps=3, accumulate=2))
    for losses, figures in found:
        assert len(losses) == 8 and figures["steps"] == 3


@pytest.mark.parametrize(("stage", "strategy"), [pytest.param(*QUICK, marks=pytest.mark.slow), *RUNS])
def test_a_run_of_two_processes_goes_on(stage, strategy, photos, tmp_path):
    whole = Task(stage, tmp_path / "whole", photos, strategy, steps=4)
    undisturbed = together(train, whole)
    cut = Task(stage, tmp_path / "cut", photos, strategy, steps=4, stop_after=2)
    before = together(train, cut)
    after = together(train, Task(stage, cut.folder, photos, strategy, steps=4, resume=True))
    for all_, first, last in zip(undisturbed, before, after, strict=True):
        assert first[0] + last[0] == pytest.approx(all_[0], rel=1e-6)
    expected, weights = (trained(root) for root in (whole.folder, cut.folder))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["DDP", "FSDP2", "ZeRO-3"])
def test_the_best_weights_of_a_sharded_model_are_left(strategy, photos, tmp_path):
    """Those after the first step, by a run of three, are those of a run of one."""
    best = Task("grpo", tmp_path / "best", photos, strategy, steps=3, best=True)
    one = Task("grpo", tmp_path / "one", photos, strategy, steps=1)
    for task in (best, one):
        together(train, task)
    expected, weights = (trained(task.folder) for task in (one, best))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    start = stage_of("grpo").restorer.state_dict()
    assert any(not torch.equal(start[name], tensor) for name, tensor in weights.items())
