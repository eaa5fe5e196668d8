"""A loader of training batches that can go on in the middle of an epoch."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from rnr.data.batches import TrainBatches
from rnr.data.dataset import PhotoDataset
from rnr.data.pairs import PairDataset, PairStream


def unmoved(worker: int) -> None:
    """For ``worker_init_fn``: a worker ends by a SIGTERM of the process that it reads for, not by one that its whole group is
    sent. That process finishes its step first, and then ends it. (Where a signal does not tell who sent it, as on macOS, it
    ends by any; one that was not forked from that process may, too, by the threads that it had before.)"""
    if not hasattr(signal, "sigwaitinfo"):
        return
    parent = multiprocessing.parent_process().pid  # of a fork server's, not the server
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)  # as torch's own handler does: it takes any other status for a crash

    threading.Thread(target=listen, daemon=True).start()


class TrainLoader(DataLoader):
    """Batches of ``plan``, which decides what comes when.

    ``state_dict`` and ``load_state_dict`` are what Lightning asks of a loader that it finds in a checkpoint: the next
    pass leaves out what was taken already. Batches that were read ahead but not taken do not count.

    photos: what ``plan`` chooses from; None for a stream, which brings its own. epoch: says which one is about to begin.
    """

    def __init__(
        self,
        photos: PhotoDataset | PairDataset | None,
        plan: TrainBatches | PairStream,
        epoch: Callable[[], int],
        collate: Callable | None,
        workers: int,
    ) -> None:
        if isinstance(plan, PairStream):
            # Workers of a stream keep nothing worth keeping, and new ones know of the epoch.
            super().__init__(plan, batch_size=None, num_workers=workers, worker_init_fn=unmoved)
        else:
            # Those of photos keep them in memory.
            super().__init__(
                photos, batch_sampler=plan, collate_fn=collate, num_workers=workers, worker_init_fn=unmoved,
                persistent_workers=workers > 0,
            )  # fmt: skip
        self.plan, self.epoch = plan, epoch
        self.taken = 0
        self._resumed: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:
        # A generator: workers begin to read when the first batch is asked for. By then Lightning knows the epoch.
        state, self._resumed = self._resumed, None
        if isinstance(self.plan, PairStream):
            self.plan.epoch = self.epoch()  # Lightning itself sets that of a sampler
        here = state is not None and (state["epoch"], state["batches"]) == (self.plan.epoch, len(self.plan))
        self.plan.start = self.taken = state["taken"] if here else 0
        for batch in super().__iter__():
            self.taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.plan.epoch, "taken": self.taken, "batches": len(self.plan)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """An epoch that has another number of batches by now (another batch size, other photos) begins anew."""
        self._resumed = state
