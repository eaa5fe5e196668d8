"""Workers that read photos: a signal that their whole group is sent is for the process that they read for."""

import signal
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader

from rnr.data.datamodule import DegradationDataModule
from rnr.data.loader import unmoved


def test_workers_read_on():
    loader = DataLoader(list(range(40)), num_workers=1, worker_init_fn=unmoved, prefetch_factor=1)
    batches = iter(loader)
    first = next(batches)
    subprocess.run(["kill", "-TERM", str(batches._workers[0].pid)], check=True)
    assert [first.item(), *(batch.item() for batch in batches)] == list(range(40))


@pytest.mark.parametrize(("method", "statuses"), [("fork", {0}), ("forkserver", {0, -signal.SIGTERM})])
def test_but_end_by_the_process_that_they_read_for(method, statuses):
    loader = DataLoader(
        list(range(40)), num_workers=1, worker_init_fn=unmoved, prefetch_factor=1, multiprocessing_context=method
    )
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    worker.join(30)
    assert worker.exitcode in statuses


FAILING = """
from rnr.data.datamodule import DegradationDataModule
module = DegradationDataModule(crops=(32,), batch_size=2, num_workers=2)
module.setup("fit")
batches = iter(module.train_dataloader())  # alive to the end, as what an error's traceback holds is
next(batches)
raise SystemExit("broken")
"""


def test_a_run_that_fails_while_they_read_ends():
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.strip().endswith("broken")
    assert "Traceback" not in done.stderr


def test_all_loaders_have_such_workers():
    data = DegradationDataModule(crops=[16], batch_size=2)
    data.setup("fit")
    data.setup("test")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert loader.worker_init_fn is unmoved
