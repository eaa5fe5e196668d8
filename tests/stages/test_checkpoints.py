"""Checkpoints of several files, and what becomes of processes whose first one fails."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from rnr.stages import callbacks
from rnr.stages.callbacks import KeepCheckpoint
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


def test_processes_that_a_failing_one_started_do_not_wait_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "GRACE", 0.1)
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[waiting])), default_root_dir=tmp_path
    )
    KeepCheckpoint().on_exception(trainer, None, OSError("no space left"))
    assert waiting.wait(10) < 0
