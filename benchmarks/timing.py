"""Contestants that take turns, and the table of how they compare.

What is timed on a CPU runs on one core and is measured in CPU time, which a busy machine disturbs less than it does the
clock on the wall. Contestants take turns, round after round, so that what disturbs them still hits all alike; the
median over the rounds counts.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

CONSOLE = Console(width=120, highlight=False)


def single_core() -> None:
    """One thread for all of torch. Other libraries have settings of their own; CPU time counts all their threads."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Contestant:
    """run: does ``items`` items of work, the same kind of work as every other contestant of its race."""

    name: str
    items: int
    run: Callable[[], object]


@dataclass(frozen=True)
class Speed:
    """Items per second of CPU time: the median over the rounds, and the slowest and the fastest of them."""

    name: str
    median: float
    slowest: float
    fastest: float


def race(contestants: Sequence[Contestant], rounds: int = 7, turn: float = 0.2) -> list[Speed]:
    """The speed of each contestant: it gets ``rounds`` turns, each as many runs as it takes to fill ``turn`` seconds."""
    rates: dict[str, list[float]] = {one.name: [] for one in contestants}
    for one in contestants:
        one.run()
    for _ in range(rounds):
        for one in contestants:
            runs, start = 0, time.process_time()
            while (spent := time.process_time() - start) < turn:
                one.run()
                runs += 1
            rates[one.name].append(runs * one.items / spent)
    return [Speed(name, statistics.median(all_), min(all_), max(all_)) for name, all_ in rates.items()]


@dataclass(frozen=True)
class Goal:
    """ratio: how many times as fast as ``rival`` the first contestant shall be."""

    rival: str
    ratio: float


def print_race(title: str, unit: str, speeds: Sequence[Speed], goals: Sequence[Goal] = ()) -> None:
    """One line a contestant: its speed, and how many times as fast the first is; beside it the goal, if there is one."""
    wanted = {goal.rival: goal.ratio for goal in goals}
    first, rows = speeds[0], []
    for speed in speeds:
        ratio, goal = first.median / speed.median, wanted.get(speed.name)
        rows.append(
            [
                speed.name,
                f"{speed.median:.1f}",
                f"{speed.slowest:.1f} to {speed.fastest:.1f}",
                "" if speed is first else f"{ratio:.2f} times as fast",
                "" if goal is None else f"{goal:g} times: {'reached' if ratio >= goal else 'not reached'}",
            ]
        )
    print_table(title, ["", f"{unit}/s", "slowest to fastest", f"{first.name} is", "goal"], rows)


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, figures to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    CONSOLE.print(table)


def seconds_on_gpu(run: Callable[[], object], repeats: int = 20) -> float:
    """Median seconds of ``run`` on the current CUDA device, from when its first kernel may start to when its last ends."""
    for _ in range(3):
        run()
    spent = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        spent.append(start.elapsed_time(end) / 1000)
    return statistics.median(spent)
