"""What ``rnr test`` measures, photo by photo, and the tables it prints and writes."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rnr.data.batch import DegradedBatch
from rnr.diagnosis import Diagnosis, ParseFailure
from rnr.metrics.diagnosis import DiagnosisFigures, encode, figures
from rnr.metrics.intervals import paired_interval
from rnr.metrics.restoration import SSIM_WINDOW, psnr, ssim
from rnr.metrics.scenes import scene_figures

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Seen:
    """What became of one photo. seed: tells its draws apart. row: of the table of photos. answer, truth: diagnoses in
    numbers (see :func:`rnr.metrics.diagnosis.encode`) and their scenes; None if nothing was diagnosed."""

    photo: str
    seed: int
    row: dict[str, Any]
    answer: tuple[list[float], str | None] | None = None
    truth: tuple[list[float], str | None] | None = None


@dataclass
class Evaluation:
    """Collects photos, and says what became of them. Photos too small for SSIM have NaN there and leave its means."""

    seen: list[Seen] = field(default_factory=list)

    def add(
        self,
        batch: DegradedBatch,
        predicted: Sequence[Diagnosis | ParseFailure] | None,
        restored: Tensor | None,
    ) -> None:
        """``predicted``: what the reasoner says of the batch, if asked. ``restored``: (B, 3, H, W), if restored."""
        columns = {"input_psnr": psnr(batch.degraded, batch.clean), "input_ssim": _ssim(batch.degraded, batch.clean)}
        if restored is not None:
            columns |= {"psnr": psnr(restored, batch.clean), "ssim": _ssim(restored, batch.clean)}
        lists = {name: values.tolist() for name, values in columns.items()}
        for i, name in enumerate(batch.names):
            row = {"photo": name, **{key: values[i] for key, values in lists.items()}}
            both = () if predicted is None else (_numbers(predicted[i]), _numbers(batch.truth[i]))
            self.seen.append(Seen(name, batch.seed[i], row, *both))

    def gathered(self) -> "Evaluation":
        """That of all processes together, the same on each, every draw of a photo once, in an order of their own. All
        processes have to call this."""
        parts = [self.seen]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [[]] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self.seen)
        once = {(each.photo, each.seed): each for part in parts for each in part}
        return Evaluation([once[key] for key in sorted(once)])

    @property
    def photos(self) -> Rows:
        """A row a photo and draw."""
        return [each.row for each in self.seen]

    def mean(self, key: str) -> float:
        values = [row[key] for row in self.photos if not math.isnan(row[key])]
        return sum(values) / len(values) if values else math.nan

    def figures(self) -> DiagnosisFigures | None:
        """Of the diagnoses; None if there are none."""
        asked = [each for each in self.seen if each.answer and each.truth]
        tables = ([each.answer[0] for each in asked], [each.truth[0] for each in asked])
        return figures(*(torch.tensor(table, dtype=torch.float64) for table in tables)) if asked else None

    def restoration_rows(self) -> Rows:
        """PSNR and SSIM of the input and of what was restored, and the paired difference with its 95 % interval."""
        rows: Rows = [
            {"": "input", "PSNR (dB)": f"{self.mean('input_psnr'):.2f}", "SSIM": f"{self.mean('input_ssim'):.4f}"}
        ]
        if "psnr" in self.photos[0]:
            rows.append({"": "restored", "PSNR (dB)": f"{self.mean('psnr'):.2f}", "SSIM": f"{self.mean('ssim'):.4f}"})
            rows.append({"": "gain", "PSNR (dB)": self._gain("psnr", 2), "SSIM": self._gain("ssim", 4)})
        return rows

    def _gain(self, key: str, places: int) -> str:
        """Over photos: several degradations of one photo are no independent evidence, and count by their mean."""
        gains: dict[str, list[float]] = {}
        for row in self.photos:
            if not math.isnan(gain := row[key] - row[f"input_{key}"]):
                gains.setdefault(row["photo"], []).append(gain)
        gain = paired_interval([sum(each) / len(each) for each in gains.values()])
        return f"{gain.mean:+.{places}f} [{gain.low:+.{places}f}, {gain.high:+.{places}f}]"

    def diagnosis_rows(self) -> Rows:
        """Presence and severity of each degradation beside the rivals that do not look; none if nothing was diagnosed."""
        if (diagnosed := self.figures()) is None:
            return []
        return [
            {
                "": kind.kind,
                "present": kind.photos,
                "precision": _number(kind.precision, 3),
                "recall": _number(kind.recall, 3),
                "F1": _number(kind.f1, 3),
                "F1 of always-yes": _number(kind.f1_of_always_yes, 3),
                "severity MAE": _number(kind.severity_mae, 1),
                "MAE of the mean": _number(kind.severity_mae_of_mean, 1),
                "rank correlation": _number(kind.severity_rank_correlation, 2),
            }
            for kind in diagnosed.kinds
        ]

    def scene_rows(self) -> Rows:
        """What is said of the clean scenes, beside another photo's reference; none if no scene is said and known."""
        asked = [each for each in self.seen if each.answer and each.truth]
        scenes = scene_figures([each.answer[1] for each in asked], [each.truth[1] for each in asked])
        if not scenes.photos:
            return []
        return [
            {
                "photos": scenes.photos,
                "chrF": _number(scenes.overlap, 3),
                "chrF of another's": _number(scenes.overlap_of_another, 3),
                "forbidden": f"{scenes.forbidden:.1%}",
            }
        ]

    def report(self, directory: Path) -> None:
        """Prints the tables; writes ``test.md`` and, photo by photo, ``test.csv`` into ``directory``."""
        diagnosed = self.figures()
        photos = len({row["photo"] for row in self.photos})
        looks = "" if photos == len(self.photos) else f" degraded {len(self.photos) / photos:g} times each"
        titles = {f"Restoration, {photos} photos{looks}, with 95 % intervals": self.restoration_rows()}
        if diagnosed is not None:
            title = f"Diagnosis, {diagnosed.photos} photos, {diagnosed.parse_rate:.0%} of answers parse"
            titles[title] = self.diagnosis_rows()
            titles["Parameters of what is there and found"] = [
                {
                    "": f"{p.kind} {p.parameter}",
                    "photos": p.photos,
                    "MAE": _number(p.mae, 4),
                    "MAE of the mean": _number(p.mae_of_mean, 4),
                    "unit": p.unit,
                }
                for p in diagnosed.parameters
            ]
            if rows := self.scene_rows():
                titles["Scenes: chrF to the reference, and words of degradation"] = rows
        for title, rows in titles.items():
            show(title, rows)
        directory.mkdir(parents=True, exist_ok=True)
        text = "\n".join(f"## {title}\n\n{markdown(rows)}" for title, rows in titles.items())
        (directory / "test.md").write_text(text, encoding="utf-8")
        with (directory / "test.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.photos[0]))
            writer.writeheader()
            writer.writerows(self.photos)


def show(title: str, rows: Rows) -> None:
    """Prints ``rows`` as a table."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=110).print(table)


def markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "| " + " | ".join("---" for _ in rows[0]) + " |"]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _number(value: float, places: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{places}f}"


def _numbers(diagnosis: Diagnosis | ParseFailure) -> tuple[list[float], str | None]:
    return encode(diagnosis), diagnosis.scene if isinstance(diagnosis, Diagnosis) else None


def _ssim(images: Tensor, clean: Tensor) -> Tensor:
    if min(clean.shape[-2:]) < SSIM_WINDOW:
        return torch.full((len(clean),), math.nan)
    return ssim(images, clean)
