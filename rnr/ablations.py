"""Table 3: the same two stages trained again with one part of the diagnosis, or of the training, left out.

Each row is an overlay in ``lightning_configs/ablations``; all rows share every other setting, seed and photo. What each
row means where the paper does not say stands in ``docs/deviations.md``.
"""

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

from rnr.metrics.intervals import paired_interval
from rnr.stage_commands import run, weights_of
from rnr.stages.evaluation import Rows, markdown, show

ROWS = ("without_reasoner_sft", "without_score", "without_parameters", "without_semantics", "without_rl", "full")
"""In the paper's order. ``without_rl`` is the full model before stage 3, so it is not trained again."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``rnr ablations``."""
    parser = argparse.ArgumentParser(
        prog="rnr ablations",
        allow_abbrev=False,
        description="Train and test the rows of Table 3. Options that are not listed go to every fit and test, such as "
        "--data.sources.train=[DIR] --data.sources.test=[DIR].",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/ablations"), help="folder (runs/ablations)")
    parser.add_argument("--configs", type=Path, default=Path("lightning_configs"), help="folder (lightning_configs)")
    parser.add_argument("--sft-steps", type=int, default=40, help="steps of stage 2 a row (default 40: a quick look)")
    parser.add_argument("--grpo-steps", type=int, default=4, help="steps of stage 3 a row (default 4)")
    args, passed_on = parser.parse_known_args(argv)
    # The full model comes first: the row before its third stage is tested on the way.
    for row in sorted(ROWS, key=lambda row: row != "full"):
        if row != "without_rl":
            _train_and_test(row, args, passed_on)
    rows = table({row: args.output / row / "test.csv" for row in ROWS})
    title = f"Table 3 at {args.sft_steps} + {args.grpo_steps} steps; differences to the full model with 95 % intervals"
    show(title, rows)
    (args.output / "table3.md").write_text(f"## {title}\n\n{markdown(rows)}", encoding="utf-8")
    return 0


def _train_and_test(row: str, args: argparse.Namespace, passed_on: Sequence[str]) -> None:
    folder = args.output / row
    overlay = ["--config", str(args.configs / "ablations" / f"{row}.yaml")]
    stage2 = ["--config", str(args.configs / "restorer_sft.yaml"), *overlay, *passed_on]
    stage3 = ["--config", str(args.configs / "grpo.yaml"), *overlay, *passed_on]

    def place(root: Path) -> str:
        return f"--trainer.default_root_dir={root}"

    def start(root: Path) -> str:
        return f"--model.init_args.restorer.init_args.checkpoint={weights_of(root)}"

    run(["fit", *stage2, place(folder / "sft"), f"--trainer.max_steps={args.sft_steps}"])
    run(["fit", *stage3, place(folder / "grpo"), f"--trainer.max_steps={args.grpo_steps}", start(folder / "sft")])
    run(["test", *stage3, place(folder), start(folder / "grpo")])
    if row == "full":
        run(["test", *stage3, place(args.output / "without_rl"), start(folder / "sft")])


def table(files: dict[str, Path]) -> Rows:
    """One row a ``test.csv``, and one for the input; the last is what the others are compared with, photo by photo."""
    photos = {name: _read(path) for name, path in files.items()}
    *_, reference = photos.values()
    rows: Rows = []
    for name, values in {"input": _inputs(reference), **photos}.items():
        row = {"": name}
        for key, title, places in (("psnr", "PSNR (dB)", 2), ("ssim", "SSIM", 4)):
            known = [photo for photo in values if not math.isnan(values[photo][key])]
            row[title] = f"{sum(values[photo][key] for photo in known) / len(known):.{places}f}" if known else "-"
            gap = paired_interval([values[photo][key] - reference[photo][key] for photo in known])
            same = values is reference
            row[f"{title} to full"] = (
                "" if same else f"{gap.mean:+.{places}f} [{gap.low:+.{places}f}, {gap.high:+.{places}f}]"
            )
        rows.append(row)
    return rows


def _read(path: Path) -> dict[str, dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row.pop("photo"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def _inputs(photos: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {"psnr": row["input_psnr"], "ssim": row["input_ssim"]} for name, row in photos.items()}
