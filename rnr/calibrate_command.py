"""``rnr calibrate``: held-out photos tell how sure the reasoner may be.

Photos are degraded and examined once; temperatures and margins are fitted on what the reasoner weighed, which takes a
moment. A photo that cannot be used costs one line on stderr; the rest go on, and the command exits with 1 at the end.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from safetensors import SafetensorError

from rnr.atomic import whole
from rnr.command_line import Failures, add_drawing, add_photo_sources, add_weights, photos_from, progress
from rnr.data import presets
from rnr.data.draws import draws_of
from rnr.data.photos import Photo, PhotoError
from rnr.degradation import Degrader
from rnr.diagnosis import FIELDS, KINDS, Diagnosis, ParseFailure
from rnr.diagnosis.text import NAMES
from rnr.diagnosis.types import FINDINGS, quantities
from rnr.metrics.calibration import LEVELS, area_under_roc, presence_figures, reliability
from rnr.models.calibration import Look, Told, chances, crossed, fit, proven, told
from rnr.models.estimates import Calibration, Reading
from rnr.models.form import Form
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.records import record
from rnr.stages.evaluation import Rows, show

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FITTED = FIELDS[:3]  # a scene has no numbers
TEMPERATURES = "Temperatures of presence, fitted on all photos (before → after), and which are written"
MARGINS = "Margins of intervals, fitted on all photos (before → after), and which are written"


def calibrate(argv: Sequence[str]) -> int:
    """Fits and shows how sure the reasoner may be."""
    parser = argparse.ArgumentParser(
        prog="rnr calibrate",
        description="Degrade held-out photos, examine them, and fit what makes the reasoner as sure as it may be: a "
        "temperature for each presence, and margins for the intervals of each number. PHOTOS must be none that it was "
        "trained on, where it is surer than elsewhere, nor any that figures are reported of. Nothing that one look says "
        "changes, only how sure it is; the compact restorer goes by that too. The figures 'after' are of what the other "
        "half of the photos gave, those 'before' of none of it, and where they are no better none is written; the rivals "
        "never look: one says the base rate, one the middle of the true numbers. 'AUC' is the area under the ROC curve; "
        "'within a photo', which takes several draws, counts only pairs of degradations of the same photo. All is of a "
        "single look at each, "
        "whatever else the reasoner would look at.",
    )
    add_photo_sources(parser)
    add_weights(parser, "reasoner")
    add_drawing(parser)
    parser.add_argument(
        "--figure", type=Path, default=Path("reliability.png"), metavar="FILE",
        help="picture of the figures (default reliability.png); the tables go beside it, as JSON",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="write the calibrated reasoner, a new folder")
    args = parser.parse_args(argv)
    if args.output is not None and args.output.exists():
        parser.error(f"argument -o/--output: {args.output} is there already; name a new folder")
    if (kind := args.figure.suffix[1:].lower()) not in (kinds := FigureCanvasAgg.get_supported_filetypes()):
        parser.error(f"argument --figure: {args.figure} must end in one of {', '.join(sorted(kinds))}, got {kind!r}")
    try:
        degrader = presets.load(args.preset)
        photos = photos_from(args)
        reasoner = Qwen3VLReasoner(args.reasoner).eval().to(DEVICE)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # PhotoError too
        parser.exit(2, f"error: {error}\n")
    looks, failed = _examine(reasoner, degrader, photos, args.draws, args.seed)
    if not looks:
        parser.exit(1, "error: none of the photos could be examined\n")
    # Not what the reasoner has already: that may come from these very photos.
    before, fitted, elsewhere = Calibration(), fit(looks, reasoner.form), crossed(looks, reasoner.form)
    kept = proven(looks, before, elsewhere, fitted, reasoner.form)
    try:
        tables = _report(looks, [before] * len(looks), elsewhere, reasoner.form, args.figure)
        tables[TEMPERATURES] = _temperature_rows(before, fitted, kept)
        tables[MARGINS] = _margin_rows(before, fitted, kept)
        for title, rows in tables.items():
            show(title, rows)
        print(f"figure: {args.figure}")
        record(["calibrate", *argv], tables, args.seed, [args.reasoner]).write(args.figure.with_suffix(".json"))
        if args.output is not None:
            reasoner.calibration = kept
            _save(reasoner, args.output)
    except OSError as error:  # a full disk; it names the file
        parser.exit(1, f"error: {error}\n")
    return 1 if failed else 0


def _examine(
    reasoner: Qwen3VLReasoner, degrader: Degrader, photos: Sequence[Photo], draws: int, seed: int
) -> tuple[list[Look], int]:
    """All looks, and how many photos failed."""
    looks, failures = [], Failures()
    with progress("photos") as bar:
        for index, photo in enumerate(bar.track(photos)):
            with failures.passing_over(photo):
                for reading, truth in _degraded(reasoner, degrader, photo, draws, seed):
                    if isinstance(reading, ParseFailure):
                        raise PhotoError(f"{photo.path}: the reasoner's answer is no diagnosis ({reading.reason})")
                    looks.append(Look(index, reading, truth))
    return looks, failures.count


@torch.no_grad()
def _degraded(
    reasoner: Qwen3VLReasoner, degrader: Degrader, photo: Photo, draws: int, seed: int
) -> list[tuple[Reading | ParseFailure, Diagnosis]]:
    """What is read of ``draws`` degradations of a photo, each with its truth. The draws are those of an evaluation."""
    batch = draws_of(photo, degrader, draws, seed, DEVICE)
    return list(zip(reasoner.weigh(batch.degraded, FITTED), batch.truth, strict=True))


def _report(
    looks: Sequence[Look], before: Sequence[Calibration], after: Sequence[Calibration], form: Form, file: Path
) -> dict[str, Rows]:
    """Draws the picture ``file``, and returns the tables of what it shows."""
    both = (before, after)
    photo = torch.tensor([look.photo for look in looks])
    presence: Rows = []
    for kind in KINDS:
        given, there = chances(looks, before, kind)
        old, new = (presence_figures(*chances(looks, at, kind)) for at in both)
        presence.append(
            {
                "": NAMES[kind],
                "Brier": f"{old.brier:.3f} → {new.brier:.3f}",
                "of the base rate": f"{old.brier_of_base_rate:.3f}",
                "ECE": f"{old.ece:.3f} → {new.ece:.3f}",
                "by chance": f"{old.ece_by_chance:.3f} → {new.ece_by_chance:.3f}",
                "AUC": _share(area_under_roc(given, there)),
                "within a photo": _share(area_under_roc(given, there, photo)),
            }
        )
    old, new = (told(looks, at, form) for at in both)
    widest = LEVELS[-1]
    intervals: Rows = []
    for (kind, key), one in old.items():
        other = new[kind, key]
        covered = ((level, one.figures(level).covered, other.figures(level).covered) for level in LEVELS)
        narrow, wide = one.figures(widest), other.figures(widest)
        intervals.append(
            {
                "": f"{kind} {key.replace('_', ' ')}",
                "n": len(one.truth),
                **{f"{level:.0%} covers": f"{first:.0%} → {second:.0%}" for level, first, second in covered},
                f"width of {widest:.0%}": f"{narrow.width:.3g} → {wide.width:.3g}",
                "of the rival": f"{wide.width_of_rival:.3g}",
                "unit": one.spec.unit,
            }
        )
    _draw(looks, both, (old, new), file)
    return {
        f"Presence, {len(looks)} photos degraded (before → after)": presence,
        "Intervals of what is there and found (before → after)": intervals,
    }


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _temperature_rows(before: Calibration, after: Calibration, kept: Calibration) -> Rows:
    return [
        {
            "": NAMES[kind],
            "presence": f"{before.presence[kind]:.2f} → {after.presence[kind]:.2f}",
            "written": f"{kept.presence[kind]:.2f}",
        }
        for kind in KINDS
    ]


def _margin_rows(before: Calibration, after: Calibration, kept: Calibration) -> Rows:
    rows: Rows = []
    for kind, stated in after.margins.items():
        for key in stated:
            three = [[each.margin(kind, key, level) for level in LEVELS] for each in (before, after, kept)]
            moves = {f"{level:.0%}": f"{old:.3g} → {new:.3g}" for level, old, new in zip(LEVELS, *three[:2], strict=True)}
            written = ", ".join(f"{each:.3g}" for each in three[2])
            unit = quantities(FINDINGS[kind])[key].unit
            rows.append({"": f"{kind} {key.replace('_', ' ')}", **moves, "written": written, "unit": unit})
    return rows


def _draw(
    looks: Sequence[Look],
    both: Sequence[Sequence[Calibration]],
    intervals: Sequence[dict[tuple[str, str], Told]],
    file: Path,
) -> None:
    """Above, what share of the photos has a degradation against the chance that was given; below, what share of the
    severities lies in their intervals against the share that should."""
    figure = Figure(figsize=(3 * len(KINDS), 6.4), layout="constrained")
    grid = figure.subplots(2, len(KINDS), sharex=True, sharey=True)
    for column, kind in enumerate(KINDS):
        for axes in grid[:, column]:
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for name, at, found in zip(("before", "after"), both, intervals, strict=True):
            points = reliability(*chances(looks, at, kind))
            grid[0, column].plot(points.chance, points.share, marker="o", markersize=4, label=name)
            if severity := found.get((kind, "severity")):
                shares = [severity.figures(level).covered for level in LEVELS]
                grid[1, column].plot(LEVELS, shares, marker="o", markersize=4, label=name)
        grid[0, column].set(title=NAMES[kind], xlabel="chance given")
        grid[1, column].set(xlabel="share that intervals should cover")
    grid[0, 0].set(ylabel="share of photos that have it", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    grid[1, 0].set(ylabel="share of severities that they cover")
    grid[0, 0].legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as place:
        figure.savefig(place, format=file.suffix[1:], dpi=110)


def _save(reasoner: Qwen3VLReasoner, folder: Path) -> None:
    """Whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.part")
    reasoner.save(partial)
    partial.replace(folder)
    print(f"calibrated reasoner: {folder}")
