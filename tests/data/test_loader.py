"""Workers that read photos: a signal that their whole group is sent is for the process that they read for."""

import os
import signal

from torch.utils.data import DataLoader

from rnr.data.datamodule import DegradationDataModule
from rnr.data.loader import unmoved


def test_workers_read_on():
    loader = DataLoader(list(range(40)), num_workers=1, worker_init_fn=unmoved, prefetch_factor=1)
    batches = iter(loader)
    first = next(batches)
    os.kill(batches._workers[0].pid, signal.SIGTERM)
    assert [first.item(), *(batch.item() for batch in batches)] == list(range(40))


def test_all_loaders_have_such_workers():
    data = DegradationDataModule(crops=[16], batch_size=2)
    data.setup("fit")
    data.setup("test")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert loader.worker_init_fn is unmoved
