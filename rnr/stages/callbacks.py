"""Callbacks that all stages use. Both keep to the run's folder, ``trainer.default_root_dir``."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from rnr.stages.checkpoints import CHECKPOINTS, LAST, PREVIOUS, CheckpointError, StraightToDisk, commit, remove, seal
from rnr.stages.sharding import savable
from rnr.stages.stage import Stage

REQUEUE = 75
"""Exit status of a run that was told to stop and can go on: EX_TEMPFAIL of sysexits.h."""


GRACE = 10.0
"""Seconds that processes have to end by themselves once the one that started them has failed."""


class Stopped(SystemExit):
    """The run was told to stop, has written its state, and ends. Exit status 130 after Ctrl-C, else :data:`REQUEUE`."""

    def __init__(self, number: int) -> None:
        super().__init__(130 if number == signal.SIGINT else REQUEUE)
        self.number = number


class KeepCheckpoint(Checkpoint):
    """Keeps the state of the run as ``checkpoints/last.ckpt``, and the one before it as ``previous.ckpt``.

    It is written after a step: every ``minutes``, after the last one, and when the run is told to stop by SIGTERM,
    SIGUSR1 (schedulers) or SIGINT (Ctrl-C; a second one stops it at once), after which it ends by :class:`Stopped`. A
    run that goes on from it (``rnr fit ... --ckpt_path last``) ends as one that was never disturbed. Between two
    steps only: gradients that are still being accumulated are in no checkpoint.
    """

    def __init__(self, minutes: float = 5.0) -> None:
        self.seconds = 60 * minutes
        self._written_at = 0.0
        self._step = self._saved = 0
        self._told_by: int | None = None
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = StraightToDisk()
        for callback in trainer.callbacks[trainer.callbacks.index(self) :]:
            if isinstance(callback, WeightAveraging):  # Lightning leaves one that is a Checkpoint too where it stands
                raise MisconfigurationException(
                    f"{type(callback).__name__} must stand before {type(self).__name__} among the callbacks: "
                    f"what is kept after a step would lack that step's average"
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written_at, self._step, self._told_by = time.monotonic(), trainer.global_step, None
        first = trainer.strategy.broadcast(trainer.global_step)
        if not trainer.strategy.reduce_boolean_decision(first == trainer.global_step, all=True):
            raise CheckpointError(
                f"process {trainer.global_rank} goes on from step {trainer.global_step}, the first one from step {first}: "
                f"all have to see one {trainer.default_root_dir}"
            )
        # Lightning's own handlers save in the middle of a step, or talk to other processes from within one.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._told)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step or trainer.fast_dev_run:
            return  # in the middle of an accumulation
        self._step = trainer.global_step
        told = trainer.strategy.reduce_boolean_decision(self._told_by is not None, all=False)
        due = time.monotonic() - self._written_at >= self.seconds
        if told or _is_last(trainer) or trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer)
        if told:
            if trainer.is_global_zero:
                print(f"told to stop: the state after step {self._step} is in {_folder(trainer)}; "
                      f"--ckpt_path last goes on from it", file=sys.stderr)  # fmt: skip
            # All end by the same signal: after Ctrl-C they gather weights together.
            interrupted = trainer.strategy.reduce_boolean_decision(self._told_by == signal.SIGINT, all=False)
            raise Stopped(signal.SIGINT if interrupted else self._told_by or signal.SIGTERM)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.should_stop and self._saved != trainer.global_step and not trainer.fast_dev_run:
            self._save(trainer)  # a validation has ended the run

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._give_back_signals()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._give_back_signals()
        if isinstance(exception, Stopped):
            return
        its_own = self._saved or trainer.ckpt_path is not None  # and not that of an earlier run
        if its_own and (_folder(trainer) / LAST).exists():
            # Each process says so: the others may be gone.
            who = f"process {trainer.global_rank} of {trainer.world_size}"
            print(f"{who} ends at step {trainer.global_step} by {type(exception).__name__}; "
                  f"--ckpt_path last goes on from {_folder(trainer)}", file=sys.stderr)  # fmt: skip
        _end(getattr(trainer.strategy.launcher, "procs", []))

    def _save(self, trainer: Trainer) -> None:
        """On every process, since a sharded state is written by all."""
        folder = _folder(trainer)
        fresh = folder / f"{LAST}.new"
        if trainer.is_global_zero:
            remove(fresh)
        trainer.save_checkpoint(fresh)  # ends in a barrier
        if trainer.is_global_zero:
            if fresh.is_dir():  # of a sharded state
                seal(fresh)
            commit(fresh, folder / LAST, folder / PREVIOUS)
        trainer.strategy.barrier("checkpoint")
        self._written_at, self._saved = time.monotonic(), trainer.global_step

    def _told(self, number: int, frame: FrameType | None) -> None:
        if self._told_by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._told_by = number

    def _give_back_signals(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())


# A Checkpoint to Lightning, which calls those after all others: at the end a moving average has taken its place by then.
class SaveWeights(Checkpoint):
    """Writes the trained model as safetensors to ``weights`` when training ends, also when Ctrl-C ends it. The folder
    appears whole or not at all: it is written beside its place and then moved there."""

    _trained = False

    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        self._trained = True

    def on_train_end(self, trainer: Trainer, pl_module: Stage) -> None:
        self._save(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        """A run that was cut off between its last checkpoint and its weights has no step left when it goes on: for
        Lightning its training neither starts nor ends. Weights that are newer than the checkpoint stay."""
        if self._trained or not trainer.strategy.broadcast(_owes_weights(trainer)):
            return
        _take_averages(trainer, pl_module)
        self.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Stage, exception: BaseException) -> None:
        stopped = isinstance(exception, Stopped) and exception.number == signal.SIGINT
        # After a plain KeyboardInterrupt processes may be anywhere, and cannot gather what is sharded.
        alone = isinstance(exception, KeyboardInterrupt) and trainer.world_size == 1
        if (stopped or alone) and trainer.global_step:
            _take_averages(trainer, pl_module)
            self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, stage: Stage) -> None:
        if trainer.fast_dev_run:
            return
        with savable(stage):
            if trainer.is_global_zero:
                final = weights_of(trainer)
                fresh, old = final.with_name("weights.new"), final.with_name("weights.old")
                if old.exists() and not final.exists():
                    old.rename(final)  # a run was cut off between the two names
                remove(fresh)
                self._write(stage, fresh)
                commit(fresh, final, old)
                remove(old)
        trainer.strategy.barrier("weights")

    def _write(self, stage: Stage, folder: Path) -> None:
        """All that belongs into the folder, on one process."""
        stage.save_weights(folder)


def _take_averages(trainer: Trainer, stage: Stage) -> None:
    """A moving average takes the model's place, as at the end of training: it is what was validated. While a validation
    runs, it has done so already."""
    if trainer.validating:
        return
    for callback in trainer.callbacks:
        average = callback._average_model if isinstance(callback, WeightAveraging) else None
        if average is not None and average.n_averaged > 0:
            WeightAveraging.on_train_end(callback, trainer, stage)


def _end(processes: Iterable[subprocess.Popen]) -> None:
    """Those that this process started: by NCCL they would wait for it half an hour."""
    until = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / CHECKPOINTS


def weights_of(trainer: Trainer) -> Path:
    """The folder that a run's weights are written to."""
    return Path(trainer.default_root_dir) / "weights"


def _owes_weights(trainer: Trainer) -> bool:
    """Whether a run that is through has left none since its last checkpoint."""
    weights, last = weights_of(trainer), _folder(trainer) / LAST
    stale = weights.exists() and last.exists() and weights.stat().st_mtime_ns < last.stat().st_mtime_ns
    return trainer.global_step > 0 and (stale or not weights.exists())


def _is_last(trainer: Trainer) -> bool:
    """Whether no step follows this one. A moving average replaces the model after that, too late for a checkpoint."""
    steps_are_done = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    return steps_are_done or trainer.should_stop or (last_epoch and trainer.is_last_batch)
