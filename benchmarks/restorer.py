"""What it costs to repair a photo: ``python -m benchmarks.restorer``.

Seconds on the wall and the peak memory of a process of its own, on two cores, everything included: for rnr the diagnosis and
the restoration by the shipped weights, for NAFNet-32 one pass of the network. The photo ships along, and is enlarged and put
through all of Eq. 1 beforehand.
Of the peak, mapped are the parts of libraries' files that the kernel holds for the process: how many depends on how the files
came into its cache, by a tenth of a GB from one installation to another, not on the program.
Then once more beside a program that keeps one of the cores busy, with OpenMP's threads as they come and as ``rnr`` has them.
"""

import dataclasses
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import print_table
from rnr.cli import SPINS
from rnr.diagnosis import KINDS

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


def degraded(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: a photo that ships along, at this size, with fog, shake, rain and noise."""
    from rnr.data.photos import open_photo, shipped_photos
    from rnr.degradation import Degrader

    pixels = torch.from_numpy(open_photo(shipped_photos("train")[0].path)).permute(2, 0, 1)[None].float() / 255
    photo = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    depth = torch.linspace(1, 0, size[0]).view(1, 1, -1, 1).expand(1, 1, *size)
    all_there = Degrader(**{kind: dataclasses.replace(getattr(Degrader(), kind), probability=1.0) for kind in KINDS})
    image = Degrader.apply(photo, depth, all_there.sample([torch.Generator().manual_seed(0)])).image
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


def cost(name: str, file: Path, rounds: int) -> tuple[float, float, float]:
    """Seconds, the least of ``rounds``, GB of memory at the peak, and GB of mapped files at the end, of this process, for the
    photo in ``file``."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    photo = torch.from_numpy(np.load(file)).permute(2, 0, 1).float() / 255
    run = CONTESTANTS[name]()
    run(photo[:, :64, :64])
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(photo)
        spent.append(time.perf_counter() - start)
    return min(spent), _memory("VmHWM"), _memory("RssFile")


def _memory(what: str) -> float:
    """GB, or NaN where there is no /proc. Not by ``getrusage``, whose peak is inherited from the parent."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith(what)), math.nan)


def measured(name: str, file: Path, rounds: int) -> tuple[float, float, float]:
    """:func:`cost`, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(cost, name, file, rounds).result()


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


def measurements(folder: Path) -> Iterator[list[str]]:
    """The rows of the table, one after the other. folder: where photos may lie meanwhile."""
    files = {title: folder / f"{number}.npy" for number, title in enumerate(SIZES)}
    for title, size in SIZES.items():
        np.save(files[title], degraded(size))
    with spins(str(SPINS)):
        for name in CONTESTANTS:
            for title, size in SIZES.items():
                if size == SIZES["12 megapixels"] and name.startswith("NAFNet"):
                    continue  # it would take some 30 GB
                seconds, memory, mapped = measured(name, files[title], ROUNDS if size[0] < 1000 else 1)
                goal = GOALS.get((name, title))
                verdict = "" if goal is None else f"{goal[0]:g} s, {goal[1]:g} GB: " + (
                    "reached" if seconds <= goal[0] and memory <= goal[1] else "not reached"
                )
                yield [name, title, f"{seconds:.2f}", f"{memory:.2f}", f"{mapped:.2f}", verdict]
    for title, count in (("as OpenMP has it", None), ("as rnr has it", str(SPINS))):
        with spins(count), busy_core():
            seconds, memory, mapped = measured("rnr", files["512 x 512"], ROUNDS)
        yield [f"rnr beside a busy core, {title}", "512 x 512", f"{seconds:.2f}", f"{memory:.2f}", f"{mapped:.2f}", ""]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measurements(Path(folder)))
    print_table("A photo repaired, two cores", ["", "photo", "s", "peak GB", "of that mapped", "goal"], rows)


if __name__ == "__main__":
    main()
