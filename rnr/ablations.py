"""Table 3: the same two stages trained again with one part of the diagnosis, or of the training, left out.

Each row is an overlay in ``lightning_configs/ablations``, and another file another row; all rows share every other setting,
seed and photo. What each row means where the paper does not say stands in ``docs/deviations.md``. Other folders of overlays
make other tables, such as ``lightning_configs/parts``, what each part of the compact restorer brings.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rnr.command_line import at_least_one
from rnr.records import record, write_whole
from rnr.row_runs import Run, common_seed, run_all
from rnr.stage_commands import weights_of
from rnr.stages import published
from rnr.stages.comparison import compared, mismatched
from rnr.stages.evaluation import markdown, show

ROWS = ("without_reasoner_sft", "without_score", "without_parameters", "without_semantics", "without_rl")
"""In the paper's order; others come behind them."""

BEFORE_RL, REFERENCE = "without_rl", "full"
"""The former is the full model before stage 3, so it is not trained again."""

BUDGET = ("max_steps", "val_check_interval")


def main(argv: Sequence[str]) -> int:
    """Entry point of ``rnr ablations``. Exit status 1 if a row has no result."""
    parser = argparse.ArgumentParser(
        prog="rnr ablations",
        allow_abbrev=False,
        description="Train and test the rows of Table 3; what is done is not done again. Options that are not listed go to "
        "every fit and test, such as --data.sources.train=[DIR] --data.sources.test=[DIR].",
    )
    parser.add_argument("-o", "--output", type=Path, help="folder (runs/OVERLAYS)")
    parser.add_argument("--configs", type=Path, default=Path("lightning_configs"), help="folder (lightning_configs)")
    parser.add_argument("--overlays", default="ablations", help="whose rows, a folder therein (ablations: Table 3)")
    parser.add_argument("--sft-steps", type=at_least_one, default=40, help="steps of stage 2 a row (default 40: a look)")
    parser.add_argument("--grpo-steps", type=int, default=4, help="steps of stage 3 a row (default 4; 0: none)")
    parser.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="rows at a time (default 1)")
    args, options = parser.parse_known_args(argv)
    args.output = args.output or Path("runs") / args.overlays
    try:
        rows = _rows(args.configs / args.overlays, args.grpo_steps > 0)
    except ValueError as error:
        parser.error(str(error))
    # The full model comes first: the row before its third stage is tested on the way.
    chains = [_runs(row, args, options) for row in sorted(set(rows) - {BEFORE_RL}, key=lambda row: row != REFERENCE)]
    faults = run_all(chains, args.jobs)
    folders = {row: args.output / row for row in rows}
    files = {row: [folder / "test.csv"] for row, folder in folders.items() if folder not in faults}
    if REFERENCE not in files:
        print(f"error: there is no table without the row {REFERENCE}: {faults[folders[REFERENCE]]}", file=sys.stderr)
        return 1
    for row, why in mismatched(files, REFERENCE).items():
        faults[folders[row]] = why
        del files[row]
    budget = f"{args.sft_steps} + {args.grpo_steps} steps" if args.grpo_steps > 0 else f"{args.sft_steps} steps"
    printed = args.overlays == parser.get_default("overlays")
    name = "Table 3" if printed else f"{args.configs / args.overlays}"
    title = f"{name} at {budget}, measured; differences to the full model with 95 % intervals over photos"
    tables = {title: compared(files, REFERENCE)}
    if printed:
        tables[published.title(3)] = published.rows(published.TABLE_3)
    for each, table in tables.items():
        show(each, table)
    missing = "".join(f"- {folder}: no result: {reason}\n" for folder, reason in faults.items())
    measured, *paper = (f"## {each}\n\n{markdown(table)}" for each, table in tables.items())
    write_whole("\n".join([measured + "\n" + missing, *paper]), args.output / "ablations.md")
    begun_with = [name for chain in chains for name in chain[0].weights]
    seed = common_seed([run for chain in chains for run in chain if run.folder in {folders[row] for row in files}])
    record(["ablations", *argv], tables, seed, begun_with).write(args.output / "ablations.json")
    return 1 if faults else 0


def _rows(folder: Path, third_stage: bool) -> list[str]:
    """In the order of the table: the paper's, those of one's own, the full model."""
    found = {path.stem for path in folder.glob("*.yaml")} | ({BEFORE_RL} if third_stage else set())
    if REFERENCE not in found:
        raise ValueError(f"{folder}: has no {REFERENCE}.yaml to compare with")
    paper = [row for row in ROWS if row in found]
    return [*paper, *sorted(found - {*ROWS, REFERENCE}), REFERENCE]


def _runs(row: str, args: argparse.Namespace, options: Sequence[str]) -> list[Run]:
    """Stage 2, stage 3 on what it left, and the test of the latter; of the full model also that of the former. Without a
    third stage the test of stage 2."""
    folder, overlay = args.output / row, args.configs / args.overlays / f"{row}.yaml"
    stage2, stage3 = ((args.configs / f"{stage}.yaml", overlay) for stage in ("restorer_sft", "grpo"))

    def start(root: Path) -> str:
        return f"--model.init_args.restorer.init_args.checkpoint={weights_of(root)}"

    sft, grpo = folder / "sft", folder / "grpo"
    learned = Run("fit", sft, stage2, (*options, f"--trainer.max_steps={args.sft_steps}"))
    if args.grpo_steps <= 0:
        return [learned, Run("test", folder, stage2, (*options, start(sft)))]
    runs = [
        learned,
        # Validated when it ends, or the best average would still be its start.
        Run("fit", grpo, stage3, (*options, *(f"--trainer.{name}={args.grpo_steps}" for name in BUDGET), start(sft))),
        Run("test", folder, stage3, (*options, start(grpo))),
    ]
    if row == REFERENCE:
        runs.append(Run("test", args.output / BEFORE_RL, stage3, (*options, start(sft))))
    return runs
