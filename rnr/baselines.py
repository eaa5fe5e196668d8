"""Table 2: every restorer in ``lightning_configs/baselines`` through the one evaluation, over the same photos.

A row is a file there; another file is another row. What some rows need trained first are the overlays in ``training``
beside them. A row whose weights or code are not at hand is told and left out of the figures.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rnr.command_line import at_least_one
from rnr.records import record, write_whole
from rnr.row_runs import Run, common_seed, run_all
from rnr.stages import published
from rnr.stages.comparison import compared, mismatched
from rnr.stages.evaluation import Rows, markdown, show

FOLDER = Path("runs/baselines")
TRAINED = FOLDER / "training"
"""Where the configurations look for the networks of one task."""

FIRST, REFERENCE = "identity", "rnr"


def main(argv: Sequence[str]) -> int:
    """Entry point of ``rnr baselines``. Exit status 1 if a row failed; where no rows are named, one that lacks its weights or
    its code has not."""
    parser = argparse.ArgumentParser(
        prog="rnr baselines",
        allow_abbrev=False,
        description="Test the rows of Table 2; rows that are done are not run again. Options that are not listed go to every "
        "run, such as --data.sources.train=[DIR] --data.sources.test=[DIR] --data.eval_draws=3.",
    )
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help=f"folder ({FOLDER})")
    parser.add_argument("--configs", type=Path, default=Path("lightning_configs"), help="folder (lightning_configs)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="files in baselines/ without .yaml (default: all)")
    parser.add_argument(
        "--steps", type=int, default=0,
        help="train the networks of one task anew, so many steps each (default: those trained before, or else as they ship)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=at_least_one, default=1, metavar="N", help="rows at a time (default 1; seconds a photo suffer)"
    )
    args, options = parser.parse_known_args(argv)
    if args.steps < 0:
        parser.error(f"argument --steps: must be at least 0, got {args.steps}")
    try:
        rows = _rows(args.configs / "baselines", args.rows)
    except ValueError as error:
        parser.error(str(error))
    training = _training(args.configs, rows, [*options, f"--trainer.max_steps={args.steps}"]) if args.steps else []
    untrained = run_all([[run] for run in training], args.jobs)
    tests = [Run("test", args.output / name, (path,), tuple(options)) for name, path in rows.items()]
    absent = {run.folder.name for run in tests if run.lacking() is not None}
    begun = {run: [folder for folder in untrained if run.names(folder)] for run in tests}
    faults = {run.folder.name: f"{folders[0]} was not trained" for run, folders in begun.items() if folders}
    trained = [[run] for run, folders in begun.items() if not folders]
    faults |= {folder.name: why for folder, why in run_all(trained, args.jobs).items()}
    faults |= {str(folder): why for folder, why in untrained.items()}
    files = {run.folder.name: [run.folder / "test.csv"] for run in tests if run.folder.name not in faults}
    if REFERENCE not in files:
        print(f"error: there is no table without the row {REFERENCE}: {faults[REFERENCE]}", file=sys.stderr)
        return 1
    faults |= mismatched(files, REFERENCE)
    shown = [run for run in tests if run.folder.name not in faults]
    weights = [name for run in shown for name in run.weights]
    own = any(name.startswith(TRAINED.as_posix()) for name in weights)
    tables = _report({run.folder.name: files[run.folder.name] for run in shown}, faults, own, args.output / "table2.md")
    record(["baselines", *argv], tables, common_seed(shown), weights).write(args.output / "table2.json")
    return 1 if faults.keys() - (set() if args.rows else absent) else 0


def _rows(folder: Path, names: Sequence[str] | None) -> dict[str, Path]:
    """The configuration of each row, the input first and the row that the others are compared with last."""
    found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if REFERENCE not in found:
        raise ValueError(f"{folder}: has no {REFERENCE}.yaml to compare with")
    if unknown := set(names or ()) - set(found):
        raise ValueError(f"{folder}: has no {sorted(unknown)[0]}.yaml; rows are {', '.join(found)}")
    chosen = {*names, REFERENCE} if names else set(found)
    return {name: found[name] for name in sorted(chosen, key=lambda n: (n != FIRST, n == REFERENCE, n))}


def _training(configs: Path, rows: dict[str, Path], options: Sequence[str]) -> list[Run]:
    """What has to be trained for ``rows``: the overlays whose weights one of them names."""
    said = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in rows.values())
    overlays = sorted((configs / "baselines" / "training").glob("*.yaml"))
    folders = {overlay: TRAINED / overlay.stem for overlay in overlays}
    return [
        Run("fit", folder, (configs / "restorer_sft.yaml", overlay), tuple(options))
        for overlay, folder in folders.items()
        if f"{folder.as_posix()}/weights" in said
    ]


def _report(files: dict[str, list[Path]], faults: dict[str, str], own: bool, path: Path) -> dict[str, Rows]:
    """Prints the tables, what was measured and what the paper has, and writes them. own: networks of one task are those
    trained here."""
    tables = {
        f"Table 2, measured; differences to {REFERENCE} with 95 % intervals over photos": compared(files, REFERENCE),
        published.title(2): published.rows(published.TABLE_2),
    }
    (title, measured), (paper_title, paper) = tables.items()
    for each, rows in tables.items():
        show(each, rows)
    trained = f"\nNetworks of one task are those in {TRAINED}, not those that ship.\n" if own else ""
    missing = "".join(f"- {name}: no result: {reason}\n" for name, reason in faults.items())
    write_whole(f"## {title}\n\n{markdown(measured)}{trained}\n{missing}\n## {paper_title}\n\n{markdown(paper)}", path)
    print(path)
    return tables
