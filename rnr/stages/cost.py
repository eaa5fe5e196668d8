"""What repairing photos costs: seconds on the wall, and memory at the peak.

Memory on a GPU is the most that torch held there (``torch.cuda.max_memory_allocated``), weights included; on a CPU it is
the most that the process held beyond what it held before the first photo, weights loaded. Only Linux tells the latter.
The first batch warms up (code that loads late, threads, tuned kernels) and has no cost.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

MIB = 2**20
PROCESS = Path("/proc/self")


@dataclass
class Cost:
    """seconds: a photo. peak_mib: while its batch was repaired. NaN: not known."""

    seconds: float = math.nan
    peak_mib: float = math.nan


class Meter:
    """Measures one batch after the other on ``device``."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.held = _resident("VmRSS")
        self.warm = False

    @property
    def where(self) -> str:
        """The device, for people: ``cpu, 2 threads``."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type}, {torch.get_num_threads()} threads"

    @contextmanager
    def measuring(self, photos: int) -> Iterator[Cost]:
        """What is run inside repairs so many photos. The cost is filled in at the end; that of the first batch is not."""
        cost = Cost()
        self._reset()
        start = time.perf_counter()
        yield cost
        self._wait()
        if self.warm:
            cost.seconds, cost.peak_mib = (time.perf_counter() - start) / photos, self._peak() / MIB
        self.warm = True

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _reset(self) -> None:
        self._wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                (PROCESS / "clear_refs").write_text("5")  # the peak starts anew; see proc(5)

    def _peak(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM") - self.held


def _resident(entry: str) -> float:
    """Bytes of resident memory: ``VmRSS`` now, ``VmHWM`` at the peak. NaN where the system does not tell."""
    with suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith(f"{entry}:"):
                return 1024 * float(line.split()[1])
    return math.nan
