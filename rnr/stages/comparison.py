"""Restorers side by side: the ``test.csv`` of several ``rnr test`` runs over the same photos, degraded the same way."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from rnr.metrics.intervals import paired_interval
from rnr.stages.evaluation import Rows

FIGURES = (("psnr", "PSNR (dB)", 2), ("ssim", "SSIM", 4))
SAME_INPUT = 0.02
"""dB between the inputs of two runs up to which they pass for the same: devices round differently, draws differ by more."""

Photos = dict[str, dict[str, float]]
"""A photo's figures by its name; several draws of a photo count by their mean, they are no independent evidence."""


def read(path: Path) -> Photos:
    """The figures in a ``test.csv``. ``ValueError`` if it has no restored photos."""
    draws: dict[str, list[dict[str, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            draws.setdefault(row.pop("photo"), []).append({key: float(value) for key, value in row.items()})
    photos = {name: {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]} for name, rows in draws.items()}
    if not photos or "psnr" not in next(iter(photos.values())):
        raise ValueError(f"{path}: has no figures of restored photos")
    return photos


def compared(files: Mapping[str, Path], reference: str) -> Rows:
    """A row a file: means over photos, and the paired differences to ``reference`` with 95 % intervals.

    ``ValueError`` names the file whose photos or degradations are not those of ``reference``.
    """
    runs = {name: read(path) for name, path in files.items()}
    standard = runs[reference]
    rows: Rows = []
    for name, photos in runs.items():
        _check_same(files[name], photos, standard)
        row = {"": name}
        for key, title, places in FIGURES:
            known = [photo for photo in photos if not math.isnan(photos[photo][key] + standard[photo][key])]
            row[title] = f"{sum(photos[photo][key] for photo in known) / len(known):.{places}f}" if known else "-"
            gap = paired_interval([photos[photo][key] - standard[photo][key] for photo in known])
            told = f"{gap.mean:+.{places}f} [{gap.low:+.{places}f}, {gap.high:+.{places}f}]"
            row[f"{title} to {reference}"] = told if known and name != reference else ""
        rows.append(row)
    return rows


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
