"""What a step of the third stage costs: ``python -m benchmarks.grpo``.

Both contestants take the same step on the same photos: groups of N candidates, their rewards, the loss, its gradient. rnr
makes all candidates in one batch, judges them in batches and by severities alone, and encodes a photo once. The
straightforward loop makes one candidate after the other and has each judged by transformers' own ``generate``, token after
token to the end of the diagnosis. What ``generate`` wrote is not used: rewards rounded to what was written would make
another loss, and the gradients, which are compared, would differ for that reason alone.

Restorers: the compact one that ships, and the classes of Qwen-Image-Edit at a small size, new weights. Memory is what a
step takes at its peak beyond what was there before.
"""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from benchmarks.reasoner import photos, plain
from benchmarks.timing import CONSOLE, print_table, single_core
from rnr import grpo
from rnr.data.batch import DegradedBatch
from rnr.data.photos import shipped_photos
from rnr.diagnosis import Diagnosis
from rnr.diagnosis.edit import jitter
from rnr.metrics.restoration import as_saved
from rnr.models import qwen_image_edit
from rnr.models.compact import CompactRestorer
from rnr.models.interfaces import TrainableRestorer
from rnr.models.load import load_reasoner
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.reward import Reward
from rnr.stages.aims import Clean

N = 8
BATCH = 2
ROUNDS = 3
FASTER, LEANER = 4.0, 3.0  # goals
LOSS = grpo.Anchored(tau=0.01, weight=265.0)
SAME = 1e-5  # how far apart gradients may be, as a share of their length


@dataclass(frozen=True)
class Setting:
    """given: the diagnoses. before: severities of the degraded photos, (B, 4)."""

    reasoner: Qwen3VLReasoner
    restorer: TrainableRestorer
    batch: DegradedBatch
    given: list[Diagnosis | None]
    before: Tensor

    def gradient(self, loss: Tensor) -> Tensor:
        self.restorer.zero_grad(set_to_none=True)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in self.restorer.parameters() if p.grad is not None])


def batched(setting: Setting) -> tuple[Tensor, grpo.Advantages]:
    """The gradient, and the advantages: a step as :class:`rnr.stages.RestorerGRPO` takes it."""
    images, prediction = Clean().draw(setting.restorer, setting.batch, setting.given, N)
    rewards = Reward()(setting.reasoner, images, setting.batch.degraded, setting.given, setting.before)
    advantages = grpo.advantages(rewards.total, 1e-6)
    return setting.gradient(LOSS(prediction.energies, advantages)), advantages


def loop(setting: Setting, advantages: grpo.Advantages) -> Tensor:
    """The gradient, with each candidate by itself."""
    energies = []
    for place in range(BATCH):
        clean, each = setting.batch.clean[place], []
        for alone in candidates(setting, place):
            plain(setting.reasoner, as_saved(alone.detach()))
            each.append((alone[0] - clean).square().mean())
        energies.append(torch.stack(each))
    return setting.gradient(LOSS(torch.stack(energies), advantages))


def candidates(setting: Setting, place: int) -> list[Tensor]:
    """Those of a photo, each (1, 3, H, W) by itself, the same that the rollout draws."""
    image, diagnosis = setting.batch.degraded[place : place + 1], setting.given[place]
    seed = setting.batch.seed[place]
    if isinstance(setting.restorer, CompactRestorer):
        generator = torch.Generator().manual_seed(seed)
        varied = [diagnosis, *(diagnosis and jitter(diagnosis, setting.restorer.jitter, generator) for _ in range(N - 1))]
        return [setting.restorer(image, [each]) for each in varied]
    draw = qwen_image_edit.noise
    made = []
    for k in range(N):
        def kth(channels: int, height: int, width: int, seeds: list[int], group: int, k: int = k) -> Tensor:
            return draw(channels, height, width, seeds, N)[k : k + 1]

        with mock.patch.object(qwen_image_edit, "noise", kth):
            made.append(setting.restorer.rollout(image, [diagnosis], [seed], 1)[:, 0])
    return made


def peak_of(run: Callable[[], object]) -> float:
    """MiB that ``run`` takes at its peak beyond what the process had."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def setting_of(restorer: TrainableRestorer, side: int) -> Setting:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reasoner = load_reasoner("shipped/reasoner").eval().requires_grad_(False).to(device)
    degraded = as_saved(photos(shipped_photos("test")[0], BATCH)[..., :side, :side]).to(device)
    clean = degraded.flip(-1)  # any target does
    given = [each if isinstance(each, Diagnosis) else None for each in reasoner.diagnose(degraded)]
    batch = DegradedBatch(clean, degraded, [Diagnosis()] * BATCH, [11, 12], ["a", "b"])
    return Setting(reasoner, restorer.to(device), batch, given, reasoner.severities(degraded))


def row(name: str, setting: Setting) -> list[str]:
    ours, advantages = batched(setting)
    theirs = loop(setting, advantages)
    apart = ((ours - theirs).norm() / theirs.norm()).item()
    runs = {"rnr": lambda: batched(setting), "a loop": lambda: loop(setting, advantages)}
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(ROUNDS):
        for who, run in runs.items():
            start = time.perf_counter() if torch.cuda.is_available() else time.process_time()
            run()
            end = time.perf_counter() if torch.cuda.is_available() else time.process_time()
            seconds[who].append(end - start)
    peaks = {who: peak_of(run) for who, run in runs.items()}
    spent = {who: statistics.median(each) for who, each in seconds.items()}
    faster, leaner = spent["a loop"] / spent["rnr"], peaks["a loop"] / peaks["rnr"]
    goals = ["reached" if ratio >= goal else "not reached" for ratio, goal in ((faster, FASTER), (leaner, LEANER))]
    return [
        name, f"{spent['rnr']:.2f}", f"{spent['a loop']:.2f}", f"{faster:.1f} (goal {FASTER:g}: {goals[0]})",
        f"{peaks['rnr']:.0f}", f"{peaks['a loop']:.0f}", f"{leaner:.1f} (goal {LEANER:g}: {goals[1]})",
        f"{apart:.0e}{'' if apart < SAME else ', not the same'}",
    ]  # fmt: skip


def main() -> None:
    single_core()
    torch.manual_seed(0)
    rows = [
        row("compact, 128 px", setting_of(CompactRestorer("shipped/restorer"), 128)),
        row("Qwen-Image-Edit, small, 64 px", setting_of(QwenImageEditRestorer(steps=4), 64)),
    ]
    headings = ["", "s", "s, loop", "times as fast", "MiB", "MiB, loop", "times less", "gradients differ by"]
    print_table(f"A step of GRPO, {BATCH} photos of {N} candidates", headings, rows)
    CONSOLE.print("Seconds of CPU time, the median of three." if not torch.cuda.is_available() else "Seconds on the clock.")


if __name__ == "__main__":
    main()
