"""Faults that a run's process puts into itself, and what is left on disk afterwards."""

import os
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class KilledAt:
    """kill -9 at the ``number``-th call of ``name``: ``save`` (in the middle of its bytes), ``fsync`` or ``rename``."""

    name: str
    number: int

    def __call__(self) -> None:
        calls = 0
        module, attribute = {"save": (torch, "save"), "fsync": (os, "fsync"), "rename": (Path, "rename")}[self.name]
        real = getattr(module, attribute)

        def faulty(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls < self.number:
                return real(*args, **kwargs)
            if self.name == "save":
                real(*args, **kwargs)
                args[1].truncate(args[1].tell() // 2)
                args[1].flush()
            kill()

        setattr(module, attribute, faulty)


@dataclass
class FilesUpTo:
    """No file may grow beyond ``size`` bytes: what a full disk looks like to the process that fills it."""

    size: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@dataclass
class NotANumberAt:
    """The loss of step ``step`` is NaN."""

    step: int

    def __call__(self) -> None:
        from rnr.models.compact import CompactRestorer

        real, calls = CompactRestorer.loss, 0

        def loss(*args):
            nonlocal calls
            calls += 1
            return real(*args) * (float("nan") if calls == self.step + 1 else 1)

        CompactRestorer.loss = loss


def no_network() -> None:
    """Whoever asks for it is told so in no uncertain terms."""

    def refuse(self, address):
        raise AssertionError(f"connects to {address}")

    socket.socket.connect = refuse
    socket.getaddrinfo = lambda *args, **kwargs: refuse(None, args[:2])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights/model.safetensors")


def step_of(checkpoint: Path) -> int:
    return torch.load(checkpoint)["global_step"]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
