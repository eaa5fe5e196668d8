"""Pictures for people: photos beside each other over their diagnosis, and a sheet of what a degradation model does."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rnr.atomic import whole
from rnr.degradation import Degrader
from rnr.diagnosis import KINDS, Diagnosis, render
from rnr.diagnosis.text import NAMES

SHEET_SIDE = 256  # of the part of a photo that a sheet shows, in pixels, at its own resolution
SHEET_DRAWS = 48  # draws a column, of which the rows show the quantiles
SHEET_ROWS = (0.05, 0.25, 0.5, 0.75, 0.95)


def save_figure(panels: Sequence[tuple[str, Tensor]], diagnosis: Diagnosis | None, path: Path) -> None:
    """Panels (title, (3, H, W) in [0, 1]) side by side over the text of the diagnosis."""
    height, width = panels[0][1].shape[-2:]
    text = "no diagnosis" if diagnosis is None else render(diagnosis)
    text = "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, 54 * len(panels)))
    aspect = min(max(height / width, 0.2), 3.0)
    picture, words = 5 * aspect + 0.4, 0.18 * (text.count("\n") + 1) + 0.2
    figure = Figure(figsize=(5 * len(panels), picture + words), layout="constrained")
    photos, note = figure.subfigures(2, 1, height_ratios=(picture, words))
    for axes, (title, image) in zip(photos.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        shrink = max(1, max(image.shape[-2:]) // 1200)  # a figure of 50 megapixels serves nobody
        axes.imshow(image[:, ::shrink, ::shrink].clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
        axes.set_title(title)
        axes.axis("off")
    note.text(0.02, 0.95, text, va="top", family="monospace", fontsize=8, parse_math=False)
    with whole(path) as place:
        figure.savefig(place, format="png", dpi=110)


def contact_sheet(image: Tensor, depth: Tensor, degrader: Degrader, seed: int) -> Figure:
    """Columns: each of the four degradations alone, then all of them; rows: from the faintest that the priors of ``degrader``
    draw to the worst, whatever share of photos it leaves clean or light (the quantiles 5, 25, 50, 75 and 95 % of severity,
    of the sum in the last column). Draws of which something cannot be seen are left out, unless all are such.

    image: (3, H, W) in [0, 1]; depth: (1, H, W) relative, in [0, 1]. The sheet shows the middle of the photo.
    """
    image, depth = _middle(image), _middle(depth)
    columns = [(kind,) for kind in KINDS if getattr(degrader, kind).probability > 0]
    columns = [*columns, tuple(kind for (kind,) in columns)] if len(columns) > 1 else columns
    figure = Figure(figsize=(2.2 * len(columns), 2.35 * len(SHEET_ROWS)), layout="constrained")
    grid = figure.subplots(len(SHEET_ROWS), len(columns), squeeze=False)
    for column, kinds in enumerate(columns):
        priors = {kind: replace(getattr(degrader, kind), probability=float(kind in kinds)) for kind in KINDS}
        generators = [torch.Generator().manual_seed(seed + i) for i in range(SHEET_DRAWS)]
        batch = (part.expand(SHEET_DRAWS, -1, -1, -1) for part in (image, depth))
        degraded = Degrader.apply(*batch, Degrader(**priors).sample(generators))
        seen = degraded.present.sum(dim=1) == len(kinds)
        order = degraded.severity.sum(dim=1).argsort()
        order = order[seen[order]] if seen.any() else order
        for row, quantile in enumerate(SHEET_ROWS):
            chosen = order[round(quantile * (len(order) - 1))]
            axes = grid[row, column]
            axes.imshow(degraded.image[chosen].permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
            scores = [f"{degraded.severity[chosen, KINDS.index(kind)]:.0f}" for kind in kinds]
            axes.set_title(f"{NAMES[kinds[0]] if len(kinds) == 1 else 'all'}: {', '.join(scores)}", fontsize=8)
            axes.axis("off")
    return figure


def _middle(image: Tensor) -> Tensor:
    """The middle of (C, H, W), at most 256 x 256."""
    top, left = (max(0, (side - SHEET_SIDE) // 2) for side in image.shape[-2:])
    return image[:, top : top + SHEET_SIDE, left : left + SHEET_SIDE]
