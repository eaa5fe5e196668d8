"""What ``rnr test`` measures, photo by photo, and the tables it prints and writes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from rnr.metrics.perceptual import Lpips
from rnr.metrics.restoration import SSIM_WINDOW, psnr, ssim
from rnr.metrics.scenes import scene_figures
from rnr.records import write_rows, write_whole
from rnr.stages.cost import Cost

Rows = list[dict[str, Any]]

COST = "Cost of a photo, all that is done to it, without the first batch"


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
    """Collects photos, and says what became of them. Photos too small for SSIM have NaN there and leave its means.

    lpips: measures that too, if given. where: what the restorer runs on, for people."""

    seen: list[Seen] = field(default_factory=list)
    lpips: Lpips | None = None
    where: str = ""

    def add(
        self,
        batch: DegradedBatch,
        predicted: Sequence[Diagnosis | ParseFailure] | None,
        restored: Tensor | None,
        cost: Cost = Cost(),  # noqa: B008  (nothing writes to it)
    ) -> None:
        """``predicted``: what the reasoner says of the batch, if asked. ``restored``: (B, 3, H, W), if restored. ``cost``: of
        both."""
        columns = {f"input_{name}": values for name, values in self._figures(batch.degraded, batch.clean).items()}
        if restored is not None:
            columns |= self._figures(restored, batch.clean)
        lists = {name: values.tolist() for name, values in columns.items()}
        lists |= {name: [value] * len(batch.names) for name, value in asdict(cost).items()}
        for i, name in enumerate(batch.names):
            row = {"photo": name, **{key: values[i] for key, values in lists.items()}}
            both = () if predicted is None else (_numbers(predicted[i]), _numbers(batch.truth[i]))
            self.seen.append(Seen(name, batch.seed[i], row, *both))

    def _figures(self, images: Tensor, clean: Tensor) -> dict[str, Tensor]:
        figures = {"psnr": psnr(images, clean), "ssim": _ssim(images, clean)}
        return figures if self.lpips is None else figures | {"lpips": self.lpips(images, clean)}

    def gathered(self) -> "Evaluation":
        """That of all processes together, the same on each, every draw of a photo once, in an order of their own. All
        processes have to call this."""
        parts = [self.seen]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [[]] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self.seen)
        once = {(each.photo, each.seed): each for part in parts for each in part}
        return replace(self, seen=[once[key] for key in sorted(once)])

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
        """Each figure of the input and of what was restored, and the paired difference with its 95 % interval."""
        titles = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 4)}
        if self.lpips is not None:
            titles["lpips"] = (self.lpips.name, 4)
        rows: Rows = [{"": "input", **{title: f"{self.mean(f'input_{key}'):.{n}f}" for key, (title, n) in titles.items()}}]
        if "psnr" in self.photos[0]:
            rows.append({"": "restored", **{title: f"{self.mean(key):.{n}f}" for key, (title, n) in titles.items()}})
            rows.append({"": "gain", **{title: self._gain(key, n) for key, (title, n) in titles.items()}})
        return rows

    def cost_rows(self) -> Rows:
        """Seconds and memory, as :mod:`rnr.stages.cost` has them; none if no batch but the first was there."""
        known = [row for row in self.photos if not math.isnan(row["seconds"])]
        if not known:
            return []
        spent = [row["seconds"] for row in known]
        return [
            {
                "": self.where,
                "photos": len(known),
                "s a photo": f"{sum(spent) / len(spent):.2f}",
                "slowest": f"{max(spent):.2f}",
                "peak memory (MiB)": _number(max(row["peak_mib"] for row in known), 0),
            }
        ]

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

    def tables(self) -> dict[str, Rows]:
        """All that there is to say, by title."""
        diagnosed = self.figures()
        photos = len({row["photo"] for row in self.photos})
        looks = "" if photos == len(self.photos) else f" degraded {len(self.photos) / photos:g} times each"
        tables = {f"Restoration, {photos} photos{looks}, with 95 % intervals": self.restoration_rows()}
        if diagnosed is not None:
            title = f"Diagnosis, {diagnosed.photos} photos, {math.floor(100 * diagnosed.parse_rate)}% of answers parse"
            tables[title] = self.diagnosis_rows()
            tables["Parameters of what is there and found"] = [
                {
                    "": f"{p.kind} {p.parameter}",
                    "photos": p.photos,
                    "MAE": _number(p.mae, 4),
                    "MAE of the mean": _number(p.mae_of_mean, 4),
                    "unit": p.unit,
                }
                for p in diagnosed.parameters
            ]
        scenes = "Scenes: chrF to the reference, and words of degradation"
        tables |= {scenes: self.scene_rows(), COST: self.cost_rows()}
        return {title: rows for title, rows in tables.items() if rows}

    def report(self, directory: Path) -> None:
        """Prints the tables; writes ``test.md`` and, photo by photo, ``test.csv`` into ``directory``."""
        tables = self.tables()
        for title, rows in tables.items():
            show(title, rows)
        write_whole(document(tables), directory / "test.md")
        write_rows(self.photos, directory / "test.csv")


def show(title: str, rows: Rows) -> None:
    """Prints ``rows`` as a table."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=name == "", overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=110).print(table)


def markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "| " + " | ".join("---" for _ in rows[0]) + " |"]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def document(tables: Mapping[str, Rows]) -> str:
    """Markdown, a section a table."""
    return "\n".join(f"## {title}\n\n{markdown(rows)}" for title, rows in tables.items())


def _number(value: float, places: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{places}f}"


def _numbers(diagnosis: Diagnosis | ParseFailure) -> tuple[list[float], str | None]:
    return encode(diagnosis), diagnosis.scene if isinstance(diagnosis, Diagnosis) else None


def _ssim(images: Tensor, clean: Tensor) -> Tensor:
    if min(clean.shape[-2:]) < SSIM_WINDOW:
        return torch.full((len(clean),), math.nan)
    return ssim(images, clean)
