"""What it costs to repair a photo: ``python -m benchmarks.restorer``.

Seconds on the wall and the peak memory of a process of its own, on two cores, everything included: for rnr the diagnosis and
the restoration by the shipped weights, for NAFNet-32 one pass of the network. Random pixels; neither looks at them any less.
Of the peak, mapped are the parts of libraries' files that the kernel holds for the process: how many depends on how the files
came into its cache, by a tenth of a GB from one installation to another, not on the program.
Then once more beside a program that keeps one of the cores busy, with OpenMP's threads as they come and as ``rnr`` has them.
"""

import math
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import print_table
from rnr.cli import SPINS

ROUNDS = 3
SIZES = {"512 x 512": (512, 512), "12 megapixels": (3000, 4000)}
GOALS = {("rnr", "512 x 512"): (0.45, 0.6), ("rnr", "12 megapixels"): (30.0, 2.0)}  # seconds, GB


def _rnr() -> Callable[[Tensor], object]:
    from rnr.pipeline import ReasonAndRestore

    return ReasonAndRestore.shipped()


def _diagnosis() -> Callable[[Tensor], object]:
    from rnr.models.load import load_reasoner

    reasoner = load_reasoner("shipped/reasoner").eval()
    return lambda photo: reasoner.diagnose(photo[None])


def _nafnet() -> Callable[[Tensor], object]:
    from benchmarks.nafnet import NAFNet

    model = NAFNet().eval()
    return torch.no_grad()(lambda photo: model(photo[None]))


CONTESTANTS = {"rnr": _rnr, "of that, the diagnosis": _diagnosis, "NAFNet-32, random weights": _nafnet}


def cost(name: str, size: tuple[int, int], rounds: int) -> tuple[float, float, float]:
    """Seconds, the least of ``rounds``, GB of memory at the peak, and GB of mapped files at the end, of this process."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    photo = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    run = CONTESTANTS[name]()
    run(photo[:, :64, :64])
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(photo)
        spent.append(time.perf_counter() - start)
    return min(spent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, _mapped()


def _mapped() -> float:
    """GB, or NaN where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("RssFile")), math.nan)


def measured(name: str, size: tuple[int, int], rounds: int) -> tuple[float, float, float]:
    """:func:`cost`, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(cost, name, size, rounds).result()


@contextmanager
def busy_core() -> Iterator[None]:
    """Another program that wants one core."""
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        program.kill()
        program.wait()


@contextmanager
def spins(count: str | None) -> Iterator[None]:
    """GOMP_SPINCOUNT in the environment of what is started within; None: as OpenMP has it."""
    before = os.environ.pop("GOMP_SPINCOUNT", None)
    os.environ.update({} if count is None else {"GOMP_SPINCOUNT": count})
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)
        os.environ.update({} if before is None else {"GOMP_SPINCOUNT": before})


def main() -> None:
    rows = []
    with spins(str(SPINS)):
        for name in CONTESTANTS:
            for title, size in SIZES.items():
                if size == SIZES["12 megapixels"] and name.startswith("NAFNet"):
                    continue  # it would take some 30 GB
                seconds, memory, mapped = measured(name, size, ROUNDS if size[0] < 1000 else 1)
                goal = GOALS.get((name, title))
                verdict = "" if goal is None else f"{goal[0]:g} s, {goal[1]:g} GB: " + (
                    "reached" if seconds <= goal[0] and memory <= goal[1] else "not reached"
                )
                rows.append([name, title, f"{seconds:.2f}", f"{memory:.2f}", f"{mapped:.2f}", verdict])
    for title, count in (("as OpenMP has it", None), ("as rnr has it", str(SPINS))):
        with spins(count), busy_core():
            seconds, memory, mapped = measured("rnr", SIZES["512 x 512"], ROUNDS)
        rows.append([f"rnr beside a busy core, {title}", "512 x 512", f"{seconds:.2f}", f"{memory:.2f}", f"{mapped:.2f}", ""])
    print_table("A photo repaired, two cores", ["", "photo", "s", "peak GB", "of that mapped", "goal"], rows)


if __name__ == "__main__":
    main()
