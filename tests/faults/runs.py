"""``rnr fit`` on a tiny restorer, each time in a process of its own."""

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "stages"))
from tiny_stages import TINY

STEPS = 8
CONFIG = {
    "model": {
        "class_path": "rnr.stages.RestorerSFT",
        "init_args": {
            "restorer": {
                "class_path": "rnr.models.compact.CompactRestorer",
                "init_args": {"size": json.loads(json.dumps(dataclasses.asdict(TINY)))},
            },
            "reasoner": None,
        },
    },
    "data": {"batch_size": 2, "crops": [32], "eval_batch_size": 2, "cache_gb": 0, "sources": {"val_share": 0}},
    "trainer": {
        "max_steps": STEPS,
        "accelerator": "cpu",
        "devices": 1,
        "use_distributed_sampler": False,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [
            {"class_path": "rnr.stages.callbacks.SaveWeights"},
            {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.7}},
            {"class_path": "rnr.stages.callbacks.KeepCheckpoint", "init_args": {"minutes": 0}},
        ],
    },
}
"""A restorer of some thousand parameters, the checkpoint written after every step."""


@dataclass(frozen=True)
class End:
    """Of a process. code: exit status, below 0 the signal that killed it. said: all it wrote."""

    code: int
    said: str


@dataclass
class Run:
    """``rnr fit`` in a process of its own."""

    process: multiprocessing.Process
    log: Path

    def end(self, seconds: float = 120) -> End:
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s: {self.log.read_text()}"
        return End(self.process.exitcode, self.log.read_text(errors="replace"))

    def wait_for(self, there: Callable[[], bool], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not there() and self.process.is_alive() and time.monotonic() < until:
            time.sleep(0.002)
        assert there(), self.log.read_text(errors="replace")

    def tell(self, number: int) -> None:
        os.kill(self.process.pid, number)


class Runs:
    """Starts runs in ``folder``, from a process that has imported all that they need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(CONFIG))
        self.photos = folder / "photos"
        self.photos.mkdir()
        rng = np.random.default_rng(0)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(self.photos / f"{i}.png")

    def arguments(self, root: Path, *more: str) -> list[str]:
        return [
            "fit", f"--config={self.config}", f"--data.sources.train=[{self.photos}]",
            f"--trainer.default_root_dir={root}", *more,
        ]  # fmt: skip

    def start(self, root: Path, *more: str, before: Callable[[], None] | None = None) -> Run:
        """``before`` is called in the new process, to put a fault into it."""
        log = self.folder / "log.txt"
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_fit, args=(self.arguments(root, *more), str(log), before))
        process.start()
        return Run(process, log)

    def fit(self, root: Path, *more: str, before: Callable[[], None] | None = None) -> End:
        return self.start(root, *more, before=before).end()


def _fit(arguments: Sequence[str], log: str, before: Callable[[], None] | None) -> None:
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    from rnr.stage_commands import run

    torch.set_num_threads(1)
    sys.argv = ["rnr"]
    if before is not None:
        before()
    run(arguments)
