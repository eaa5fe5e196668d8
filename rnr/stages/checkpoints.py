"""Files and folders that are whole or not there, the checkpoint that a run can go on from, and the lock on its folder."""

import fcntl
import json
import os
import shutil
import socket
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

CHECKPOINTS, LAST, PREVIOUS = "checkpoints", "last.ckpt", "previous.ckpt"
CONTENTS = "contents.json"


class CheckpointError(OSError):
    """There is nothing to go on from; the message names the file and says what is wrong with it."""


def commit(fresh: Path, final: Path, before: Path) -> None:
    """``fresh``, a file or a folder, takes the place of ``final``, and that of ``before``.

    All bytes are on the disk before any name changes. Whenever this is cut off, ``final`` or ``before`` is whole.
    """
    for path in [*fresh.rglob("*"), fresh] if fresh.is_dir() else [fresh]:
        _to_disk(path)
    if final.exists():
        remove(before)
        final.rename(before)
    fresh.rename(final)
    _to_disk(final.parent)


def seal(folder: Path) -> None:
    """Leaves a list of what is in a checkpoint's ``folder``, from which :func:`fault_of` knows whether it is whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / CONTENTS).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")


def remove(path: Path) -> None:
    """A file, a folder, or nothing."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def usable(path: Path) -> Path:
    """``path`` if it is whole, else the checkpoint before it, with a line on stderr that says so.

    Raises :class:`CheckpointError` if neither can be used.
    """
    if (fault := fault_of(path)) is None:
        return path
    before = path.with_name(PREVIOUS)
    if path.name != LAST or (other := fault_of(before)) is not None:
        beside = f"; {before}: {other}" if path.name == LAST else ""
        raise CheckpointError(f"{path}: {fault}{beside}")
    print(f"{path}: {fault}; going on from the checkpoint before it, {before}", file=sys.stderr)
    return before


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is whole. Every byte is read, but of FSDP2's parts, whose sizes count."""
    if path.is_dir():
        try:
            sizes = json.loads((path / CONTENTS).read_text(encoding="utf-8"))
            torn = [name for name, size in sizes.items() if (path / name).stat().st_size != size]
        except (OSError, ValueError, AttributeError):
            return "a torn checkpoint (not all of its files are there)"
        if torn:
            return f"a torn checkpoint ({torn[0]} has another size than was written)"
        faults = {name: _torn(path / name) for name in sizes if name.endswith(".pt")}  # DeepSpeed's
        return next((f"{fault[:-1]} in {name})" for name, fault in faults.items() if fault), None)
    return _torn(path) if path.is_file() else "no such checkpoint"


def _torn(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            torn = archive.testzip()  # torch itself compares no checksums
        return f"a torn checkpoint (the checksum of {torn} is wrong)" if torn else None
    # A torn archive can raise nearly anything: BadZipFile, EOFError, struct.error, NotImplementedError, zlib.error.
    except Exception as error:
        return f"a torn checkpoint ({error})"


def resumed_from(checkpoint: str | None, folder: Path) -> Path | None:
    """What ``rnr fit --ckpt_path CHECKPOINT`` goes on from; ``last`` is that of the run in ``folder``, None if it has none.

    Raises :class:`CheckpointError` if what is there cannot be used.
    """
    if checkpoint is None:
        return None
    if checkpoint != "last":
        return usable(Path(checkpoint))
    last = folder / CHECKPOINTS / LAST
    return usable(last) if last.exists() or last.with_name(PREVIOUS).exists() else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time writes into ``folder``. The lock ends with the process, however that ends.

    Raises :class:`CheckpointError` if another process holds it, ``OSError`` if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "run.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CheckpointError(
                f"{folder}: another run ({file.read().strip()}) is writing there; wait for it, or give this one a "
                f"trainer.default_root_dir of its own"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing it would not do: loader processes have it open too


class StraightToDisk(TorchCheckpointIO):
    """Writes a checkpoint where it is to lie. Lightning's own holds a second copy in memory and a third in /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
        except BaseException as error:
            Path(path).unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and isinstance(cause := error.__context__, OSError):
                raise OSError(cause.errno, cause.strerror, path) from error  # torch only says "unexpected pos"
            raise


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
