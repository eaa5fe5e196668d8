"""The commands for photos: ``rnr demo``, ``rnr degrade``, ``rnr diagnose`` and ``rnr restore``.

A photo that cannot be used costs one line on stderr; the rest go on, and the command exits with 1 at the end.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from rnr.atomic import whole
from rnr.command_line import add_weights, at_least_one, seed, share
from rnr.data import presets
from rnr.data.batches import seed_of
from rnr.data.depth import depth_of
from rnr.data.photos import Photo, save_photo, shipped_photos
from rnr.degradation import Degrader
from rnr.diagnosis import KINDS, Diagnosis, ParseFailure, files, render, truth
from rnr.diagnosis.edit import surely, with_severity
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.text import NAMES
from rnr.figures import contact_sheet, save_figure
from rnr.metrics.leading import FOLDERS, can_be_led, leading, leading_figures
from rnr.metrics.restoration import as_saved, psnr, ssim
from rnr.models.interfaces import TrainableRestorer
from rnr.models.reward import Reward
from rnr.photo_batch import DEVICE, each, opened
from rnr.pipeline import ReasonAndRestore, best, blended
from rnr.pipeline import restore as restored_by

STEPS = tuple(f"{number}_{kind}.png" for number, kind in enumerate(KINDS, start=1))
DEGRADED = (*STEPS, "degraded.png", "diagnosis.json", "sheet.png")
RESTORED = ("restored.png", "diagnosis.json", "figure.png")
"""What there is of a photo once it is degraded, or restored."""


def degrade(argv: Sequence[str]) -> int:
    """Puts photos through Eq. 1, and writes what was applied."""
    parser = _parser("degrade", "Degrade clean photos by the model of Eq. 1 and write what was applied.")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="each photo gets DIR/<stem>/")
    parser.add_argument("--seed", type=seed, default=0, help="of the degradations drawn (default 0)")
    parser.add_argument(
        "--preset", default="paper", metavar="NAME",
        help=f"priors to draw from: {', '.join(presets.names())}, or a YAML file (default paper)",
    )  # fmt: skip
    parser.add_argument(
        "--diagnosis", type=Path,
        help="apply the parameters of this diagnosis.json; severities follow from them and are not read. What cannot be had "
        "exactly, such as a blur longer than its kernel, is told of",
    )  # fmt: skip
    parser.add_argument("--sheet", action="store_true", help="also write sheet.png: each degradation, faint to worst")
    args = parser.parse_args(argv)
    given = _load(parser, args.diagnosis)
    try:
        degrader = presets.load(args.preset)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")

    def one(photo: Photo, image: Tensor, folder: Path) -> str:
        depth = _depth(photo, image)[None]
        own = seed_of(args.seed, photo.name)
        if given is None:
            drawn = degrader.sample([torch.Generator().manual_seed(own)])
        else:
            drawn = truth.degradation([given], depth, [own % 2**31])
        degraded = Degrader.apply(image[None], depth, drawn)
        for name, step in zip(STEPS, degraded.steps.values(), strict=True):
            save_photo(step.image[0], folder / name)
        save_photo(degraded.image[0], folder / "degraded.png")
        scene = photo.scene if given is None else given.scene
        applied = truth.diagnoses(degraded, [scene])[0]
        files.save(applied, folder / "diagnosis.json")
        if given is not None and (missed := truth.missed(given, applied)):
            print(f"{photo.path}: not exactly as asked for: {'; '.join(missed)}", file=sys.stderr)
        if args.sheet:
            with whole(folder / "sheet.png") as place:
                contact_sheet(image, depth[0], degrader, args.seed).savefig(place, format="png", dpi=110)
        return _in_short(applied)

    return each(args.photos, one, args.output, DEGRADED, scenes=True)


def diagnose(argv: Sequence[str]) -> int:
    """Prints what is wrong with photos."""
    parser = _parser(
        "diagnose",
        "Say what is wrong with photos, in words and numbers, and how sure that is: the chance that each degradation is "
        "there, or is not, and between which values the middle 90 % of what its severity may be lies.",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--json", action="store_true",
        help="one JSON list of {photo, diagnosis, examination}, the last with presence (chances in [0, 1]) and intervals "
        "(90 %%, of all numbers of what is there); null: no diagnosis",
    )  # fmt: skip
    output.add_argument(
        "--folders", action="store_true",
        help=f"photos lie in folders named after what is wrong with them ({', '.join(FOLDERS)}): say how often that leads "
        "the diagnosis, instead of printing each",
    )  # fmt: skip
    add_weights(parser, "reasoner")
    args = parser.parse_args(argv)
    reasoner = _load_model(parser, "reasoner", args.reasoner)
    answers: list[dict[str, object]] = []
    led: list[tuple[str, Diagnosis | None]] = []
    wrong: list[str] = []

    def one(photo: Photo, image: Tensor, folder: Path) -> None:
        answer = reasoner.examine(image[None])[0]
        label = photo.path.parent.name.lower() if args.folders else ""
        if isinstance(answer, ParseFailure):
            if label in FOLDERS:
                led.append((label, None))
            wrong.append(f"{photo.path}: the reasoner's answer is no diagnosis ({answer.reason})")
            answers.append({"photo": str(photo.path), "diagnosis": None, "examination": None})
            return
        sure = {"presence": answer.presence, "intervals": answer.intervals}
        answers.append({"photo": str(photo.path), "diagnosis": files.to_dict(answer.diagnosis), "examination": sure})
        if label in FOLDERS:
            led.append((label, answer.diagnosis))
            leading(answer.diagnosis)  # ValueError without severities
        if not args.json and not args.folders:
            print(f"{photo.path}\n{render(answer.diagnosis)}\n{_how_sure(answer)}\n", flush=True)

    status = each(args.photos, one, None)
    if args.json:
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    if led and all(can_be_led(said) for _, said in led):
        for row in leading_figures(*zip(*led, strict=True)):
            print(
                f"{row.folder:<12} {row.photos:>4} photos: found in {row.found:.0%}, leads {row.leads:.0%} "
                f"(the usual leader, whatever the photo: {row.rival:.0%})"
            )
    if args.folders and answers and not led:
        wrong.append(f"no photo lies in a folder named {', '.join(FOLDERS)}")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else status


def restore(argv: Sequence[str]) -> int:
    """Repairs photos."""
    parser = _parser("restore", "Diagnose photos and repair them accordingly.")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="each photo gets DIR/<stem>/")
    parser.add_argument("--diagnosis", type=Path, help="use this diagnosis.json instead of the reasoner's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KIND=SEVERITY", type=_setting,
        help=f"overrule a severity (1 to 100; 0: not there) of {', '.join(KINDS)} (or haze, blur); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--sure", type=share, default=0.0, metavar="CHANCE",
        help="leave alone what the diagnosis is less sure of than this, such as 0.8 for photos that may be good ones; "
        "more of what is faint stays then (default: what is likelier than not is repaired)",
    )  # fmt: skip
    parser.add_argument(
        "--strength", type=share, default=1.0, metavar="S",
        help="how much of the change is made, from 0 (the photo as it is) to 1 (default)",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed, default=0, help="for restorers that draw noise (default 0)")
    parser.add_argument(
        "--best-of", type=at_least_one, default=1, metavar="N",
        help="make N candidates, in N times the time and memory, and keep the one in which the reasoner sees the least "
        "(default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--cycle", type=_weight, default=0.0, metavar="W",
        help="with --best-of: a candidate that, degraded again as diagnosed, misses the photo by 1 %% loses W points of "
        "severity (default 0)",
    )  # fmt: skip
    add_weights(parser, "reasoner", "restorer")
    args = parser.parse_args(argv)
    given = _load(parser, args.diagnosis)
    given = given and surely(given, args.sure)
    restorer = _load_model(parser, "restorer", args.restorer)
    if args.cycle and args.best_of == 1:
        parser.error("argument --cycle: picks among candidates, so --best-of must be at least 2")
    if args.best_of > 1 and not isinstance(restorer, TrainableRestorer):
        parser.error(f"argument --best-of: {type(restorer).__name__} makes one result of a photo, and no candidates")
    reasoner = _load_model(parser, "reasoner", args.reasoner) if given is None or args.best_of > 1 else None
    reward = Reward(cycle_weight=100 * args.cycle)
    told = {kind for kind, _ in args.set}  # of what a given diagnosis has at odds

    def one(photo: Photo, image: Tensor, folder: Path) -> str:
        diagnosis = given
        if given is None:
            answer = reasoner.diagnose(image[None])[0]
            diagnosis = surely(answer, args.sure) if isinstance(answer, Diagnosis) else None
            if diagnosis is None:
                print(f"{photo.path}: no diagnosis ({answer.reason}); restored without one", file=sys.stderr)
        elif odd := {kind: line for kind, line in truth.at_odds(given, image).items() if kind not in told}:
            told.update(odd)
            lines = "; ".join(odd.values())
            print(f"{args.diagnosis}: {lines}; both count, and --set KIND=SEVERITY changes both", file=sys.stderr)
        for kind, severity in args.set:
            diagnosis = with_severity(diagnosis or Diagnosis(), kind, severity)
        if args.best_of > 1:
            choice = best(reasoner, restorer, image, diagnosis, args.best_of, args.seed, reward)
            restored, rewards = choice.image, choice.rewards
            print(
                f"{photo.path}: candidate {choice.index + 1} of {args.best_of}, reward {rewards[choice.index]:+.1f} "
                f"(the first: {rewards[0]:+.1f})"
            )
        else:
            restored = restored_by(restorer, image, diagnosis, args.seed)
        restored = blended(image, restored, args.strength)
        save_photo(restored, folder / "restored.png")
        if diagnosis is not None:
            files.save(diagnosis, folder / "diagnosis.json")
        save_figure([("input", image), ("restored", restored)], diagnosis, folder / "figure.png")
        return _in_short(diagnosis)

    return each(args.photos, one, args.output, RESTORED)


def demo(argv: Sequence[str]) -> int:
    """The main job, on a photo that ships along: degrade it, diagnose it, restore it, and say what was gained."""
    parser = argparse.ArgumentParser(prog="rnr demo", description=demo.__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder (default demo)")
    parser.add_argument("--seed", type=seed, default=0, help="of the degradation (default 0)")
    args = parser.parse_args(argv)
    pipeline = ReasonAndRestore(
        _load_model(parser, "reasoner", "shipped/reasoner"), _load_model(parser, "restorer", "shipped/restorer")
    )
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.exit(2, f"error: {error}\n")
    photo = shipped_photos("test")[0]
    clean = opened(photo)
    depth = _depth(photo, clean)
    drawn = Degrader().sample([torch.Generator().manual_seed(args.seed)])
    degraded = as_saved(Degrader.apply(clean[None], depth[None], drawn).image)[0]
    repair = pipeline(degraded)
    print(f"{photo.name}, degraded (seed {args.seed}). The reasoner says:\n")
    print(repair.failure.reason if repair.failure else render(repair.diagnosis))
    panels = {"clean": clean, "degraded": degraded, "restored": repair.image}
    try:
        for name, image in panels.items():
            save_photo(image, args.output / f"{name}.png")
        save_figure(list(panels.items()), repair.diagnosis, args.output / "figure.png")
    except OSError as error:
        parser.exit(1, f"error: {args.output}: {error}\n")
    before, after = (
        (psnr(image[None], clean[None]).item(), ssim(image[None], clean[None]).item())
        for image in (degraded, repair.image)
    )
    print(f"\ndegraded  {before[0]:6.2f} dB  SSIM {before[1]:.4f}")
    print(f"restored  {after[0]:6.2f} dB  SSIM {after[1]:.4f}")
    print(f"gain      {after[0] - before[0]:+6.2f} dB  SSIM {after[1] - before[1]:+.4f}")
    print(f"\nfigure: {args.output / 'figure.png'}")
    return 0


def _in_short(diagnosis: Diagnosis | None) -> str:
    """``fog 55.9, sensor noise 12.4``."""
    if diagnosis is None:
        return "no diagnosis"
    found = {NAMES[kind]: diagnosis[kind].severity for kind in KINDS if diagnosis[kind] is not None}
    parts = [name if severity is None else f"{name} {severity:.1f}" for name, severity in found.items()]
    return ", ".join(parts) or "nothing found"


def _how_sure(examined: Examination) -> str:
    """A line a degradation: ``  fog 98 % sure, severity 55.9 (48 to 63)`` or ``  no fog, 98 % sure``."""
    lines = []
    for kind in KINDS:
        finding, chance = examined.diagnosis[kind], examined.presence[kind]
        percent = round(100 * (chance if finding else 1 - chance))
        sure = f"{percent} % sure" if percent < 100 else "over 99 % sure"
        if finding is None:
            lines.append(f"  no {NAMES[kind]}, {sure}")
        elif finding.severity is None:
            lines.append(f"  {NAMES[kind]} {sure}")
        else:
            low, high = examined.intervals[kind]["severity"][0]
            lines.append(f"  {NAMES[kind]} {sure}, severity {finding.severity:.1f} ({low:.0f} to {high:.0f})")
    return "\n".join(lines)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"rnr {name}", description=description)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="image files, or folders of them")
    return parser


def _load_model(parser: argparse.ArgumentParser, role: str, name: str) -> torch.nn.Module:
    from rnr.models import load

    try:
        model = {"reasoner": load.load_reasoner, "restorer": load.load_restorer}[role](name)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        parser.exit(2, f"error: {error}\n")
    return model.eval().to(DEVICE)


def _load(parser: argparse.ArgumentParser, path: Path | None) -> Diagnosis | None:
    try:
        return None if path is None else files.load(path)
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")


def _weight(text: str) -> float:
    try:
        return Reward(float(text)).cycle_weight
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, got {text!r}") from None


def _setting(text: str) -> tuple[str, float]:
    kind, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KIND=SEVERITY, such as fog=0")
    try:
        severity = float(value)
        kind = FOLDERS.get(kind.lower(), kind)  # haze and blur, as people label their photos
        with_severity(Diagnosis(), kind, severity)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KIND=SEVERITY ({error})") from None
    return kind, severity


def _depth(photo: Photo, image: Tensor) -> Tensor:
    """(1, H, W) relative depth in [0, 1]."""
    return depth_of(photo, (image * 255).round().to(torch.uint8).cpu()).to(DEVICE).float() / 255
