"""``rnr grpo-compare``: does the reward bring anything? The third stage by each of its losses, and its control.

All rows start from the same weights and take the same steps on the same data under the same schedule; the control takes
them without the reward. What counts is the difference to the control: more training alone may also help. Runs that are
through are not run again.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rnr.command_line import at_least_one
from rnr.data.layouts import photos_in
from rnr.data.photos import PhotoError
from rnr.records import record, write_whole
from rnr.row_runs import Run, run_all
from rnr.stage_commands import weights_of
from rnr.stages.comparison import compared, mismatched
from rnr.stages.evaluation import Rows, markdown, show

START, CONTROL = "start", "control"
TAU = 0.01
WEIGHT = 175.0  # of the mean squared error, the control's too: sqrt(3) / TAU, so that Anchored clips nothing at N = 4


def _loss(name: str, **settings: float) -> str:
    return f"--model.init_args.loss={json.dumps({'class_path': f'rnr.grpo.{name}', 'init_args': settings})}"


LED_BY_REWARD = [
    {"class_path": "rnr.stages.best.BestAverage", "init_args": {"decay": 0.9, "figure": "reward", "fall": 10.0}},
    {"class_path": "rnr.stages.callbacks.KeepCheckpoint"},
]

CLEAN, OWN = (f"--model.init_args.aim=rnr.stages.aims.{name}" for name in ("Clean", "Own"))

METHODS = {
    CONTROL: [_loss("Supervised", weight=WEIGHT), CLEAN],
    "algorithm1": [_loss("Algorithm1", tau=TAU), CLEAN],
    "anchored": [_loss("Anchored", tau=TAU, weight=WEIGHT), CLEAN],
    "awr": [_loss("AdvantageWeighted", tau=TAU, temperature=1.0, weight=WEIGHT), CLEAN],
    "policy_gradient": [_loss("PolicyGradient", tau=TAU), OWN],
    "sampled": [_loss("Anchored", tau=TAU, weight=WEIGHT), CLEAN, "--model.init_args.sampled=true"],
    "reward_led": [
        _loss("PolicyGradient", tau=TAU),
        OWN,
        "--model.init_args.sampled=true",
        f"--trainer.callbacks={json.dumps(LED_BY_REWARD)}",
    ],
}
"""What each row adds to ``grpo.yaml``. ``sampled`` is ``anchored`` with candidates that the reasoner thinks likely. In
``reward_led`` the reward has its way: a policy gradient over such candidates, of which the average of the highest reward is
kept, whatever becomes of PSNR."""


Tests = dict[Path | None, dict[str, list[Run]]]
"""By folder of photos and by row, one a seed."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``rnr grpo-compare``. Exit status 1 if a run has no result."""
    parser = argparse.ArgumentParser(
        prog="rnr grpo-compare",
        allow_abbrev=False,
        description="Train the third stage by each of its losses and without the reward, test all, and print the "
        "differences, photo by photo. Options that are not listed go to every fit and test, such as "
        "--data.sources.train=[DIR]. Runs that are through are not run again; rows, seeds and test photos may be added.",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/grpo_compare"), help="folder (runs/grpo_compare)")
    parser.add_argument("--configs", type=Path, default=Path("lightning_configs"), help="folder (lightning_configs)")
    parser.add_argument(
        "--steps", type=int, default=40, help="of each fit, validated after each quarter (default 40: a quick look)"
    )
    parser.add_argument(
        "--seeds", type=at_least_one, default=1, help="runs of each row, which differ in their seed (default 1)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="ROW",
        help=f"of {', '.join(METHODS)} (default all); the control is always run",
    )  # fmt: skip
    parser.add_argument(
        "--test", type=Path, nargs="+", default=[None], metavar="FOLDER", help="of test photos, a table each (the config's)"
    )
    parser.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="fits, or tests, at a time (default 1)")
    args, options = parser.parse_known_args(argv)
    if args.steps < 4:
        parser.error(f"argument --steps: must be at least 4, got {args.steps}")
    try:  # hours before a test would
        photos_in([str(photos) for photos in args.test if photos is not None], "test")
    except PhotoError as error:
        parser.exit(2, f"error: {error}\n")
    chains, tests = _runs(args, options)
    # A fit that diverged has kept its best weights, and is tested by those: for algorithm1 that is a result.
    faults = run_all(chains, args.jobs)
    title = f"The third stage, {args.steps} steps, {args.seeds} seed(s), differences with 95 % intervals over photos"
    tables: dict[str, Rows] = {}
    for photos, rows in tests.items():
        files = {name: [run.folder / "test.csv" for run in runs if run.folder not in faults] for name, runs in rows.items()}
        files = {name: paths for name, paths in files.items() if paths}
        for name, why in (mismatched(files, START) if START in files else {}).items():
            print(f"error: {name}: {why}", file=sys.stderr)
            faults[rows[name][0].folder] = why
            del files[name]
        if lacking := {START, CONTROL} - set(files):
            print(f"error: there is no table without the row {sorted(lacking)[0]}", file=sys.stderr)
            continue
        where = "" if photos is None else f"{photos}, "
        tables |= {f"{title}: {where}to the {other}": compared(files, other) for other in (START, CONTROL)}
    if not tables:
        return 1
    for heading, table in tables.items():
        show(heading, table)
    missing = "".join(f"- {folder}: {reason}\n" for folder, reason in faults.items())
    text = "\n".join(f"## {heading}\n\n{markdown(table)}" for heading, table in tables.items())
    write_whole(f"{text}\n{missing}", args.output / "compare.md")
    start = next(iter(tests.values()))[START][0]
    record(["grpo-compare", *argv], tables, None, start.weights).write(args.output / "compare.json")
    return 1 if faults else 0


def _runs(args: argparse.Namespace, options: Sequence[str]) -> tuple[list[list[Run]], Tests]:
    """Of each row and seed the fit and, behind it, its tests; and the tests alone."""
    configs = (args.configs / "grpo.yaml",)
    chains: list[list[Run]] = []
    tests: Tests = {photos: {} for photos in args.test}

    def test(row: str, run: str, own: Sequence[str]) -> list[Run]:
        """On each folder of photos."""
        for photos, rows in tests.items():
            folder, options_of_test = args.output / run, (*options, *own)
            if photos is not None:
                digest = hashlib.sha256(str(photos).encode()).hexdigest()[:6]  # of two folders with names alike
                folder = folder / f"test-{photos.resolve().name}-{digest}"
                options_of_test = (*options_of_test, f"--data.sources.test=[{photos}]")
            rows.setdefault(row, []).append(Run("test", folder, configs, options_of_test))
        return [rows[row][-1] for rows in tests.values()]

    chains.append(test(START, START, ()))
    for name in (each for each in METHODS if each in (*args.only, CONTROL)):
        for seed in range(args.seeds):
            folder = args.output / f"{name}_{seed}" / "fit"
            seeded = (f"--seed_everything={seed}", f"--data.seed={seed}")
            budget = (f"--trainer.max_steps={args.steps}", f"--trainer.val_check_interval={args.steps // 4}")
            fit = Run("fit", folder, configs, (*options, *METHODS[name], *seeded, *budget))
            weights = f"--model.init_args.restorer.init_args.checkpoint={weights_of(folder)}"
            chains.append([fit, *test(name, folder.parent.name, (*METHODS[name], weights))])
    return chains, tests
