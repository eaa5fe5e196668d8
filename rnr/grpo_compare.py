"""``rnr grpo-compare``: does the reward bring anything? The third stage by each of its losses, and its control.

All rows start from the same weights and take the same steps on the same data under the same schedule; the control takes
them without the reward. What counts is the difference to the control: more training alone may also help. Whatever was
finished before is not done again, so that the command can be cut off and repeated.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rnr.metrics.intervals import paired_interval
from rnr.stage_commands import run, weights_of
from rnr.stages.evaluation import Rows, markdown, show

START, CONTROL = "start", "control"
TAU = 0.01
WEIGHT = 175.0  # of the mean squared error: that of Anchored in grpo.yaml, and so the control's too


def _loss(name: str, **settings: float) -> str:
    return f"--model.init_args.loss={json.dumps({'class_path': f'rnr.grpo.{name}', 'init_args': settings})}"


METHODS = {
    CONTROL: [_loss("Supervised", weight=WEIGHT)],
    "algorithm1": [_loss("Algorithm1", tau=TAU)],
    "anchored": [_loss("Anchored", tau=TAU, weight=WEIGHT)],
    "awr": [_loss("AdvantageWeighted", tau=TAU, temperature=1.0, weight=WEIGHT)],
    "policy_gradient": [_loss("PolicyGradient", tau=TAU), "--model.init_args.aim=rnr.stages.aims.Own"],
}
"""What each row adds to ``grpo.yaml``."""

FIGURES = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 4), "reward": ("reward", 1)}
Photos = dict[tuple[str, int], dict[str, float]]
"""The figures of each (photo, draw)."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``rnr grpo-compare``."""
    parser = argparse.ArgumentParser(
        prog="rnr grpo-compare",
        allow_abbrev=False,
        description="Train the third stage by each of its losses and without the reward, test all, and print the "
        "differences, photo by photo. Options that are not listed go to every fit and test, such as "
        "--data.sources.train=[DIR] --data.sources.test=[DIR]. What was finished before is not done again; rows and seeds "
        "may be added.",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/grpo_compare"), help="folder (runs/grpo_compare)")
    parser.add_argument("--configs", type=Path, default=Path("lightning_configs"), help="folder (lightning_configs)")
    parser.add_argument("--steps", type=int, default=40, help="of each fit (default 40: a quick look)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row, which differ in their seed (default 1)")
    parser.add_argument(
        "--only", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="ROW",
        help=f"of {', '.join(METHODS)} (default all); the control is always run",
    )  # fmt: skip
    args, passed_on = parser.parse_known_args(argv)
    for name, value in (("steps", args.steps), ("seeds", args.seeds)):
        if value < 1:
            parser.error(f"argument --{name}: must be at least 1, got {value}")
    base = ["--config", str(args.configs / "grpo.yaml"), *passed_on]
    _claim(parser, args.output, {"steps": args.steps, "options": base})
    if not (tested := args.output / START / "test.csv").is_file():
        run(["test", *base, f"--trainer.default_root_dir={args.output / START}"])
    files = {START: [tested]}
    rows = [name for name in METHODS if name in (*args.only, CONTROL)]
    for seed in range(args.seeds):
        for name in rows:
            files.setdefault(name, []).append(_trained_and_tested(name, seed, args.output, args.steps, base))
    tables = compared({name: [read(path) for path in paths] for name, paths in files.items()})
    title = f"The third stage, {args.steps} steps, {args.seeds} seed(s)"
    for heading, table in tables.items():
        show(f"{title}. {heading}", table)
    text = "".join(f"### {heading}\n\n{markdown(table)}\n" for heading, table in tables.items())
    partial = args.output / "compare.md.part"
    partial.write_text(f"## {title}\n\n{text}", encoding="utf-8")
    partial.replace(args.output / "compare.md")
    return 0


def _claim(parser: argparse.ArgumentParser, folder: Path, settings: dict[str, object]) -> None:
    """Runs of other settings in ``folder`` would pass for these."""
    stamp = folder / "settings.json"
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) != settings:
        parser.error(f"argument -o/--output: {folder} holds runs of other settings ({stamp}); name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    partial = stamp.with_name(f"{stamp.name}.part")
    partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    partial.replace(stamp)


def _trained_and_tested(name: str, seed: int, output: Path, steps: int, base: Sequence[str]) -> Path:
    """The ``test.csv`` of a row and seed."""
    folder = output / f"{name}_{seed}"
    place, tested = f"--trainer.default_root_dir={folder}", folder / "test.csv"
    if tested.is_file():
        return tested
    options = [*base, *METHODS[name], f"--seed_everything={seed}", f"--data.seed={seed}", place]
    try:
        run(["fit", *options, f"--trainer.max_steps={steps}", "--ckpt_path=last"])
    except SystemExit as error:
        # A loss that is no number ends a run that has kept its best weights: for algorithm1 that is a result.
        if not (isinstance(error.code, str) and weights_of(folder).is_dir()):
            raise
        print(f"{folder}: {error.code}; tested as it was before", file=sys.stderr)
    run(["test", *options, f"--model.init_args.restorer.init_args.checkpoint={weights_of(folder)}"])
    return tested


def read(path: Path) -> Photos:
    """The figures of a ``test.csv``; draws of a photo are numbered in the order in which they stand there."""
    photos: Photos = {}
    counts: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = row.pop("photo")
            counts[name] = counts.get(name, -1) + 1
            photos[name, counts[name]] = {key: float(value) for key, value in row.items() if key in FIGURES}
    return photos


def compared(runs: dict[str, list[Photos]]) -> dict[str, Rows]:
    """Tables by title: means over seeds, and the differences to the start and to the control. A photo counts once, by its
    mean over draws and seeds: intervals speak of other photos, not of other seeds, whose spread stands beside the means."""
    means = {name: {key: _by_photo(each, key) for key in FIGURES} for name, each in runs.items()}
    tables = {"Means": [_means(name, means[name], runs[name]) for name in runs]}
    for other in (START, CONTROL):
        rows = [name for name in runs if name not in (START, other)]
        tables[f"Differences to the {other}, photo by photo, with 95 % intervals"] = [
            {"": name, **{t: _difference(means[name][k], means[other][k], p) for k, (t, p) in FIGURES.items()}}
            for name in rows
        ]
    return {title: rows for title, rows in tables.items() if rows}


def _means(name: str, figures: dict[str, dict[str, float]], runs: Sequence[Photos]) -> dict[str, object]:
    row: dict[str, object] = {"": name}
    for key, (title, places) in FIGURES.items():
        row[title] = f"{_mean(figures[key].values()):.{places}f}" if figures[key] else "-"
    seeds = [_mean(_by_photo([one], "psnr").values()) for one in runs]
    return row | {"PSNR by seed": f"{min(seeds):.2f} to {max(seeds):.2f}"}


def _difference(values: dict[str, float], others: dict[str, float], places: int) -> str:
    both = sorted(values.keys() & others.keys())
    gap = paired_interval([values[name] - others[name] for name in both])
    return f"{gap.mean:+.{places}f} [{gap.low:+.{places}f}, {gap.high:+.{places}f}]" if both else "-"


def _by_photo(runs: Sequence[Photos], key: str) -> dict[str, float]:
    """Each photo's mean over draws and seeds, of what is a number."""
    found: dict[str, list[float]] = {}
    for photos in runs:
        for (name, _), figures in photos.items():
            if math.isfinite(value := figures.get(key, math.nan)):
                found.setdefault(name, []).append(value)
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: Sequence[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
