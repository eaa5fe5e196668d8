"""``rnr audit-reward``: is the reasoner's reward to be trusted, before anything is trained on it?

Degraded photos, their restorations and ways to cheat are put before the reasoner; then the restorer's own candidates are,
and their rewards are compared with their fidelity. A photo that cannot be used costs one line on stderr; the rest go on,
and the command exits with 1 at the end.
"""

import argparse
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from rnr.command_line import Failures, add_drawing, add_photo_sources, add_weights, photos_from, progress
from rnr.data import presets
from rnr.data.batch import DegradedBatch
from rnr.data.draws import draws_of
from rnr.data.photos import Photo, PhotoError, open_photo
from rnr.degradation import Degrader
from rnr.diagnosis import KINDS, Diagnosis
from rnr.diagnosis.edit import jitter
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.text import NAMES
from rnr.metrics.audit import CLEAN, best_of, over_photos, rank_correlations, versions
from rnr.metrics.intervals import paired_interval
from rnr.metrics.judge import look
from rnr.metrics.restoration import as_saved, psnr, ssim
from rnr.models.interfaces import Reasoner, Restorer, TrainableRestorer
from rnr.models.load import load_reasoner, load_restorer
from rnr.models.reward import Reward
from rnr.records import record, write_rows, write_whole
from rnr.stages.evaluation import Rows, document, show
from rnr.stages.spread import likely

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CYCLE = Reward(cycle_weight=100.0)
QUALITIES = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 4)}
SCORES = {
    "reward": "severity reward",
    "cycle": "cycle",
    "both": "both: reward + 100 cycle",
    **{f"no_{kind}": f"severity of {NAMES[kind]} alone" for kind in KINDS},
    "haze": "judge: little haze",
    "sharpness": "judge: sharpness",
    "noise": "judge: little noise",
}


@dataclass
class Audit:
    """versions: a row a photo, draw and version. candidates: of each score and quality (G, N), a row a photo and draw,
    whose photos ``names`` are."""

    versions: Rows = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    candidates: dict[str, list[Tensor]] = field(default_factory=dict)

    def of(self, key: str) -> Tensor:
        return torch.cat(self.candidates[key])

    def version_rows(self) -> Rows:
        """By mean reward, the best first. 'to clean': the paired difference to the clean photo's reward; 'over clean': in how
        many photos it is rewarded more. Photos without a reward, for an answer did not parse, are left out of these three."""
        by_version: dict[str, Rows] = {}
        for row in self.versions:
            by_version.setdefault(row["version"], []).append(row)
        rewards = {name: _column(rows, "reward") for name, rows in by_version.items()}
        rows: Rows = []
        means = {name: each.nanmean().nan_to_num(-math.inf).item() for name, each in rewards.items()}
        for name in sorted(rewards, key=lambda name: -means[name]):
            apart = rewards[name] - rewards[CLEAN]
            known = name != CLEAN and bool(apart.isfinite().any())
            to_clean = paired_interval(over_photos(apart, self.names))
            rows.append(
                {
                    "": name,
                    "reward": f"{means[name]:+.1f}" if math.isfinite(means[name]) else "",
                    "to clean": "" if not known else f"{to_clean.mean:+.1f} [{to_clean.low:+.1f}, {to_clean.high:+.1f}]",
                    "over clean": "" if not known else f"{(apart[apart.isfinite()] > 0).double().mean():.0%}",
                    "PSNR (dB)": f"{_column(by_version[name], 'psnr').mean():.2f}",
                    "SSIM": f"{_column(by_version[name], 'ssim').mean():.4f}",
                }
            )
        return rows

    def correlation_rows(self) -> Rows:
        """Spearman within groups, the mean over photos; groups without spread are left out and counted."""
        rows: Rows = []
        for score, title in SCORES.items():
            row = {"": title}
            for quality, (name, _) in QUALITIES.items():
                each = over_photos(rank_correlations(self.of(score), self.of(quality)), self.names)
                mean = paired_interval(each)
                row[f"rank correlation with {name}"] = f"{mean.mean:+.2f} [{mean.low:+.2f}, {mean.high:+.2f}]"
            usable = rank_correlations(self.of(score), self.of("psnr")).isfinite().sum().item()
            row["groups"] = f"{usable} of {len(self.names)}"
            rows.append(row)
        return rows

    def best_of_rows(self) -> Rows:
        """Quality against N, for the severity reward and for both."""
        size = self.of("reward").shape[1]
        counts = [n for n in (2, 4, 8, 16, 32, 64) if n < size] + [size]
        rows: Rows = []
        for score in ("reward", "both"):
            for quality, (name, places) in QUALITIES.items():
                for each in best_of(self.of(score), self.of(quality), self.names, counts):
                    low, high = each.gain.low, each.gain.high
                    rows.append(
                        {
                            "": f"{name}, picked by {score}",
                            "N": each.count,
                            "first": f"{each.first:.{places}f}",
                            "picked": f"{each.picked:.{places}f}",
                            "gain": f"{each.gain.mean:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}]",
                            "oracle": f"{each.oracle:.{places}f}",
                        }
                    )
        return rows


def audit_reward(argv: Sequence[str]) -> int:
    """Prints how the reward ranks, and what it picks."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.group < 2:
        parser.error(f"argument --group: must be at least 2, got {args.group}")
    try:
        degrader = presets.load(args.preset)
        photos = photos_from(args)
        reasoner, restorer = load_reasoner(args.reasoner), load_restorer(args.restorer)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # PhotoError too
        parser.exit(2, f"error: {error}\n")
    own = args.jitter is None and not args.sampled
    if own and not isinstance(restorer, TrainableRestorer):
        parser.error(f"{type(restorer).__name__} makes no candidates of its own: add --jitter or --sampled")
    setting = _Setting(degrader, args.draws, args.seed, args.group, args.jitter, args.sampled)
    audit, failures = Audit(), Failures()
    models = reasoner.eval().to(DEVICE), restorer.eval().to(DEVICE)
    other = _last_that_opens(photos)
    with progress("photos") as bar:
        for photo in bar.track(photos):
            with failures.passing_over(photo):
                other = _add(audit, photo, other, setting, *models)
    if not audit.names:
        parser.exit(1, "error: none of the photos could be used\n")
    looks = f"{len(set(audit.names))} photos" + ("" if args.draws == 1 else f", degraded {args.draws} times each")
    spread = "the restorer's rollout" if own else setting.spread
    titles = {
        f"How the reward ranks photos: {looks}, with 95 % intervals": audit.version_rows(),
        f"Within groups of {args.group} candidates ({spread}): {looks}": audit.correlation_rows(),
        f"The best of N ({spread}): {looks}": audit.best_of_rows(),
    }
    for title, rows in titles.items():
        show(title, rows)
    if args.output is not None:
        try:
            _write(audit, titles, args.output)
            weights = [args.reasoner, args.restorer]
            record(["audit-reward", *argv], titles, args.seed, weights).write(args.output / "audit.json")
        except OSError as error:
            parser.exit(1, f"error: {error}\n")
    return 1 if failures.count else 0


@dataclass(frozen=True)
class _Setting:
    degrader: Degrader
    draws: int
    seed: int
    group: int
    jitter: float | None
    sampled: bool

    @property
    def spread(self) -> str:
        return "diagnoses as likely as the reasoner thinks" if self.sampled else f"diagnoses jittered by {self.jitter:g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnr audit-reward",
        description="Ask the reasoner about degraded photos, what becomes of them, and ways to cheat: does it reward the "
        "clean photo most? Then compare the rewards of a restorer's own candidates with their fidelity, within each photo's "
        "group, and show what picking the best of N brings. 'cycle' and 'judge' are scores that look at neither reasoner "
        "nor clean photo; see rnr/diagnosis/cycle.py and rnr/metrics/judge.py.",
    )
    add_photo_sources(parser)
    add_weights(parser, "reasoner", "restorer")
    add_drawing(parser)
    parser.add_argument("--group", type=int, default=8, metavar="N", help="candidates a photo (default 8)")
    spread = parser.add_mutually_exclusive_group()
    spread.add_argument(
        "--jitter", type=float, metavar="S",
        help="spread the candidates by errors of S in the diagnosis instead of by the restorer's own rollout",
    )  # fmt: skip
    spread.add_argument(
        "--sampled", action="store_true", help="spread them by diagnoses drawn as the reasoner's own certainty has it"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER",
        help="write audit.md, audit.json, versions.csv and candidates.csv there",
    )  # fmt: skip
    return parser


@torch.no_grad()
def _add(
    audit: Audit, photo: Photo, other: Tensor | None, setting: _Setting, reasoner: Reasoner, restorer: Restorer
) -> Tensor:
    """All that is asked of one photo, and the photo itself, (1, 3, H, W). Nothing is added where something of it fails.
    other: another scene's."""
    batch = draws_of(photo, setting.degrader, setting.draws, setting.seed, DEVICE)
    answers, before = reasoner.assess(batch.degraded)
    examined = [each if isinstance(each, Examination) else None for each in answers]
    given = [each and each.diagnosis for each in examined]
    # A draw at a time: at full size a group is a large batch already.
    groups = [_candidates(restorer, batch, examined[i], i, setting) for i in range(setting.draws)]
    candidates = as_saved(torch.cat(groups))
    other = (batch.clean[:1].flip(-2) if other is None else other).expand(setting.draws, -1, -1, -1)
    asked = versions(batch.clean, batch.degraded, candidates[:, 0], other)
    found = {name: as_saved(images) for name, images in asked.items()}
    rows: Rows = []
    for name, images in found.items():
        reward = (before - reasoner.severities(images)).sum(dim=1)
        figures = {"reward": reward, "psnr": psnr(images, batch.clean), "ssim": ssim(images, batch.clean)}
        lists = {key: values.tolist() for key, values in figures.items()}
        rows += [
            {"photo": photo.name, "draw": draw, "version": name, **{key: values[draw] for key, values in lists.items()}}
            for draw in range(setting.draws)
        ]
    scores = _scores(reasoner, candidates, batch, given, before)
    audit.versions += rows
    audit.names += batch.names
    for key, values in scores.items():
        audit.candidates.setdefault(key, []).append(values.cpu())
    return batch.clean[:1]


def _last_that_opens(photos: Sequence[Photo]) -> Tensor | None:
    """What the first photo has for another scene; what is wrong with others is told in its turn."""
    for photo in reversed(photos[1:]):
        with suppress(PhotoError):
            return torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1)[None].to(DEVICE).float() / 255
    return None


def _candidates(
    restorer: Restorer, batch: DegradedBatch, examined: Examination | None, index: int, setting: _Setting
) -> Tensor:
    """(1, N, 3, H, W) of the draw ``index``."""
    image, seed = batch.degraded[index : index + 1], batch.seed[index]
    diagnosis = examined and examined.diagnosis
    if not setting.sampled and setting.jitter is None:
        return restorer.rollout(image, [diagnosis], [seed], setting.group)
    if setting.sampled:
        varied = likely(examined, setting.group, seed)
    else:
        generator = torch.Generator().manual_seed(seed)
        others = range(setting.group - 1)
        varied = [diagnosis, *(diagnosis and jitter(diagnosis, setting.jitter, generator) for _ in others)]
    images = image.expand(setting.group, -1, -1, -1)
    return restorer.restore(images, varied, [seed] * setting.group)[None]


def _scores(
    reasoner: Reasoner, candidates: Tensor, batch: DegradedBatch, given: list[Diagnosis | None], before: Tensor
) -> dict[str, Tensor]:
    """Of each candidate all that it is scored by, and its true quality, each (B, N)."""
    shape = candidates.shape[:2]
    flat, clean = candidates.flatten(0, 1), batch.clean.repeat_interleave(shape[1], dim=0)
    reward, seen = CYCLE(reasoner, candidates, batch.degraded, given, before), look(flat)
    figures = {
        "haze": -seen.haze, "sharpness": seen.sharpness, "noise": -seen.noise,
        "psnr": psnr(flat, clean), "ssim": ssim(flat, clean),
    }  # fmt: skip
    own = {"reward": reward.severity, "cycle": reward.cycle / CYCLE.cycle_weight, "both": reward.total}
    parts = {f"no_{kind}": -reward.severities[..., i] for i, kind in enumerate(KINDS)}
    return own | parts | {key: values.view(shape) for key, values in figures.items()}


def _write(audit: Audit, titles: dict[str, Rows], folder: Path) -> None:
    write_whole(document(titles), folder / "audit.md")
    write_rows(audit.versions, folder / "versions.csv")
    columns = {key: audit.of(key) for key in audit.candidates}
    draws: dict[str, int] = {}
    rows: Rows = []
    for group, name in enumerate(audit.names):
        draw = draws[name] = draws.get(name, -1) + 1
        rows += [
            {"photo": name, "draw": draw, "candidate": k, **{key: c[group, k].item() for key, c in columns.items()}}
            for k in range(columns["reward"].shape[1])
        ]
    write_rows(rows, folder / "candidates.csv")


def _column(rows: Rows, key: str) -> Tensor:
    return torch.tensor([row[key] for row in rows])
