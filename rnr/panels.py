"""The panels of a paper's figure: photos as every system leaves them, a part of each enlarged beneath, what was said beside.

One strip a photo, from top to bottom; one column a system, from left to right. Every measure is in inches.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from rnr.atomic import whole
from rnr.diagnosis import KINDS
from rnr.diagnosis.text import NAMES

SUFFIXES = (".png", ".pdf", ".svg", ".jpg")
DPI = 200
PANEL = 1.7
"""Width of a photo, unless the figure's is given: fonts are made for this one and shrink with it, to 0.7 of their size."""

BESIDE = 1.5
"""Width of what stands beside the photos, in panels."""

GAP = 0.05
ASPECTS = (0.3, 1.5)
"""Height by width that a photo may take up; one beyond keeps its proportions within."""

LARGEST = 1000
"""Pixels of a photo's long side beyond which it is shown smaller; its enlarged part is cut from the photo as it is."""

FRAME = "#e0402a"
SAID = "#7fa7cf"


class Crop(NamedTuple):
    """A rectangle of pixels, which every panel of a strip shows enlarged."""

    left: int
    top: int
    width: int
    height: int

    def of(self, image: Tensor) -> Tensor:
        """That part of (..., H, W)."""
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]


def most_detailed(image: Tensor) -> Crop:
    """Where neighbours differ most in ``image`` (3, H, W), once that is smoothed over 5 x 5 pixels against noise. It is a
    third of the shorter side wide, at most 256 pixels, and two thirds of that high."""
    grey = F.avg_pool2d(image.mean(dim=0)[None, None], 5, stride=1, padding=2, count_include_pad=False)[0, 0]
    contrast = F.pad(grey.diff(dim=0), (0, 0, 0, 1)) ** 2 + F.pad(grey.diff(dim=1), (0, 1)) ** 2
    width = max(1, min(256, min(grey.shape) // 3))
    height = max(1, round(width / 1.5))
    sums = F.pad(contrast.double().cumsum(dim=0).cumsum(dim=1), (1, 0, 1, 0))
    places = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(places.argmax()), places.shape[1])
    return Crop(left, top, width, height)


@dataclass(frozen=True)
class Panel:
    """title: above the first strip's. photo: (3, h, w) in [0, 1], no larger than :data:`LARGEST`. inset: (3, h, w), its
    enlarged part. note: beneath the photo."""

    title: str
    photo: Tensor
    inset: Tensor
    note: str

    @classmethod
    def of(cls, title: str, image: Tensor, crop: Crop, note: str) -> "Panel":
        """image: (3, H, W) in [0, 1], on any device."""
        image = image.detach().float().clamp(0, 1)
        photo = image
        if (scale := max(image.shape[-2:]) / LARGEST) > 1:
            size = [max(1, round(side / scale)) for side in image.shape[-2:]]
            photo = F.interpolate(image[None], size=size, mode="area")[0]
        return cls(title, photo.cpu(), crop.of(image).clone().cpu(), note)


@dataclass(frozen=True)
class Severities:
    """Two severities of each of ``KINDS``, in [0, 100], one as a bar and one as a line; NaN where there are none."""

    bar: Sequence[float]
    line: Sequence[float]
    legend: str


@dataclass(frozen=True)
class Strip:
    """One photo. size: its (H, W) in pixels, by which ``crop`` counts. name, severities and words stand beside it."""

    name: str
    size: tuple[int, int]
    crop: Crop
    panels: Sequence[Panel]
    severities: Severities
    words: str

    @property
    def aspect(self) -> float:
        low, high = ASPECTS
        return min(max(self.size[0] / self.size[1], low), high)


def comparison(strips: Sequence[Strip], footer: str, width: float | None = None) -> Figure:
    """The figure. width: of the whole, in inches; None: a photo takes :data:`PANEL`. footer: small, at the bottom."""
    count = len(strips[0].panels)
    shares = count + BESIDE + 0.15
    panel = PANEL if width is None else (width - (count + 3) * GAP) / shares
    return _Sheet(panel, count, shares * panel + (count + 3) * GAP).drawn(strips, footer)


def save(figure: Figure, path: Path) -> None:
    """Writes ``figure`` in the format of the suffix. Text in a PDF or SVG stays text. ``ValueError`` for other suffixes."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a figure ends in one of {', '.join(SUFFIXES)}")
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}), whole(path) as place:
        figure.savefig(place, format=path.suffix[1:], dpi=DPI)


@dataclass(frozen=True)
class _Sheet:
    """panel: width of a photo. count: photos a strip. width: of the whole."""

    panel: float
    count: int
    width: float

    @property
    def font(self) -> float:
        return 7 * min(1.2, max(0.7, self.panel / PANEL))

    @property
    def line(self) -> float:
        """Height of a line of text."""
        return self.font * 1.35 / 72

    @property
    def beside(self) -> float:
        return BESIDE * self.panel

    def wrapped(self, text: str, width: float) -> list[str]:
        letters = max(8, int(width * 72 / (self.font * 0.5)))
        return [part for line in text.split("\n") for part in textwrap.wrap(line, letters) or [""]]

    def height(self, strip: Strip) -> float:
        photos = self.panel * (strip.aspect + strip.crop.height / strip.crop.width) + 1.5 * self.line
        words = 3 + 1.3 * len(KINDS) + 0.9 * len(self.wrapped(strip.words, self.beside))
        return max(photos, words * self.line)

    def drawn(self, strips: Sequence[Strip], footer: str) -> Figure:
        small = self.wrapped(footer, self.width - 2 * GAP)
        gap = 1.6 * self.line
        height = 2 * self.line + sum(self.height(strip) + gap for strip in strips) + len(small) * self.line + GAP
        figure = Figure(figsize=(self.width, height))
        top = 2 * self.line
        for place, panel in enumerate(strips[0].panels):
            middle = self.left(place) + self.panel / 2
            self.write(figure, middle, 1.5 * self.line, panel.title, ha="center", va="bottom", fontsize=1.1 * self.font)
        for strip in strips:
            for place, panel in enumerate(strip.panels):
                self.photo(figure, self.left(place), top, strip, panel)
            self.said(figure, self.left(self.count) + 2 * GAP, top, strip)
            top += self.height(strip) + gap
        self.write(figure, GAP, top - 0.5 * gap, "\n".join(small), va="top", color="0.35", fontsize=0.9 * self.font)
        return figure

    def left(self, place: int) -> float:
        return GAP + place * (self.panel + GAP)

    def photo(self, figure: Figure, left: float, top: float, strip: Strip, panel: Panel) -> None:
        """A photo, its note, and its enlarged part."""
        height, crop = self.panel * strip.aspect, strip.crop
        axes = self.axes(figure, left, top, self.panel, height)
        rows, columns = strip.size
        axes.imshow(panel.photo.permute(1, 2, 0).numpy(), extent=(0, columns, rows, 0), interpolation="auto")
        axes.add_patch(Rectangle(crop[:2], crop.width, crop.height, fill=False, color=FRAME, lw=0.8))
        axes.axis("off")
        self.write(figure, left + self.panel / 2, top + height + 0.75 * self.line, panel.note, ha="center", va="center")
        below = top + height + 1.5 * self.line
        inset = self.axes(figure, left, below, self.panel, self.panel * crop.height / crop.width)
        inset.imshow(panel.inset.permute(1, 2, 0).numpy(), interpolation="nearest")
        inset.set(xticks=[], yticks=[])
        inset.spines[:].set(color=FRAME, linewidth=0.8)

    def said(self, figure: Figure, left: float, top: float, strip: Strip) -> None:
        """The photo's name, its severities as bars, and words."""
        self.write(figure, left, top, strip.name, va="top", weight="bold")
        self.write(figure, left, top + 1.1 * self.line, strip.severities.legend, va="top", color="0.35")
        names, numbers, high = 0.33 * self.beside, 0.24 * self.beside, 1.3 * len(KINDS) * self.line
        axes = self.axes(figure, left + names, top + 2.4 * self.line, self.beside - names - numbers, high)
        for place, (kind, bar, line) in enumerate(zip(KINDS, strip.severities.bar, strip.severities.line, strict=True)):
            axes.barh(place, 0 if bar != bar else bar, height=0.62, color=SAID)
            if line == line:
                axes.plot([line, line], [place - 0.42, place + 0.42], color="black", lw=1.2)
            axes.text(-4, place, NAMES[kind], ha="right", va="center", fontsize=self.font)
            axes.text(104, place, f"{_score(bar)} | {_score(line)}", va="center", fontsize=self.font)
        axes.set(xlim=(0, 100), ylim=(len(KINDS) - 0.5, -0.5), xticks=[], yticks=[])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        words = "\n".join(self.wrapped(strip.words, self.beside))
        self.write(figure, left, top + 2.9 * self.line + high, words, va="top", linespacing=1.2)

    def axes(self, figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
        wide, high = figure.get_size_inches()
        return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))

    def write(self, figure: Figure, left: float, top: float, text: str, **how: object) -> None:
        wide, high = figure.get_size_inches()
        figure.text(left / wide, 1 - top / high, text, parse_math=False, **{"fontsize": self.font, **how})


def _score(severity: float) -> str:
    return "?" if severity != severity else f"{severity:.0f}" if severity >= 0.5 else "–"
