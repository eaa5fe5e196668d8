"""``rnr dataset build``: the paper's "Dataset Outputs" (A.2) of many photos. ``rnr dataset check``: is all of it there?

A photo that cannot be used costs one line on stderr; the rest go on, and the command exits with 1 at the end.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset

from rnr.command_line import add_photo_sources, once, progress
from rnr.data import presets
from rnr.data.build import build, run
from rnr.data.built import BuiltSet, open_set, photo_of
from rnr.data.layouts import photos_in
from rnr.data.photos import PhotoError
from rnr.data.sample import FILES, IMAGES, Recipe, Record, again, read_kernel, read_png
from rnr.degradation.shake import TAPS
from rnr.diagnosis import KINDS
from rnr.metrics.restoration import SSIM_WINDOW, psnr, ssim


def dataset(argv: Sequence[str]) -> int:
    """Builds and checks sets of degraded photos."""
    parser = argparse.ArgumentParser(prog="rnr dataset", description=dataset.__doc__)
    commands = parser.add_subparsers(required=True, metavar="build | check", dest="command")
    _add_build(commands)
    _add_check(commands)
    args = parser.parse_args(argv)
    if args.workers < 0:
        parser.error(f"argument --workers: must be at least 0, got {args.workers}")
    return _build(parser, args) if args.command == "build" else _check(parser, args)


def _add_build(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "build",
        description="Degrade photos by Eq. 1; write every step, all that was drawn, and the true diagnosis. "
        "Killed and run again, it goes on where it was.",
    )
    add_photo_sources(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the set")
    parser.add_argument("--preset", default="paper", help=f"priors: {', '.join(presets.names())}, or a .yaml of yours")
    parser.add_argument("--looks", type=int, default=1, help="degradations of each photo (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default 0)")
    parser.add_argument(
        "--size", type=int, default=0, metavar="PX", help="scale down to this long side (default: keep)"
    )
    parser.add_argument(
        "--crop", type=int, default=0, metavar="PX",
        help="cut a random square, of a photo that is too small continued by its mirror image (default: whole photos)",
    )  # fmt: skip
    parser.add_argument(
        "--shards", type=float, default=0, metavar="MB",
        help="write WebDataset shards of about MB megabytes (default: a folder a sample)",
    )  # fmt: skip
    _add_workers(parser)


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "check",
        description="Read every file of a built set, make each degraded photo again from its parameters and compare, "
        "and print what is in the set.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `rnr dataset build` wrote")
    _add_workers(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=cores, help=f"processes (default {cores}; 0: none but this one)")


def _build(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    try:
        recipe = Recipe(args.preset, presets.load(args.preset), args.seed, args.looks, args.size, args.crop)
        if args.shards < 0:
            raise ValueError(f"shards must be at least 0 megabytes, got {args.shards}")
        photos = once(photos_in(args.photos, args.split))
        total, told = len(photos) * recipe.looks, set()
        with progress("samples") as bar:
            task = bar.add_task("", total=total)

            def report(error: str | None) -> None:
                bar.advance(task)
                if error and error not in told:  # once a photo, however many looks
                    told.add(error)
                    print(f"error: {error}", file=sys.stderr, flush=True)

            count = build(photos, recipe, args.output, args.shards, args.workers, report)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    except (OSError, RuntimeError) as error:  # a full disk, a worker that ran out of memory
        parser.exit(1, f"error: {args.output}: {error}; run the same command again to go on\n")
    print(f"{args.output}: {count} of {total} samples of {len(photos)} photos")
    return 1 if told else 0


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    try:
        built = open_set(args.folder)
    except PhotoError as error:
        parser.exit(1, f"error: {error}\n")
    results: list[Checked] = []
    with progress("samples") as bar:
        for result in bar.track(run(Checks(built), range(len(built.keys)), args.workers), total=len(built.keys)):
            results.append(result)
            if result.error:
                print(f"error: {args.folder}: sample {result.key}: {result.error}", file=sys.stderr, flush=True)
    _print_summary(built, [result for result in results if not result.error])
    if not any(result.error for result in results):
        return 0
    print("what is wrong is made anew by the command that built the set, once it is deleted: a sample's folder, or its shard")
    return 1


@dataclass(frozen=True)
class Checked:
    """A sample's severities (0 where absent, in the order of ``KINDS``) and input figures, or what is wrong with it."""

    key: str
    error: str = ""
    severities: tuple[float, ...] = ()
    psnr: float = math.nan
    ssim: float = math.nan


class Checks(Dataset):
    """Every sample of a built set, read in full."""

    def __init__(self, built: BuiltSet) -> None:
        self.built = built

    def __getitem__(self, place: int) -> Checked:
        key = self.built.keys[place]
        try:
            return self._check(key, self.built.read(key, FILES))
        except (ValueError, OSError, RuntimeError) as error:
            return Checked(key, str(error))
        except (KeyError, TypeError, AttributeError) as error:  # something is not there, or of another kind
            return Checked(key, f"sample.json does not tell what it should ({error})")

    def _check(self, key: str, files: dict[str, bytes]) -> Checked:
        record = Record.from_json(files["sample.json"].decode())
        if record.photo != self.built.header.photos[photo_of(key)]:
            raise ValueError(f"it was made of {record.photo}, not of {self.built.header.photos[photo_of(key)]}")
        images = {name: _image(name, files[name]) for name in (*IMAGES, "depth.png")}
        for name, image in images.items():
            channels = 1 if name == "depth.png" else 3
            if image.shape != (channels, *record.size):
                raise ValueError(f"{name} is {tuple(image.shape)}, expected {(channels, *record.size)}")
        kernel = read_kernel(files["kernel.npy"])
        if kernel.shape != (TAPS, TAPS) or abs(kernel.sum() - 1) > 1e-6:
            raise ValueError(
                f"kernel.npy is {kernel.shape} with the sum {kernel.sum():g}, expected {(TAPS, TAPS)} and 1"
            )
        clean, degraded = (images[name][None].float() / 255 for name in ("clean.png", "degraded.png"))
        levels = (again(files).image * 255).round() - degraded * 255
        # Another machine may round a level up that this one rounds down.
        if (levels.abs() > 1.5).float().mean() > 0.001:
            raise ValueError("its parameters do not make degraded.png of clean.png")
        similarity = ssim(degraded, clean).item() if min(record.size) >= SSIM_WINDOW else math.nan
        return Checked(key, "", record.diagnosis.severities, psnr(degraded, clean).item(), similarity)


def _image(name: str, content: bytes) -> torch.Tensor:
    try:
        return read_png(content)
    except (ValueError, OSError) as error:
        raise ValueError(f"{name} cannot be read ({error})") from error


def _print_summary(built: BuiltSet, good: Sequence[Checked]) -> None:
    photos = len({photo_of(result.key) for result in good})
    left_out = len(built.header.expected()) - len(built.keys)
    print(f"{built.root}: {len(good)} samples of {photos} photos" + (f", {left_out} left out" if left_out else ""))
    if not good:
        return
    severities = torch.tensor([result.severities for result in good], dtype=torch.float64)
    table = Table(title="Severity where present, in [1, 100]", title_justify="left")
    for column in ("", "present", "5 %", "median", "95 %"):
        table.add_column(column, justify="right" if column else "left")
    for kind, column in zip(KINDS, severities.T, strict=True):
        there = column[column > 0]
        marks = torch.quantile(there, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)) if len(there) else []
        cells = [f"{mark:.1f}" for mark in marks] or ["-"] * 3
        table.add_row(kind, f"{len(there) / len(good):.1%}", *cells)
    Console().print(table)
    similarities = [result.ssim for result in good if not math.isnan(result.ssim)]
    mean_ssim = f"{sum(similarities) / len(similarities):.4f}" if similarities else "-"
    print(f"input: PSNR {sum(result.psnr for result in good) / len(good):.2f} dB, SSIM {mean_ssim} (means)")
