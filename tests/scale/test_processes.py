"""Faults of one process of two: the other does not wait for it for ever, and the run goes on from where it was."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from together import PROCESSES, Task, ends, start, together, train, trained, until

from rnr.stages import RestorerSFT
from rnr.stages.callbacks import REQUEUE

LONG = 100_000


@pytest.fixture
def task(tmp_path) -> Task:
    (photos := tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "0.png")
    return Task("restorer_sft", tmp_path / "run", photos, "DDP", steps=LONG)


def step_of(folder: Path) -> int:
    return torch.load(folder / "checkpoints/last.ckpt")["global_step"]


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_that_dies(victim, task):
    processes = start(train, task)
    until((task.folder / "checkpoints/previous.ckpt").exists)
    processes[victim].kill()
    codes = ends(processes)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1
    said = (task.folder.parent / f"log{1 - victim}").read_text()
    assert "--ckpt_path last goes on from" in said
    reached = step_of(task.folder)
    together(train, replace(task, steps=reached + 2, resume=True))
    assert step_of(task.folder) == reached + 2
    assert load_file(task.folder / "weights/model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("told", [(0,), (1,), (0, 1)])
def test_processes_stop_together_whichever_of_them_is_told_to(told, task):
    processes = start(train, task)
    until((task.folder / "checkpoints/last.ckpt").exists)
    for rank in told:
        os.kill(processes[rank].pid, signal.SIGTERM)
    assert ends(processes) == [REQUEUE] * PROCESSES
    assert f"the state after step {step_of(task.folder)} " in (task.folder.parent / "log0").read_text()


def no_number_on_the_second(task: Task) -> None:
    if os.environ["RANK"] == "1":
        stage = RestorerSFT.training_step

        def step(self, batch, batch_idx):
            self.restorer.loss = lambda *a: next(self.restorer.parameters()).sum() * float("nan")
            return stage(self, batch, batch_idx)

        RestorerSFT.training_step = step
    train(task)


@pytest.mark.slow
def test_a_loss_that_is_no_number_on_one_process_ends_both(task):
    assert ends(start(no_number_on_the_second, task)) == [1, 1]
    said = [(task.folder.parent / f"log{rank}").read_text() for rank in range(PROCESSES)]
    assert "the loss is nan at step 0" in said[1] and "the loss is not finite on another process at step 0" in said[0]


def no_gradient_on_the_second(task: Task) -> None:
    """Its loss is a number until the second step is through; the gradient of that is none."""
    if os.environ["RANK"] == "1":
        stage = RestorerSFT.training_step

        def step(self, batch, batch_idx):
            loss = stage(self, batch, batch_idx)
            loss.register_hook(lambda gradient: gradient * (float("nan") if self.global_step == 1 else 1))
            return loss

        RestorerSFT.training_step = step
    train(task)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["DDP", "FSDP2", "ZeRO-2", "ZeRO-3"])
def test_a_gradient_that_is_no_number_on_one_process_ends_both(strategy, task):
    assert ends(start(no_gradient_on_the_second, replace(task, strategy=strategy))) == [1, 1]
    for rank in range(PROCESSES):
        assert "a gradient is not finite" in (task.folder.parent / f"log{rank}").read_text()
    together(train, replace(task, strategy=strategy, steps=3, resume=True))
    assert all(weight.isfinite().all() for weight in load_file(task.folder / "weights/model.safetensors").values())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["DDP", "FSDP2", "ZeRO-3"])
def test_processes_that_were_cut_off_before_their_weights_write_them(strategy, task):
    task = replace(task, strategy=strategy, steps=2)
    together(train, task)
    before = trained(task.folder)
    (task.folder / "weights").rename(task.folder / "elsewhere")
    together(train, replace(task, resume=True))
    assert before.keys() == (after := trained(task.folder)).keys()
    assert all(weight.equal(after[name]) for name, weight in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["DDP", "ZeRO-3"])
def test_processes_that_go_on_agree_which_weights_were_the_best(strategy, task):
    """Each of ZeRO-3's has a state of its own."""
    task = replace(task, strategy=strategy, steps=2, best=True)
    together(train, task)
    before = trained(task.folder)
    together(train, replace(task, steps=4, resume=True))
    assert all(weight.equal(before[name]) for name, weight in trained(task.folder).items())


def train_apart(task: Task) -> None:
    """Each process sees a folder of its own, of which the second one's is empty."""
    rank = os.environ["RANK"]
    train(replace(task, folder=task.folder / rank, resume=(task.folder / rank / "checkpoints").exists()))


@pytest.mark.slow
def test_processes_that_do_not_see_one_folder_say_so(task):
    together(train, replace(task, folder=task.folder / "0", steps=2))
    assert ends(start(train_apart, task)) == [1, 1]
    said = [(task.folder.parent / f"log{rank}").read_text() for rank in range(PROCESSES)]
    assert "process 1 goes on from step 0, the first one from step 2" in said[1] and "have to see one" in said[0]
