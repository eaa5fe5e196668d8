"""Any model that comes as a command: it is run over a folder of photos, and what it wrote is the restoration.

    FOLDER/<of these photos and this command>/input/0000.png 0001.png ...    what the command is to read
                                              output/                        where it is to write
                                              log.txt                        what it said

A command that crashes or does not end, a photo that is missing and one of another size are errors that stop the
evaluation: scored as black, or left out of a mean, they would pass for figures.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rnr.data.batches import rank_and_world
from rnr.data.photos import SUFFIXES, PhotoError, open_photo, save_photo
from rnr.diagnosis import Diagnosis
from rnr.models.interfaces import Restorer
from rnr.models.padding import padded
from rnr.signals import sigterm_raises

LAST_LINES = 10
SHOWN = 5


class CommandError(OSError):
    """A command did not restore what it was given; the message says what went wrong and where its own words stand."""


class External(Restorer):
    """A restorer made of a command.

    command: program and arguments. ``{input}``, ``{output}`` and ``{folder}`` in them stand for absolute paths: of the
        folder of photos, of an empty one for the results, and of the one around both, for whatever else is needed.
    folder: keeps the photos, the results and the log. Photos that the same command has restored before are taken from
        there, so that an evaluation can go on where it broke off; a line says so. Delete it when the weights change.
    cwd: where the command runs, such as the checkout of its code.
    result: pattern below ``output`` of the photo that was made of ``{name}.png``.
    multiple: photos are continued to multiples of so many pixels, and results cut back, for models that would crop.
    timeout: seconds that one run may take.

    Raises ``FileNotFoundError`` if ``cwd`` is not there, ``ValueError`` for a command that names no ``{input}`` or no
    ``{output}``, a pattern without ``{name}`` and numbers out of range.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        cwd: Path | None = None,
        result: str = "**/{name}.*",
        multiple: int = 1,
        timeout: float = 3600.0,
    ) -> None:
        super().__init__()
        for place in ("{input}", "{output}"):
            if not any(place in word for word in command):
                raise ValueError(f"the command must say where {place} goes, got {' '.join(command)!r}")
        if "{name}" not in result:
            raise ValueError(f"result must say where {{name}} goes, got {result!r}")
        if multiple < 1 or not timeout > 0:
            raise ValueError(f"multiple must be at least 1 and timeout above 0, got {multiple} and {timeout:g}")
        if cwd is not None and not Path(cwd).is_dir():
            raise FileNotFoundError(f"{cwd}: no such folder to run {command[0]!r} in")
        self.command, self.folder, self.cwd = list(command), Path(folder).resolve(), cwd
        self.result, self.multiple, self.timeout = result, multiple, timeout

    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """As the interface says; neither ``diagnoses`` nor ``seeds`` reach the command. Raises :class:`CommandError`, also
        where several processes evaluate: their commands would run in one folder and write over each other's results."""
        if rank_and_world()[1] > 1:
            raise CommandError(f"{self.command[0]!r} is for one process: --trainer.devices 1")
        shown = padded(images.detach().float().cpu(), self.multiple).mul(255).round().clamp(0, 255).to(torch.uint8)
        place = self.folder / self._key(shown)
        names = [f"{i:04d}" for i in range(len(shown))]
        if (place / "done").is_file():
            print(f"{len(names)} photos taken from {place}: the same command restored them before", file=sys.stderr)
        else:
            self._prepare(place, dict(zip(names, shown, strict=True)))
            self._run(place)
        restored = self._read(place, names, shown.shape[-2:])
        (place / "done").touch()
        return restored[..., : images.shape[-2], : images.shape[-1]].to(images)

    def _key(self, shown: Tensor) -> str:
        what = hashlib.sha256(repr((self.command, str(self.cwd), tuple(shown.shape))).encode())
        what.update(shown.contiguous().numpy().tobytes())
        return what.hexdigest()[:16]

    def _prepare(self, place: Path, photos: dict[str, Tensor]) -> None:
        shutil.rmtree(place, ignore_errors=True)
        for part in ("input", "output"):
            (place / part).mkdir(parents=True)
        for name, photo in photos.items():
            save_photo(photo / 255, place / "input" / f"{name}.png")

    def _run(self, place: Path) -> None:
        """``CommandError`` if the command cannot be started, fails, or does not end in time."""
        paths = {"{input}": place / "input", "{output}": place / "output", "{folder}": place}
        command, log = [_filled(word, paths) for word in self.command], place / "log.txt"
        print(f"running {' '.join(command)}\n  what it says goes to {log}", file=sys.stderr, flush=True)
        with log.open("wb") as file, sigterm_raises():
            try:
                # A session of its own, so that children of the command can be ended with it.
                process = subprocess.Popen(
                    command, cwd=self.cwd, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
                )
            except OSError as error:
                raise CommandError(f"{command[0]!r} cannot be started: {error}") from error
            try:
                status = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise CommandError(
                    f"{command[0]!r} did not end within {self.timeout:g} seconds{_last_words(log)}"
                ) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status != 0:
            raise CommandError(f"{command[0]!r} failed with status {status}{_last_words(log)}")

    def _read(self, place: Path, names: Sequence[str], size: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) in [0, 1]. ``CommandError`` names every photo that is missing, unreadable or of another size."""
        photos, faults = [], []
        for name in names:
            try:
                photos.append(_one(place / "output", self.result.replace("{name}", name), size))
            except PhotoError as error:
                faults.append(f"{name}.png: {error}")
        if faults:
            more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            told = "\n  ".join(faults[:SHOWN]) + more
            raise CommandError(
                f"{self.command[0]!r} left {len(faults)} of {len(names)} photos unrestored:\n  {told}"
                f"{_last_words(place / 'log.txt')}"
            )
        return torch.stack(photos)


def _filled(word: str, paths: dict[str, Path]) -> str:
    for name, path in paths.items():
        word = word.replace(name, str(path))
    return word


def _one(output: Path, pattern: str, size: tuple[int, int]) -> Tensor:
    """(3, H, W) in [0, 1]: the one photo below ``output`` that fits ``pattern``."""
    found = sorted(path for path in output.glob(pattern) if path.suffix.lower() in SUFFIXES)
    if not found:
        raise PhotoError(f"no photo {pattern} was written below {output}")
    if len(found) > 1:
        raise PhotoError(f"{found[0]} and {found[1]} both fit {pattern}: make `result` narrower")
    pixels = open_photo(found[0])
    if pixels.shape[:2] != tuple(size):
        raise PhotoError(f"{found[0]} has {pixels.shape[0]} x {pixels.shape[1]} pixels, not {size[0]} x {size[1]}")
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = "".join(f"\n  | {line}" for line in lines[-LAST_LINES:])
    return f"; the end of {log}:{told}" if lines else f"; {log} is empty"
