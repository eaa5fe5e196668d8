"""What it costs to repair a photo: ``python -m benchmarks.restorer``.

Seconds on the wall and the peak memory of a process of its own, on two cores, everything included: for rnr the diagnosis and
the restoration by the shipped weights, for NAFNet-32 one pass of the network. Random pixels; neither looks at them any less.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor

from benchmarks.timing import print_table

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


def cost(name: str, size: tuple[int, int], rounds: int) -> tuple[float, float]:
    """Seconds, the least of ``rounds``, and GB of memory at the peak, of this process."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    photo = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    run = CONTESTANTS[name]()
    run(photo[:, :64, :64])
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(photo)
        spent.append(time.perf_counter() - start)
    return min(spent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    rows = []
    for name in CONTESTANTS:
        for title, size in SIZES.items():
            if size == SIZES["12 megapixels"] and name.startswith("NAFNet"):
                continue  # it would take some 30 GB
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as process:
                seconds, memory = process.submit(cost, name, size, ROUNDS if size[0] < 1000 else 1).result()
            goal = GOALS.get((name, title))
            verdict = "" if goal is None else f"{goal[0]:g} s, {goal[1]:g} GB: " + (
                "reached" if seconds <= goal[0] and memory <= goal[1] else "not reached"
            )
            rows.append([name, title, f"{seconds:.2f}", f"{memory:.2f}", verdict])
    print_table("A photo repaired, two cores", ["", "photo", "s", "peak GB", "goal"], rows)


if __name__ == "__main__":
    main()
