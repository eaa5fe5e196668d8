"""Checkpoints of several files, what becomes of processes whose first one fails, and what Ctrl-C leaves."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import load_file
from tiny_stages import tiny_data, tiny_stage, tiny_trainer

from rnr.data.datamodule import Sources
from rnr.data.photos import PhotoError
from rnr.stages import callbacks
from rnr.stages.best import BestAverage
from rnr.stages.callbacks import KeepCheckpoint, SaveWeights, Stopped
from rnr.stages.checkpoints import fault_of, seal


@pytest.fixture
def sealed(tmp_path):
    """A part of each of two processes, as DeepSpeed writes them, and one of FSDP2."""
    (tmp_path / "checkpoint").mkdir()
    for rank in range(2):
        torch.save({"weight": torch.full((1000,), rank)}, tmp_path / f"checkpoint/zero_pp_rank_{rank}_states.pt")
    (tmp_path / "__0_0.distcp").write_bytes(bytes(100))
    seal(tmp_path)
    assert fault_of(tmp_path) is None
    return tmp_path


def test_a_part_that_is_missing_or_cut_short_is_seen(sealed):
    part = sealed / "checkpoint/zero_pp_rank_1_states.pt"
    part.write_bytes(part.read_bytes()[:-1])
    assert "checkpoint/zero_pp_rank_1_states.pt has another size" in fault_of(sealed)
    part.unlink()
    assert "not all of its files are there" in fault_of(sealed)


def test_a_bit_that_changed_in_a_part_is_seen(sealed):
    part = sealed / "checkpoint/zero_pp_rank_1_states.pt"
    content = bytearray(part.read_bytes())
    content[content.index(torch.full((1000,), 1).numpy().tobytes()) + 4000] ^= 1
    part.write_bytes(content)
    fault = fault_of(sealed)
    assert "checksum" in fault and fault.endswith("in checkpoint/zero_pp_rank_1_states.pt)")


def test_a_folder_that_was_never_sealed_is_torn(sealed):
    (sealed / "contents.json").unlink()
    assert "not all of its files are there" in fault_of(sealed)


def test_an_average_that_would_come_after_the_checkpoint_is_refused(tmp_path):
    trainer = tiny_trainer(tmp_path, 1, callbacks=[KeepCheckpoint(), BestAverage()])
    with pytest.raises(MisconfigurationException, match="BestAverage must stand before KeepCheckpoint"):
        trainer.fit(tiny_stage("restorer_sft"), tiny_data())


def test_processes_that_a_failing_one_started_do_not_wait_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "GRACE", 0.1)
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[waiting])), default_root_dir=tmp_path, ckpt_path=None
    )
    KeepCheckpoint().on_exception(trainer, None, OSError("no space left"))
    assert waiting.wait(10) < 0


def test_a_run_that_never_began_does_not_speak_of_anothers_checkpoint(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"an earlier run's")
    with pytest.raises(PhotoError):
        tiny_trainer(tmp_path, 1, callbacks=[KeepCheckpoint()]).fit(
            tiny_stage("restorer_sft"), tiny_data(sources=Sources(train=[str(tmp_path / "nowhere")]))
        )
    assert "--ckpt_path last" not in capsys.readouterr().err


class Impatient(Callback):
    """Presses Ctrl-C as step 4 begins, or twice in the validation after step 2."""

    def __init__(self, validation=False):
        self.validation, self.seen = validation, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.validation and trainer.global_step == 2:
            self.seen = {name: value.clone() for name, value in pl_module.restorer.state_dict().items()}
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)


def test_after_ctrl_c_the_average_is_left(tmp_path):
    """It is what was validated, and what the run would have left at its end."""
    callbacks = [SaveWeights(), EMAWeightAveraging(decay=0.5), KeepCheckpoint(minutes=0), Impatient()]
    with pytest.raises(Stopped):
        tiny_trainer(tmp_path, 9, callbacks=callbacks).fit(tiny_stage("restorer_sft"), tiny_data())
    written = load_file(tmp_path / "weights" / "model.safetensors")
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    for name, value in written.items():
        assert torch.equal(value, state["state_dict"][f"restorer.{name}"])
    assert any(not torch.equal(value, state["current_model_state"][f"restorer.{name}"]) for name, value in written.items())


def test_after_ctrl_c_in_a_validation_too(tmp_path):
    """There the average has taken the model's place already."""
    impatient = Impatient(validation=True)
    callbacks = [SaveWeights(), EMAWeightAveraging(decay=0.5), KeepCheckpoint(minutes=0), impatient]
    often = {"limit_val_batches": 1, "val_check_interval": 1}
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        tiny_trainer(tmp_path, 9, callbacks=callbacks, **often).fit(tiny_stage("restorer_sft"), tiny_data())
    written = load_file(tmp_path / "weights" / "model.safetensors")
    assert impatient.seen and all(torch.equal(value, impatient.seen[name]) for name, value in written.items())


def test_before_the_first_average_ctrl_c_leaves_the_weights_themselves(tmp_path):
    class Late(EMAWeightAveraging):
        def should_update(self, step_idx=None, epoch_idx=None):
            return False

    callbacks = [SaveWeights(), Late(decay=0.5), KeepCheckpoint(minutes=0), Impatient()]
    with pytest.raises(Stopped):
        tiny_trainer(tmp_path, 9, callbacks=callbacks).fit(stage := tiny_stage("restorer_sft"), tiny_data())
    written = load_file(tmp_path / "weights" / "model.safetensors")
    assert all(torch.equal(value, stage.restorer.state_dict()[name]) for name, value in written.items())
