"""What can happen to a run: each ends in a message that says what to do, and loses nothing that was written before."""

import json
import shutil
import signal
import subprocess
import time
import zipfile

import pytest
from faults import FilesUpTo, NotANumberAt, equal, no_network, step_of, weights
from runs import STEPS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed"])
def test_a_torn_checkpoint_is_seen_and_the_one_before_it_used(damage, runs, undisturbed):
    root = runs.folder / "run"
    assert runs.fit(root, "--trainer.max_steps=5").code == 0
    last = root / "checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "changed":
        with zipfile.ZipFile(last) as archive:  # between its parts it is filled up with bytes that nobody reads
            largest = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
        content[content.index(largest) + len(largest) // 2] ^= 1
    last.write_bytes(content[: {"cut": len(content) - 100, "emptied": 0, "changed": len(content)}[damage]])
    # The schedule of a run of other length differs, so this one is not compared with the undisturbed one.
    again = runs.fit(root, "--ckpt_path=last")
    assert again.code == 0, again.said
    assert "last.ckpt: a torn checkpoint" in again.said and "going on from the checkpoint before it" in again.said
    assert "previous.ckpt" in again.said and step_of(last) == STEPS


def test_without_a_whole_checkpoint_a_run_says_so(runs):
    root = runs.folder / "run"
    assert runs.fit(root, "--trainer.max_steps=2").code == 0
    for path in (root / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    end = runs.fit(root, "--ckpt_path=last")
    assert end.code == 1
    assert "last.ckpt: a torn checkpoint" in end.said.splitlines()[-1] and "previous.ckpt" in end.said.splitlines()[-1]


def test_a_limit_on_file_sizes(runs, undisturbed):
    root = runs.folder / "run"
    assert runs.fit(root, "--trainer.max_steps=3").code == 0
    kept = (root / "checkpoints/last.ckpt").read_bytes()
    end = runs.fit(root, "--ckpt_path=last", before=FilesUpTo(len(kept) // 2))
    assert end.code == 1
    assert end.said.splitlines()[-1].startswith("error: ") and "File too large" in end.said.splitlines()[-1]
    assert (root / "checkpoints/last.ckpt").read_bytes() == kept
    assert not list((root / "checkpoints").glob("*.new"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB; only root can have it."""
    (disk := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not possible here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(runs, small_disk, undisturbed):
    root = small_disk / "run"
    end = runs.fit(root, "--trainer.logger=false")
    assert end.code == 1
    assert end.said.splitlines()[-1].startswith("error: ") and "No space left" in end.said.splitlines()[-1]
    step = step_of(root / "checkpoints/last.ckpt")
    assert step >= 1
    shutil.copytree(root, runs.folder / "moved")  # to where there is space
    assert runs.fit(runs.folder / "moved", "--ckpt_path=last", "--trainer.logger=false").code == 0
    assert equal(weights(runs.folder / "moved"), weights(undisturbed))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_photo_that_is_corrupt_in_the_middle_of_an_epoch(workers, runs, undisturbed):
    whole = (runs.photos / "3.png").read_bytes()
    (runs.photos / "3.png").write_bytes(whole[:200])
    root = runs.folder / "run"
    end = runs.fit(root, f"--data.num_workers={workers}")
    assert end.code == 1
    assert end.said.splitlines()[-1].startswith(f"error: {runs.photos / '3.png'}: cannot be read as a photo")
    (runs.photos / "3.png").write_bytes(whole)
    assert runs.fit(root, "--ckpt_path=last").code == 0
    assert equal(weights(root), weights(undisturbed))


def test_a_folder_of_photos_that_vanishes(runs, undisturbed):
    root = runs.folder / "run"
    run = runs.start(root, "--trainer.max_steps=100000")
    run.wait_for((root / "checkpoints/last.ckpt").exists)
    runs.photos.rename(runs.folder / "elsewhere")
    end = run.end()
    assert end.code == 1 and end.said.splitlines()[-1].endswith(".png: no such file")
    assert step_of(root / "checkpoints/last.ckpt") >= 1


def test_a_loss_that_is_no_number(runs, undisturbed):
    root = runs.folder / "run"
    end = runs.fit(root, before=NotANumberAt(4))
    assert end.code == 1 and "error: the loss is nan at step 4" in end.said
    assert step_of(root / "checkpoints/last.ckpt") == 4
    assert runs.fit(root, "--ckpt_path=last").code == 0
    assert equal(weights(root), weights(undisturbed))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=["TERM", "USR1", "INT"]
)
def test_being_told_to_stop(number, code, runs):
    root, length = runs.folder / "run", "--trainer.max_steps=100000"
    run = runs.start(root, length, "--trainer.callbacks.minutes=1000")
    run.wait_for(lambda: any(root.rglob("events.*")))
    time.sleep(1)
    run.tell(number)
    end = run.end()
    assert end.code == code, end.said
    assert "told to stop: the state after step" in end.said and "--ckpt_path last goes on from it" in end.said
    stopped = step_of(root / "checkpoints/last.ckpt")
    assert stopped >= 1 and f"after step {stopped} " in end.said
    assert (root / "weights").exists() == (number == signal.SIGINT)
    again = runs.start(root, length, "--ckpt_path=last")
    again.wait_for(lambda: (root / "checkpoints/previous.ckpt").exists())
    again.tell(signal.SIGTERM)
    assert again.end().code == 75
    assert step_of(root / "checkpoints/last.ckpt") > stopped


def test_two_runs_in_one_folder(runs):
    root, quiet = runs.folder / "run", "--trainer.logger=false"
    first = runs.start(root, "--trainer.max_steps=100000", quiet)
    first.wait_for((root / "checkpoints/last.ckpt").exists)
    config = (root / "config.yaml").read_bytes()
    first.log = first.log.rename(first.log.with_name("first.txt"))
    end = runs.fit(root, "--trainer.max_steps=2", quiet)
    assert end.code == 1
    assert f"{root}: another run (process {first.process.pid} on " in end.said
    assert "trainer.default_root_dir of its own" in end.said
    assert (root / "config.yaml").read_bytes() == config, "the first run's configuration is overwritten"
    first.tell(signal.SIGTERM)
    assert first.end().code == 75
    assert runs.fit(root, "--trainer.max_steps=2", quiet).code == 0, "the lock outlives its run"


def test_output_that_cannot_be_written(runs):
    (runs.folder / "file").write_text("")
    end = runs.fit(runs.folder / "file" / "run")
    assert end.code == 1
    assert end.said.splitlines()[-1].startswith("error: [Errno 20] Not a directory")


def test_a_disk_that_may_only_be_read(runs, small_disk):
    if subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True).returncode:
        pytest.skip("remounting is not possible here")
    end = runs.fit(small_disk / "run")
    assert end.code == 1
    assert end.said.splitlines()[-1].startswith("error: [Errno 30] Read-only file system")


def test_a_checkpoint_that_would_run_code_is_refused(runs):
    root = runs.folder / "run"
    assert runs.fit(root, "--trainer.max_steps=2").code == 0
    import torch

    last = root / "checkpoints/last.ckpt"
    state = torch.load(last)
    torch.save({**state, "callbacks": Touches(str(runs.folder / "touched"))}, last)
    end = runs.fit(root, "--ckpt_path=last")
    assert end.code == 1 and end.said.splitlines()[-1].startswith(f"error: {last}: ")
    assert not (runs.folder / "touched").exists()


def test_nothing_asks_for_the_network_without_the_name_of_a_public_checkpoint(runs):
    judge = {"class_path": "rnr.models.qwen3vl.Qwen3VLReasoner", "init_args": {"checkpoint": "shipped/reasoner"}}
    judged = ("--trainer.max_steps=1", f"--model.init_args.reasoner={json.dumps(judge)}")
    end = runs.fit(runs.folder / "run", *judged, before=no_network)
    assert end.code == 0 and "connects to" not in end.said, end.said


class Touches:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")
