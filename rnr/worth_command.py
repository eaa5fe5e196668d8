"""``rnr worth``: what the reasoning is worth to the restorer.

The same degraded photos are restored without a diagnosis, by that of another photo, by the reasoner's own and by the
true one. A photo that cannot be used costs one line on stderr; the rest go on, and the command exits with 1 at the end.
"""

import argparse
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from safetensors import SafetensorError
from torch import Tensor

from rnr.command_line import Failures, add_drawing, add_photo_sources, add_weights, photos_from, progress, share
from rnr.data import presets
from rnr.data.batch import DegradedBatch
from rnr.data.draws import draws_of
from rnr.data.photos import Photo, PhotoError
from rnr.degradation import Degrader
from rnr.diagnosis import Diagnosis
from rnr.diagnosis.edit import surely
from rnr.metrics.intervals import paired_interval
from rnr.metrics.restoration import psnr, ssim
from rnr.models.interfaces import Reasoner, Restorer
from rnr.models.load import load_reasoner, load_restorer
from rnr.records import record, write_rows, write_whole
from rnr.stages.evaluation import Rows, document, show

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INPUT, NONE, ANOTHER, OWN, TRUE = "input", "no diagnosis", "another photo's", "the reasoner's own", "the true one"
UNHARMED = 38.0
"""dB to the clean photo from which a photo counts as unharmed."""


@dataclass
class Score:
    """Of one photo under one diagnosis: means over its draws, the worst of them, and the share of them that are better than
    the input, and that are unharmed."""

    photo: str
    psnr: float
    worst_psnr: float
    ssim: float
    better: float
    unharmed: float


@dataclass
class Scores:
    """of: for each way to restore, a score a photo. seconds: spent on diagnoses and on restorations, a photo each."""

    of: dict[str, list[Score]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def rows(self) -> Rows:
        """PSNR, that of the worst draw of all, and SSIM by way; the difference in PSNR to no diagnosis, paired over photos;
        the shares of draws that got better, and that are unharmed."""
        rows: Rows = []
        for way, scores in self.of.items():
            gain = paired_interval([a.psnr - b.psnr for a, b in zip(scores, self.of[NONE], strict=True)])
            rows.append(
                {
                    "": way,
                    "PSNR (dB)": f"{_mean(s.psnr for s in scores):.2f}",
                    "worst (dB)": f"{min(s.worst_psnr for s in scores):.2f}",
                    "SSIM": f"{_mean(s.ssim for s in scores):.4f}",
                    "PSNR over none": "" if way == NONE else f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]",
                    "better than input": "" if way == INPUT else f"{_mean(s.better for s in scores):.1%}",
                    f"{UNHARMED:.0f} dB or more": f"{_mean(s.unharmed for s in scores):.1%}",
                }
            )
        return rows

    def photo_rows(self) -> Rows:
        return [{"diagnosis": way, **asdict(score)} for way, scores in self.of.items() for score in scores]

    def add(self, way: str, restored: Tensor, batch: DegradedBatch) -> None:
        before, after = psnr(batch.degraded, batch.clean), psnr(restored, batch.clean)
        score = Score(
            photo=batch.names[0],
            psnr=after.mean().item(),
            worst_psnr=after.min().item(),
            ssim=ssim(restored, batch.clean).mean().item(),
            better=(after > before).float().mean().item(),
            unharmed=(after >= UNHARMED).float().mean().item(),
        )
        self.of.setdefault(way, []).append(score)


def worth(argv: Sequence[str]) -> int:
    """Prints what each kind of diagnosis is worth."""
    parser = argparse.ArgumentParser(
        prog="rnr worth",
        description="Degrade clean photos and restore them without a diagnosis, by another photo's, by the reasoner's own "
        "and by the true one: the table that shows what the reasoning is worth. With --preset clean or light it shows what "
        "harm is done to good photos.",
    )
    add_photo_sources(parser)
    add_weights(parser, "reasoner", "restorer")
    add_drawing(parser)
    parser.add_argument(
        "--sure", type=share, default=0.0, metavar="CHANCE",
        help="of what the reasoner says leave out what it is less sure of than this (default: nothing)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="also write the table there, as Markdown, beside it as JSON, and a row for each photo as CSV",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.output is not None and args.output.suffix in (".json", ".csv"):
        parser.error(f"argument -o: {args.output} is for Markdown; JSON and CSV go beside it")
    try:
        degrader = presets.load(args.preset)
        photos = photos_from(args)
        reasoner, restorer = (
            load(name).eval().to(DEVICE)
            for load, name in ((load_reasoner, args.reasoner), (load_restorer, args.restorer))
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # PhotoError too
        parser.exit(2, f"error: {error}\n")
    scores, failures = Scores(), Failures()
    _score(scores, failures, photos, _Drawn(degrader, args.draws, args.seed, reasoner, args.sure), restorer)
    if not scores.of:
        parser.exit(1, "error: none of the photos could be used\n")
    count = len(scores.of[INPUT])
    draws = "" if args.draws == 1 else f", degraded {args.draws} times each"
    sure = f", sure to {args.sure:g}" if args.sure else ""
    title = f"Preset {args.preset}{sure}, {count} photos{draws}, with 95 % intervals"
    show(title, scores.rows())
    spent = ", ".join(f"{name} {_mean(each):.2f} s" for name, each in scores.seconds.items())
    print(f"on the clock, a photo: {spent}")
    if args.output is not None:
        tables = {title: scores.rows()}
        try:
            write_whole(document(tables), args.output)
            write_rows(scores.photo_rows(), args.output.with_suffix(".csv"))
            weights = [args.reasoner, args.restorer]
            record(["worth", *argv], tables, args.seed, weights).write(args.output.with_suffix(".json"))
        except OSError as error:
            parser.exit(1, f"error: {error}\n")
    return 1 if failures.count else 0


@dataclass(frozen=True)
class _Drawn:
    """Degrades a photo and asks the reasoner about it."""

    degrader: Degrader
    draws: int
    seed: int
    reasoner: Reasoner
    sure: float

    def of(self, photo: Photo) -> tuple[DegradedBatch, list[Diagnosis | None], float]:
        """The draws, what is said of each, and how long that took, in seconds a draw."""
        batch = draws_of(photo, self.degrader, self.draws, self.seed, DEVICE)
        start = perf_counter()
        answers = self.reasoner.diagnose(batch.degraded)
        seconds = (perf_counter() - start) / self.draws
        said = [surely(each, self.sure) if isinstance(each, Diagnosis) else None for each in answers]
        return batch, said, seconds


def _score(scores: Scores, failures: Failures, photos: Sequence[Photo], drawn: _Drawn, restorer: Restorer) -> None:
    """Every photo, each with the diagnoses of the one before it; the first one with those of the last, if that is another."""
    other, said_before = _last_said(photos, drawn)
    with progress("photos") as bar:
        for photo in bar.track(photos):
            with failures.passing_over(photo):
                batch, said, seconds = drawn.of(photo)
                scores.seconds.setdefault("diagnosis", []).append(seconds)
                ways = {NONE: [None] * drawn.draws, ANOTHER: said_before, OWN: said, TRUE: batch.truth}
                if other is photo:  # the only one that can be used
                    del ways[ANOTHER]
                start = perf_counter()
                restored = {way: restorer.restore(batch.degraded, given, batch.seed) for way, given in ways.items()}
                each = (perf_counter() - start) / drawn.draws / len(ways)
                scores.seconds.setdefault("restoration", []).append(each)
                for way, image in {INPUT: batch.degraded, **restored}.items():
                    scores.add(way, image, batch)
                other, said_before = photo, said


def _last_said(photos: Sequence[Photo], drawn: _Drawn) -> tuple[Photo | None, list[Diagnosis | None]]:
    """The last photo that can be used, and what is said of it; what is wrong with others is told in its turn."""
    for photo in reversed(photos):
        with suppress(PhotoError, OSError, RuntimeError, ValueError):
            return photo, drawn.of(photo)[1]
    return None, [None] * drawn.draws


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
