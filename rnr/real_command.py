"""``rnr real``: photos that are bad in earnest, in a folder a scene. No clean photo belongs to them, so no fidelity is known.

Each is diagnosed, restored and looked at again: by the reasoner, by a second judge that nothing is trained on, and by
no-reference figures. A photo that cannot be used costs one line on stderr; the rest go on, and the command exits with 1
at the end.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.figure import Figure
from safetensors import SafetensorError
from torch import Tensor

from rnr.atomic import whole
from rnr.command_line import Failures, add_weights, at_least_one, name_apart, progress, seed
from rnr.data.layouts import scenes
from rnr.data.photos import Photo, PhotoError, find_photos, inside, limited, open_photo, save_photo, told_apart
from rnr.diagnosis import KINDS, Diagnosis
from rnr.diagnosis.text import NAMES
from rnr.metrics.intervals import paired_interval
from rnr.metrics.judge import look
from rnr.metrics.leading import FOLDERS, can_be_led, leading_figures
from rnr.metrics.no_reference import no_reference
from rnr.metrics.restoration import as_saved
from rnr.models.interfaces import Reasoner, Restorer
from rnr.models.load import load_reasoner, load_restorer
from rnr.pipeline import restore as restored_by
from rnr.records import record, write_rows, write_whole
from rnr.stages.evaluation import Rows, document, show

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FIGURES = {
    "haze": ("haze", 3),
    "sharpness": ("sharpness", 4),
    "noise": ("noise", 4),
    "blur": ("blur effect", 3),
    "wavelet_noise": ("wavelet noise", 4),
    "brightness": ("mean brightness", 3),
}
"""What is measured beside the severities: the column, its title and its places. The first three are the second judge's."""

ALL = ""  # no folder is called so
SHOWN = 8  # photos on a contact sheet
WIDTH = 320  # pixels of a photo there, at most


@dataclass(frozen=True)
class Looked:
    """What is seen in one photo. severities: (4,), 0 where absent. figures: a number for each of :data:`FIGURES`."""

    severities: list[float]
    figures: dict[str, float]


@dataclass(frozen=True)
class Seen:
    """One photo before and after. diagnosis: None where the answer was none. small: both, (3, h, w), to look at."""

    scene: str
    name: str
    diagnosis: Diagnosis | None
    before: Looked
    after: Looked
    small: tuple[Tensor, Tensor]


@dataclass
class Real:
    """All photos that could be used."""

    seen: list[Seen] = field(default_factory=list)

    @property
    def scenes(self) -> dict[str, list[Seen]]:
        """By scene, in alphabetical order, and all of them together, as :data:`ALL`, where there are several."""
        names = sorted({each.scene for each in self.seen})
        found = {name: [each for each in self.seen if each.scene == name] for name in names}
        return found if len(found) == 1 else {**found, ALL: self.seen}

    def tables(self) -> dict[str, Rows]:
        count = f"{len(self.seen)} real photos, means before → after"
        tables = {
            f"Severity as the reasoner sees it: {count}": [_severity_row(*scene) for scene in self.scenes.items()],
            f"As the second judge and no-reference figures have it: {count}": [
                _figure_row(*scene) for scene in self.scenes.items()
            ],
        }
        labelled = [each for each in self.seen if _label(each.scene) in FOLDERS]
        if labelled and all(can_be_led(each.diagnosis) for each in labelled):
            figures = leading_figures([_label(each.scene) for each in labelled], [each.diagnosis for each in labelled])
            rival = next((row.folder for row in figures if row.rival), "none of these")
            parsed = math.floor(100 * sum(each.diagnosis is not None for each in labelled) / len(labelled))
            tables[f"The folder's name and the diagnosis: {parsed}% of answers parse"] = [
                {
                    "": row.folder,
                    "photos": row.photos,
                    "found": f"{row.found:.0%}",
                    "leads": f"{row.leads:.0%}",
                    f"always naming {rival}": f"{row.rival:.0%}",
                }
                for row in figures
            ]
        return tables

    def photo_rows(self) -> Rows:
        return [
            {
                "photo": f"{each.scene}/{each.name}",
                **{f"{kind}_{when}": at.severities[i] for i, kind in enumerate(KINDS) for when, at in _both(each)},
                **{f"{key}_{when}": at.figures[key] for key in FIGURES for when, at in _both(each)},
            }
            for each in self.seen
        ]


def real(argv: Sequence[str]) -> int:
    """Prints what becomes of real photos, and writes them, their tables and contact sheets."""
    parser = argparse.ArgumentParser(
        prog="rnr real",
        description="Repair photos that are bad in earnest, and say per scene what the reasoner, a second judge "
        "(rnr/metrics/judge.py) and no-reference figures (rnr/metrics/no_reference.py) see before and after. No clean photo "
        "is known, so none of this is fidelity: look at the contact sheets.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="has a folder of photos for each scene")
    add_weights(parser, "reasoner", "restorer")
    parser.add_argument(
        "--restored", type=Path, metavar="FOLDER",
        help="restore nothing: look at what another restorer made of these photos, under the same names as PNG, such as "
        "the predictions/ of rnr predict",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=at_least_one, metavar="N", help="at most so many photos, evenly spread (default all)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="for restorers that draw noise (default 0)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR",
        help="gets real.md, real.json, real.csv, a contact sheet SCENE.png a scene, and restored/",
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        if args.output.resolve() == args.folder.resolve():
            raise PhotoError(f"{args.output}: is the folder of photos; name another one for what is made of them")
        photos = limited(told_apart(scenes(args.folder, but=args.output)), args.limit)
        among = {photo.path.resolve().parent for photo in find_photos(args.folder, scenes=False)}
        if args.output.resolve() in among and not (args.output / "real.md").is_file():  # which it has from an earlier run
            raise PhotoError(f"{args.output}: has photos of a scene in it; name another folder for what is made of them")
        reasoner = load_reasoner(args.reasoner).eval().to(DEVICE)
        restorer = None if args.restored else load_restorer(args.restorer).eval().to(DEVICE)
        args.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # PhotoError too
        parser.exit(2, f"error: {error}\n")
    seen, failures = Real(), Failures()
    with progress("photos") as bar:
        for photo in bar.track(photos):
            with failures.passing_over(photo):
                seen.seen.append(_see(photo, reasoner, restorer or args.restored, args.seed, args.output / "restored"))
    if not seen.seen:
        parser.exit(1, "error: none of the photos could be used\n")
    for title, rows in seen.tables().items():
        show(title, rows)
    weights = [args.reasoner, *([] if args.restored else [args.restorer])]
    try:
        write_whole(document(seen.tables()), args.output / "real.md")
        write_rows(seen.photo_rows(), args.output / "real.csv")
        sheets: set[str] = set()
        for scene, photos_there in seen.scenes.items():
            if scene != ALL:
                _sheet(scene, photos_there, args.output / f"{name_apart(scene.replace('/', '_'), sheets)}.png")
        record(["real", *argv], seen.tables(), args.seed, weights).write(args.output / "real.json")
    except OSError as error:
        parser.exit(1, f"error: {error}\n")
    return 1 if failures.count else 0


@torch.no_grad()
def _see(photo: Photo, reasoner: Reasoner, restorer: Restorer | Path, seed: int, folder: Path) -> Seen:
    """restorer: what restores the photo, or where it lies restored."""
    image = _open(photo.path)
    answer = reasoner.diagnose(image)[0]
    diagnosis = answer if isinstance(answer, Diagnosis) else None
    if isinstance(restorer, Path):
        restored = _open(inside(restorer, photo.name).with_suffix(".png"))
        if restored.shape != image.shape:
            raise PhotoError(f"{photo.path}: is {_size(image)} pixels, but {_size(restored)} in {restorer}")
    else:
        restored = as_saved(restored_by(restorer, image[0], diagnosis, seed)[None])
        path = inside(folder, photo.name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_photo(restored[0], path)
    scene, _, name = photo.name.rpartition("/")
    step = math.ceil(image.shape[-1] / WIDTH)
    small = tuple(each[0, :, ::step, ::step].cpu() for each in (image, restored))
    return Seen(scene, name, diagnosis, _look(image, reasoner), _look(restored, reasoner), small)


def _look(image: Tensor, reasoner: Reasoner) -> Looked:
    judged, blind = look(image), no_reference(image)
    figures = {"haze": judged.haze, "sharpness": judged.sharpness, "noise": judged.noise}
    figures |= {"blur": blind.blur, "wavelet_noise": blind.noise, "brightness": image.mean()}
    return Looked(reasoner.severities(image)[0].tolist(), {key: value.item() for key, value in figures.items()})


def _severity_row(scene: str, seen: Sequence[Seen]) -> dict[str, object]:
    known = [each for each in seen if all(map(math.isfinite, each.before.severities + each.after.severities))]
    falls = paired_interval([sum(each.before.severities) - sum(each.after.severities) for each in known])
    return {
        "": scene or "all",
        "photos": len(known),
        **{
            NAMES[kind]: " → ".join(f"{_mean([at.severities[i] for at in side]):.1f}" for side in _sides(known))
            for i, kind in enumerate(KINDS)
        },
        "fall of the sum, 95 %": f"{falls.mean:+.1f} [{falls.low:+.1f}, {falls.high:+.1f}]",
    }


def _figure_row(scene: str, seen: Sequence[Seen]) -> dict[str, object]:
    return {
        "": scene or "all",
        "photos": len(seen),
        **{
            title: " → ".join(f"{_mean([at.figures[key] for at in side]):.{places}f}" for side in _sides(seen))
            for key, (title, places) in FIGURES.items()
        },
    }


def _sides(seen: Sequence[Seen]) -> tuple[list[Looked], list[Looked]]:
    return [each.before for each in seen], [each.after for each in seen]


def _both(seen: Seen) -> tuple[tuple[str, Looked], tuple[str, Looked]]:
    return ("before", seen.before), ("after", seen.after)


def _label(scene: str) -> str:
    return scene.rpartition("/")[2].lower()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _sheet(scene: str, seen: Sequence[Seen], path: Path) -> None:
    """Photos above, what was made of them below, each under the severities that the reasoner sees."""
    shown = limited(seen, SHOWN)
    figure = Figure(figsize=(3 * len(shown), 5.6), layout="constrained")
    figure.suptitle(f"{scene}: {len(shown)} of {len(seen)} photos; above as they are, below restored", parse_math=False)
    grid = figure.subplots(2, len(shown), squeeze=False)
    for column, each in enumerate(shown):
        for row, (_, at) in enumerate(_both(each)):
            axes = grid[row, column]
            axes.imshow(each.small[row].permute(1, 2, 0).numpy(), interpolation="nearest")
            found = [
                f"{NAMES[kind]} {value:.0f}" for kind, value in zip(KINDS, at.severities, strict=True) if value > 0
            ]
            axes.set_title(f"{each.name}\n{', '.join(found) or 'nothing'}", fontsize=6, parse_math=False)
            axes.axis("off")
    with whole(path) as place:
        figure.savefig(place, format="png", dpi=110)


def _open(path: Path) -> Tensor:
    """(1, 3, H, W) in [0, 1], where the models are."""
    return torch.from_numpy(open_photo(path)).permute(2, 0, 1)[None].to(DEVICE).float() / 255


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"
