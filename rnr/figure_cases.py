"""Which photos a figure shows: by a rule that can be stated, never by hand.

A photo draws the same degradations as in ``rnr test``; a real one is taken as it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rnr.command_line import Failures, progress
from rnr.data import presets
from rnr.data.batch import DegradedBatch
from rnr.data.draws import draws_of
from rnr.data.photos import Photo, limited, open_photo
from rnr.degradation import Degrader
from rnr.diagnosis import KINDS, Diagnosis, ParseFailure
from rnr.metrics.restoration import as_saved, psnr
from rnr.models.interfaces import Reasoner
from rnr.panels import Crop, most_detailed
from rnr.stages.stage import Stage

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Case:
    """A photo to restore. image: (1, 3, H, W) in [0, 1]. known: the same with its clean photo and its truth; None for a real
    photo. crop: what is enlarged."""

    name: str
    image: Tensor
    known: DegradedBatch | None
    crop: Crop

    def restored(self, stage: Stage) -> tuple[Diagnosis | ParseFailure | None, Tensor]:
        """What ``stage`` says, None without a reasoner, and what it makes of the photo, (1, 3, H, W)."""
        seeds, truth = (self.known.seed, self.known.truth) if self.known else ([0], None)
        with torch.no_grad():
            answers, image = stage.repair(self.image, seeds, truth)
        return (answers[0] if answers else None), image


@dataclass(frozen=True)
class Rule:
    """Which draws are shown. score: of a case, by a stage and the reasoner; the photos with the highest are shown, each in
    its highest draw. None: evenly spread over photos and draws."""

    says: str
    score: Callable[[Case, Stage, Reasoner], float] | None = None
    needs_clean: bool = False


def stated(answer: Diagnosis | ParseFailure | None) -> list[float]:
    """A severity for each of ``KINDS``, 0 for what is not there; NaN for what is not stated."""
    if not isinstance(answer, Diagnosis):
        return [math.nan] * len(KINDS)
    found = (answer[kind] for kind in KINDS)
    return [0.0 if one is None else math.nan if one.severity is None else one.severity for one in found]


def seen(reasoner: Reasoner, image: Tensor) -> list[float]:
    """The severity that ``reasoner`` expects of each of ``KINDS`` in (1, 3, H, W), once it is saved."""
    return reasoner.severities(as_saved(image))[0].tolist()


def _loss(case: Case, stage: Stage, reasoner: Reasoner) -> float:
    """PSNR that the photo loses, in dB."""
    return (psnr(case.image, case.known.clean) - psnr(case.restored(stage)[1], case.known.clean)).item()


def _severity(case: Case, stage: Stage, reasoner: Reasoner) -> float:
    """Summed: the true one, or what the reasoner sees in a real photo."""
    total = sum(stated(case.known.truth[0]) if case.known else seen(reasoner, case.image))
    return -math.inf if math.isnan(total) else total


RULES = {
    "spread": Rule("evenly spread over all"),
    "gain": Rule("the photos that gain the least PSNR by {last}", _loss, needs_clean=True),
    "severity": Rule("the photos with the highest sum of severities", _severity),
}


@dataclass(frozen=True)
class Draws:
    """What a rule picks from: ``each`` draws of every one of ``photos``.

    preset: of the degradation; None for photos as they are, which have one draw. crop: what is enlarged; None:
    :func:`most_detailed` of the clean photo, or of the real one. ``ValueError`` for an unknown preset.
    """

    photos: Sequence[Photo]
    preset: str | None
    each: int = 3
    seed: int = 0
    crop: Crop | None = None
    degrader: Degrader | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "degrader", None if self.preset is None else presets.load(self.preset))

    def picked(self, rule: Rule, count: int, stage: Stage, reasoner: Reasoner, failures: Failures) -> list[Case]:
        """At most ``count``; photos that cannot be used are told and passed over. A case is opened anew once it is picked:
        of all draws only the scores are kept."""
        places = [(photo, draw) for photo in self.photos for draw in range(1 if self.preset is None else self.each)]
        if rule.score is None:
            places = limited(places, count)
        else:
            highest: dict[Photo, tuple[float, int]] = {}
            with progress("draws") as bar:
                for photo, draw in bar.track(places):
                    with failures.passing_over(photo):
                        score = rule.score(self.case(photo, draw), stage, reasoner)
                        highest[photo] = max(highest.get(photo, (-math.inf, 0)), (score, draw))
            first = sorted(highest, key=lambda photo: -highest[photo][0])[:count]
            places = [(photo, highest[photo][1]) for photo in first]
        cases = []
        for photo, draw in places:
            with failures.passing_over(photo):
                cases.append(self.case(photo, draw))
        return cases

    def case(self, photo: Photo, draw: int) -> Case:
        """One draw of ``photo``. ``PhotoError`` if it cannot be opened, ``ValueError`` if ``crop`` does not lie in it."""
        if self.degrader is None:
            image = torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1)[None].to(DEVICE).float() / 255
            return Case(photo.name, image, None, self._crop(image))
        known = draws_of(photo, self.degrader, 1, self.seed, DEVICE, draw)
        return Case(f"{photo.name}, draw {draw + 1}", known.degraded, known, self._crop(known.clean))

    def _crop(self, image: Tensor) -> Crop:
        if self.crop is None:
            return most_detailed(image[0])
        left, top, width, height = self.crop
        rows, columns = image.shape[-2:]
        if min(left, top) < 0 or min(width, height) < 1 or left + width > columns or top + height > rows:
            raise ValueError(f"{width} x {height} pixels at ({left}, {top}) do not lie within {columns} x {rows}")
        return self.crop
