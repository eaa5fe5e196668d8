"""A run that goes on from a checkpoint ends as one that was never disturbed: equal to the bit, wherever it was cut."""

import shutil
from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from safetensors.torch import load_file
from tiny_stages import opinionated, tiny_data, tiny_stage, tiny_trainer

from rnr.stages.callbacks import KeepCheckpoint, SaveWeights

STEPS = 7
SETTINGS = {  # epochs of 3 steps, of 1, and steps of 2 batches; with and without validation in between
    "epochs of 3 steps": ({"visits": 2}, {"limit_val_batches": 1}),
    "epochs of 1 step": ({"visits": 2, "batch_size": 6}, {"limit_val_batches": 1, "check_val_every_n_epoch": 2}),
    "steps of 2 batches": ({"visits": 4}, {"accumulate_grad_batches": 2}),
    "two loader processes": ({"visits": 2, "num_workers": 2}, {}),
}


class Losses(Callback):
    """Of each batch; and a copy of the checkpoint that was written after each step."""

    def __init__(self, copies: Path | None = None) -> None:
        self.of: list[float] = []
        self.copies = copies

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.of.append(outputs["loss"].item())

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        last = Path(trainer.default_root_dir) / "checkpoints/last.ckpt"
        if self.copies and last.exists():
            shutil.copy(last, self.copies / f"{trainer.global_step}.ckpt")


def run(name: str, folder: Path, data: dict, changes: dict, checkpoint: Path | None = None, copies: Path | None = None):
    """The losses of a run, and the weights and the checkpoint that it left. The weights a run begins with, and the state
    of torch's own generator, are others for a run that goes on: neither may count."""
    stage = tiny_stage(name)
    if checkpoint:
        torch.manual_seed(1)
        for parameter in stage.parameters():
            parameter.data += 0.1 * parameter.requires_grad
    if name == "grpo":
        opinionated(stage)
    losses = Losses(copies)
    average = [EMAWeightAveraging(decay=0.7)] if name != "reasoner_sft" else []
    callbacks = [losses, SaveWeights(), *average, KeepCheckpoint(minutes=0)]
    trainer = tiny_trainer(folder, STEPS, callbacks=callbacks, **changes)
    trainer.fit(stage, tiny_data(**data), ckpt_path=checkpoint, weights_only=True)
    assert trainer.global_step == STEPS
    return losses.of, load_file(folder / "weights/model.safetensors"), torch.load(folder / "checkpoints/last.ckpt")


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


EVERY = range(1, STEPS)
CASES = [
    ("restorer_sft", "epochs of 3 steps", (2, 3)),
    ("restorer_sft", "steps of 2 batches", (2,)),
    ("reasoner_sft", "epochs of 3 steps", (2,)),
    ("grpo", "epochs of 3 steps", (2,)),
    *(
        pytest.param(name, setting, EVERY, marks=pytest.mark.slow)
        for name in ("reasoner_sft", "restorer_sft", "grpo")
        for setting in SETTINGS
    ),
]


@pytest.mark.parametrize("name", ["reasoner_sft", "restorer_sft", "grpo"])
def test_a_run_that_was_cut_off_before_its_weights_writes_them(name, tmp_path):
    data, changes = SETTINGS["epochs of 3 steps"]
    _, weights, left = run(name, tmp_path, data, changes)
    shutil.rmtree(tmp_path / "weights")
    losses, same_weights, same_left = run(name, tmp_path, data, changes, tmp_path / "checkpoints/last.ckpt")
    assert not losses and same(same_weights, weights) and same_left["global_step"] == left["global_step"] == STEPS
    written = (tmp_path / "weights").stat().st_mtime_ns
    run(name, tmp_path, data, changes, tmp_path / "checkpoints/last.ckpt")
    assert (tmp_path / "weights").stat().st_mtime_ns == written, "what is there need not be written again"


@pytest.mark.parametrize(("name", "setting", "cuts"), CASES)
def test_a_run_that_goes_on_ends_as_one_that_was_never_disturbed(name, setting, cuts, tmp_path):
    data, changes = SETTINGS[setting]
    (copies := tmp_path / "copies").mkdir()
    losses, weights, left = run(name, tmp_path / "whole", data, changes, copies=copies)
    assert len(set(losses)) == len(losses), "losses that do not tell steps apart"
    batches = len(losses) // STEPS  # a step
    for cut in cuts:
        again, same_weights, same_left = run(name, tmp_path / str(cut), data, changes, copies / f"{cut}.ckpt")
        assert again == losses[cut * batches :], f"cut after step {cut}"
        assert same(same_weights, weights), f"cut after step {cut}"
        for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
            assert same(same_left.get(part), left.get(part)), f"{part}, cut after step {cut}"
