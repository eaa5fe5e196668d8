"""Restorers side by side: the ``test.csv`` of several ``rnr test`` runs over the same photos, degraded the same way."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rnr.metrics.intervals import paired_interval
from rnr.stages.evaluation import Rows

FIGURES = (("psnr", "PSNR (dB)", 2), ("ssim", "SSIM", 4), ("lpips", "LPIPS", 4), ("reward", "reward", 1))
"""Columns of a ``test.csv``; one that a run lacks is left out of the table."""

PEAK = "peak_mib"
COSTS = (("seconds", "s a photo", 2, fmean), (PEAK, "MiB at the peak", 0, max))
"""Columns of a ``test.csv`` that say what a photo cost, and what counts of them."""

SAME_INPUT = 0.02
"""dB between the inputs of two runs up to which they pass for the same: devices round differently, draws differ by more."""

Photos = dict[str, dict[str, float]]
"""A photo's figures by its name; its draws, and several seeds of a run, count by their mean: they are no independent
evidence, and an interval speaks of other photos. Of memory the peak counts."""


def read(files: Sequence[Path]) -> Photos:
    """The figures in the ``test.csv`` of one run, or of its seeds. ``ValueError`` if one has no restored photos."""
    draws: dict[str, list[dict[str, float]]] = {}
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        if not found or "psnr" not in found[0]:
            raise ValueError(f"{path}: has no figures of restored photos")
        for row in found:
            draws.setdefault(row.pop("photo"), []).append({key: float(value) for key, value in row.items()})
    return {name: {key: _one(key, [row[key] for row in rows]) for key in rows[0]} for name, rows in draws.items()}


def mismatched(files: Mapping[str, Sequence[Path]], reference: str) -> dict[str, str]:
    """The runs that cannot stand in one table with ``reference``, and why: other photos, or other degradations.
    ``ValueError`` if ``reference`` has no figures itself."""
    standard, faults = read(files[reference]), {}
    for name, paths in files.items():
        try:
            _check_same(paths[0], read(paths), standard)
        except ValueError as error:
            faults[name] = str(error)
    return faults


def compared(files: Mapping[str, Sequence[Path]], reference: str) -> Rows:
    """A row a run: means over photos, and the paired differences to ``reference`` with 95 % intervals. Of runs with
    several seeds, a file each, also the range of their PSNR; of all that say it, what a photo costs, which is no paired
    figure: seconds, and memory at the peak.

    ``ValueError`` names the run whose photos or degradations are not those of ``reference``.
    """
    runs = {name: read(paths) for name, paths in files.items()}
    standard = runs[reference]
    shared = [each for each in FIGURES if all(each[0] in figures for photos in runs.values() for figures in photos.values())]
    costs = [each for each in COSTS if all(each[0] in figures for photos in runs.values() for figures in photos.values())]
    rows: Rows = []
    for name, photos in runs.items():
        _check_same(files[name][0], photos, standard)
        row = {"": name}
        for key, title, places in shared:
            known = [photo for photo in photos if not math.isnan(photos[photo][key] + standard[photo][key])]
            row[title] = f"{sum(photos[photo][key] for photo in known) / len(known):.{places}f}" if known else "-"
            gap = paired_interval([photos[photo][key] - standard[photo][key] for photo in known])
            told = f"{gap.mean:+.{places}f} [{gap.low:+.{places}f}, {gap.high:+.{places}f}]"
            row[f"{title} to {reference}"] = told if known and name != reference else ""
        for key, title, places, summed in costs:
            cost = summed(known) if (known := _known(figures[key] for figures in photos.values())) else math.nan
            row[title] = "-" if math.isnan(cost) else f"{cost:.{places}f}"
        if max(map(len, files.values())) > 1:
            seeds = [_mean_psnr(read([path])) for path in files[name]]
            row["PSNR by seed"] = f"{min(seeds):.2f} to {max(seeds):.2f}"
        rows.append(row)
    return rows


def _mean_psnr(photos: Photos) -> float:
    return _mean(figures["psnr"] for figures in photos.values())


def _mean(values: Iterable[float]) -> float:
    """Of those that are known; NaN without any."""
    known = _known(values)
    return fmean(known) if known else math.nan


def _one(key: str, values: Sequence[float]) -> float:
    """A photo's figure, of those of its draws."""
    return max(_known(values), default=math.nan) if key == PEAK else _mean(values)


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _check_same(path: Path, photos: Photos, standard: Photos) -> None:
    if strangers := photos.keys() ^ standard.keys():
        raise ValueError(f"{path}: other photos than the rest of the table, such as {sorted(strangers)[0]}")
    for name in photos:
        ours, theirs = photos[name]["input_psnr"], standard[name]["input_psnr"]
        if abs(ours - theirs) > SAME_INPUT:
            raise ValueError(
                f"{path}: {name} is degraded otherwise than in the rest of the table, its input has {ours:.2f} dB there "
                f"and {theirs:.2f} dB elsewhere"
            )
