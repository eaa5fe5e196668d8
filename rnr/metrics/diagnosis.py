"""How good diagnoses are: presence, severity, rank and parameters of each degradation, and how many answers parse.

Every figure stands beside that of a rival who never looks at the photo: F1 beside that of always answering "yes", the
severity's mean absolute error beside that of always answering the mean.

A :class:`ParseFailure` counts as an answer that finds nothing, in every kind, and lowers the parse rate: to leave it
out would reward a reasoner for failing on the hard photos. Figures without a single photo to stand on are NaN.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rnr.diagnosis.types import FINDINGS, KINDS, Diagnosis, ParseFailure, Quantity, quantities
from rnr.metrics.rank_correlation import rank_correlation


class KindFigures(NamedTuple):
    """Figures of one kind of degradation. ``photos``: how many truly have it. Severities in points of [1, 100]."""

    kind: str
    photos: int
    precision: float
    recall: float
    f1: float
    f1_of_always_yes: float
    severity_mae: float  # over the photos that truly have it; a degradation not found counts as severity 0
    severity_mae_of_mean: float  # the mean of the true severities of these very photos: a rival slightly favoured
    severity_rank_correlation: float  # Spearman's, over all photos, absence as 0


class ParameterFigures(NamedTuple):
    """``mae``: mean absolute error in ``unit`` over the ``photos`` where the degradation is both there and found;
    ``mae_of_mean``: of always answering the mean of the true values of these very photos."""

    kind: str
    parameter: str
    unit: str
    photos: int
    mae: float
    mae_of_mean: float


class DiagnosisFigures(NamedTuple):
    """All figures of a set of ``photos``. ``parse_rate``: in [0, 1]."""

    photos: int
    parse_rate: float
    kinds: tuple[KindFigures, ...]
    parameters: tuple[ParameterFigures, ...]


COLUMNS: tuple[tuple[str, str], ...] = (
    ("answer", "parsed"),
    *((kind, "present") for kind in KINDS),
    *((kind, key) for kind in KINDS for key, spec in quantities(FINDINGS[kind]).items() for _ in range(spec.count)),
)
"""What each number of :func:`encode` is; the three channels of a color stand under one name."""


def encode(answer: Diagnosis | ParseFailure) -> list[float]:
    """``answer`` as the numbers of :data:`COLUMNS`: flags 0 or 1, severity 0 where absent, NaN where not stated."""
    found = {kind: None if isinstance(answer, ParseFailure) else answer[kind] for kind in KINDS}
    row = [float(isinstance(answer, Diagnosis)), *(float(found[kind] is not None) for kind in KINDS)]
    for kind, finding in found.items():
        for key, spec in quantities(FINDINGS[kind]).items():
            value = getattr(finding, key, 0.0 if key == "severity" else None)
            row += [math.nan] * spec.count if value is None else value if spec.count > 1 else [value]
    return row


def figures(predicted: Tensor, truth: Tensor) -> DiagnosisFigures:
    """All figures of n photos. predicted, truth: (n, len(COLUMNS)) in float64, rows of :func:`encode`."""
    return DiagnosisFigures(
        photos=len(truth),
        parse_rate=_column(predicted, "answer", "parsed").mean().item(),
        kinds=tuple(_kind_figures(kind, predicted, truth) for kind in KINDS),
        parameters=tuple(
            _parameter_figures(kind, key, spec, predicted, truth)
            for kind in KINDS
            for key, spec in quantities(FINDINGS[kind]).items()
            if key != "severity"
        ),
    )


def absolute_error(predicted: Tensor, truth: Tensor, spec: Quantity) -> Tensor:
    """|predicted - truth|, of the same shape. Degrees are those of undirected lines: 179 and 1 are 2 degrees apart."""
    error = (predicted - truth).abs()
    return torch.minimum(error, 180 - error) if spec.unit == "deg" else error


def _columns(table: Tensor, kind: str, key: str) -> Tensor:
    """(n, count): all columns of that name."""
    return table[:, [index for index, column in enumerate(COLUMNS) if column == (kind, key)]]


def _column(table: Tensor, kind: str, key: str) -> Tensor:
    return _columns(table, kind, key).squeeze(1)


def _kind_figures(kind: str, predicted: Tensor, truth: Tensor) -> KindFigures:
    there, found = _column(truth, kind, "present").bool(), _column(predicted, kind, "present").bool()
    actual, guess = _column(truth, kind, "severity"), _column(predicted, kind, "severity")
    hits = (there & found).sum()
    return KindFigures(
        kind=kind,
        photos=int(there.sum()),
        precision=(hits / found.sum()).item(),
        recall=(hits / there.sum()).item(),
        f1=(2 * hits / (there.sum() + found.sum())).item(),
        f1_of_always_yes=(2 * there.sum() / (there.sum() + len(there))).item(),
        severity_mae=(guess[there] - actual[there]).abs().mean().item(),
        severity_mae_of_mean=(actual[there].mean() - actual[there]).abs().mean().item(),
        severity_rank_correlation=rank_correlation(guess, actual),
    )


def _parameter_figures(kind: str, key: str, spec: Quantity, predicted: Tensor, truth: Tensor) -> ParameterFigures:
    said, actual = _columns(predicted, kind, key), _columns(truth, kind, key)
    error = absolute_error(said, actual, spec).mean(dim=1)
    stated = ~error.isnan()
    rival = absolute_error(_mean(actual[stated], spec), actual[stated], spec)
    return ParameterFigures(kind, key, spec.unit, int(stated.sum()), error[stated].mean().item(), rival.mean().item())


def _mean(values: Tensor, spec: Quantity) -> Tensor:
    """(count,) of values (n, count): of lines' directions that of the mean vector, in degrees."""
    if not spec.period:
        return values.mean(dim=0)
    turn = torch.deg2rad(values * (360 / spec.period))
    return torch.rad2deg(torch.atan2(turn.sin().mean(dim=0), turn.cos().mean(dim=0))) * (spec.period / 360) % spec.period
