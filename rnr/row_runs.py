"""Runs of ``rnr`` that make up a table: each in a process of its own, and none twice.

A run that is through leaves ``done.json`` in its folder: its command, what its configurations said, and which weights and
files they named. As long as all of that is the same, it is not run again; so a table goes on where it broke off, and a row
whose configuration, options or weights have changed is made anew.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from huggingface_hub import try_to_load_from_cache

from rnr.command_line import progress
from rnr.models.weights import locate
from rnr.records import Record, named_weights, values, write_whole
from rnr.signals import sigterm_raises, undisturbed
from rnr.stage_commands import weights_of

NOTHING: Mapping[str, str] = MappingProxyType({})
RNR = [sys.executable, "-m", "rnr"]
STAMP = "done.json"
LAUNCHED: set[subprocess.Popen] = set()
"""What is running, each the head of a group of its own: with it ends whatever it has begun."""
LAUNCHING, OVER = threading.Lock(), threading.Event()
"""Held while something is launched, so that nothing is between its start and its place above; set when all is to end."""
PATIENCE = 20.0
"""Seconds that a run may take to end when it is asked to."""
INDICES = ("model_index.json", "config.json")


@dataclass(frozen=True)
class Run:
    """``rnr COMMAND --config ... OPTIONS``, with its results, its log and its stamp in ``folder``."""

    command: str
    folder: Path
    configs: tuple[Path, ...]
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        configs = [f"--config={path}" for path in self.configs]
        return [self.command, *configs, *self.options, f"--trainer.default_root_dir={self.folder}"]

    @property
    def log(self) -> Path:
        return self.folder / f"{self.command}.log"

    def done(self) -> bool:
        """Whether it is through, as it would be run now."""
        stamp = self.folder / STAMP
        if self.command == "fit" and not weights_of(self.folder).is_dir():
            return False
        return stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == self._fingerprint()

    def once(self, env: Mapping[str, str] = NOTHING) -> str | None:
        """Runs it unless it is done. None if all is well, else why it failed, in a line; all it said is in ``log``.

        Nothing is downloaded: weights are local, or in the hub's cache already.
        """
        if self.done():
            return None
        if (lacking := self.lacking()) is not None:
            return lacking
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._replacing():
            if (fault := launched(self.arguments, self.log, env)) is not None:
                return fault
            write_whole(json.dumps(self._fingerprint(), indent=2) + "\n", self.folder / STAMP)
        return None

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        """An earlier run's stamp and weights, which would pass for those of this one, are out of the way within. They are
        gone afterwards if this one has come to have its own, and back in their place if not: an option may be mistyped."""
        kept, stamp, weights = self.folder / "replaced", self.folder / STAMP, weights_of(self.folder)
        if self.command == "fit":
            if kept.is_dir() and not (stamp.is_file() and weights.exists()):  # this was cut off in what follows
                self._put_back(kept)
            if stamp.is_file():
                print(f"{self.folder}: replaces a run of another command, configuration or weights", file=sys.stderr)
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir()
            for part in (weights, stamp):
                if part.exists():
                    part.replace(kept / part.name)
        else:
            stamp.unlink(missing_ok=True)
        try:
            yield
        finally:
            if self.command == "fit" and not weights.exists():
                self._put_back(kept)
            shutil.rmtree(kept, ignore_errors=True)

    def _put_back(self, kept: Path) -> None:
        """A stamp never comes to stand beside weights that are not its own."""
        shutil.rmtree(weights_of(self.folder), ignore_errors=True)
        for part in kept.iterdir():
            part.replace(self.folder / part.name)

    def _said(self) -> Iterator[Any]:
        """What each configuration says, and each option as ``{its last name: its value}``. What is no YAML says nothing here:
        a run says so."""
        for path in self.configs:
            with suppress(yaml.YAMLError, UnicodeDecodeError):
                yield yaml.safe_load(path.read_text("utf-8"))
        for word, following in pairwise([*self.options, ""]):
            name, equals, value = word.partition("=")
            text = value if equals else following
            if name.startswith("--"):
                with suppress(yaml.YAMLError):
                    yield {name.rpartition(".")[2]: yaml.safe_load(text) if text else text}

    def _named(self, key: str) -> list[str | list[str]]:
        """All that configurations and options name as ``key``, but for what is no name."""
        return [value for said in self._said() for value in values(said, key) if _is_name(value)]

    @property
    def weights(self) -> list[str]:
        """The names of what is tested."""
        return named_weights([{"checkpoint": value} for value in self._named("checkpoint")])

    def begins_with(self, fit: "Run") -> bool:
        """Whether it is given what that one trains."""
        return any(str(weights_of(fit.folder)) in option for option in self.options)

    def names(self, folder: Path) -> bool:
        """Whether its configurations speak of the weights that a run in ``folder`` leaves."""
        return any(weights_of(folder).as_posix() in path.read_text("utf-8", "replace") for path in self.configs)

    def trained(self) -> list[list[str | int]]:
        """The files of the weights that it has left."""
        return _state(str(weights_of(self.folder)))

    @property
    def seed(self) -> int | None:
        """That of the degradations in a test that is through, as its record has it."""
        path = self.folder / "test.json"
        return Record.read(path).seed if path.is_file() else None

    def lacking(self) -> str | None:
        """What is named but not there: to find out here is seconds faster than in a process of its own."""
        try:
            places = [locate(name) for name in self._named("checkpoint")]
        except FileNotFoundError as error:
            return str(error)
        for name in places:
            if not Path(name).is_dir() and not any(isinstance(try_to_load_from_cache(name, f), str) for f in INDICES):
                return f"{name} is not on this machine: hf download {name}"
        absent = [folder for folder in self._named("cwd") if not Path(folder).is_dir()]
        return f"{absent[0]}: no such folder" if absent else None

    def _fingerprint(self) -> dict[str, Any]:
        texts = [path.read_bytes() for path in self.configs]
        named = {name for value in self._named("checkpoint") for name in ([value] if isinstance(value, str) else value)}
        fingerprint = {
            "arguments": self.arguments,
            "configs": hashlib.sha256(b"\0".join(texts)).hexdigest(),
            "weights": {name: _state(name) for name in sorted(named)},
        }
        return fingerprint | ({"files": files} if (files := self._files()) else {})

    def _files(self) -> dict[str, str]:
        """What is in the files that configurations and options name, such as a preset."""
        found = {text for node in self._said() for text in _texts(node)}
        return {name: _digest(name) for name in sorted(found) if _is_file(name)}


def launched(arguments: Sequence[str], log: Path, env: Mapping[str, str] = NOTHING) -> str | None:
    """Runs ``rnr`` with ``arguments`` in a process of its own, offline, with ``env`` added to the environment. None if all is
    well, else why it failed, in a line; all it said is in ``log``."""
    with log.open("w", encoding="utf-8") as file:
        with LAUNCHING:
            if OVER.is_set():
                return "told to end before it began"
            process = subprocess.Popen(
                [*RNR, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"HF_HUB_OFFLINE": "1", **os.environ, **env},
                start_new_session=True,
            )
            LAUNCHED.add(process)
        try:
            status = process.wait()
        finally:
            LAUNCHED.discard(process)
    return _reason(log) if status else None


@contextmanager
def ending_together(jobs: int, patience: float) -> Iterator[ThreadPoolExecutor]:
    """Yields ``jobs`` threads to launch from. Ctrl-C, SIGTERM, SIGHUP and an error of our own within end what was
    :func:`launched`, with all that it has begun, and nothing more is launched until the threads have ended as well. What has
    not ended within ``patience`` seconds is killed; whoever launches what launches others must have more of it."""
    try:
        with ThreadPoolExecutor(jobs) as pool, sigterm_raises():
            try:
                yield pool
            except BaseException:
                with undisturbed():
                    _end_launched(patience)
                raise
    finally:
        OVER.clear()


def _end_launched(patience: float) -> None:
    OVER.set()
    with LAUNCHING:
        running, until = list(LAUNCHED), time.monotonic() + patience
    for process in running:
        _end(process, signal.SIGTERM)
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        _end(process, signal.SIGKILL)


def _end(process: subprocess.Popen, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def run_all(chains: Sequence[Sequence[Run]], jobs: int = 1) -> dict[Path, str]:
    """Runs what is not done yet, and says so: ``jobs`` chains side by side, which share the cores out, and each run after
    those before it in its chain. Returns why each that failed did, by its folder. Ctrl-C, SIGTERM, or an error of our own,
    ends the runs that are under way and begins no other."""
    faults: dict[Path, str] = {}
    env = share_of_cores(min(jobs, len(chains)))
    with progress("runs") as bar, ending_together(jobs, PATIENCE) as pool:
        task = bar.add_task("", total=sum(map(len, chains)))

        def tell(run: Run, what: str) -> None:
            bar.console.print(f"{run.folder}: {what}", highlight=False, markup=False, soft_wrap=True)

        def follow(chain: Sequence[Run]) -> None:
            untrained: list[Run] = []  # weights that are there are of an earlier run
            for run in chain:
                if OVER.is_set():
                    return
                fault, before = None, run.trained()
                if broken := [fit.folder for fit in untrained if run.begins_with(fit)]:
                    fault = f"{broken[0]} was not trained"
                elif run.done():
                    tell(run, "done before")
                else:
                    if run.lacking() is None:
                        tell(run, f"runs, see {run.log}")
                    fault = run.once(env)
                if fault is not None:
                    faults[run.folder] = fault
                    tell(run, f"no result: {fault}")
                    if run.trained() == before:  # else it diverged, and has kept what it had learned
                        untrained.append(run)
                bar.advance(task)

        for chain in as_completed([pool.submit(follow, chain) for chain in chains]):
            chain.result()
    return {run.folder: faults[run.folder] for chain in chains for run in chain if run.folder in faults}


def common_seed(runs: Sequence[Run]) -> int | None:
    """That of the degradations in all of these tests; None if they differ or do not say."""
    seeds = {run.seed for run in runs}
    return seeds.pop() if len(seeds) == 1 else None


def share_of_cores(jobs: int) -> dict[str, str]:
    """The environment of one of so many processes side by side, which share the threads of this one."""
    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))} if jobs > 1 else {}


def _state(name: str) -> list[list[str | int]]:
    """Name, size and time of all files of a checkpoint; none where it is not there, or on the hub."""
    try:
        folder = Path(locate(name))
    except FileNotFoundError:
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from _texts(each)


def _is_file(name: str) -> bool:
    with suppress(OSError):  # too long to be one
        return Path(name).is_file()
    return False


def _digest(name: str) -> str:
    with Path(name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_name(value: Any) -> bool:
    """Of a file or folder, or of several of which one will do."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _reason(log: Path) -> str:
    """The last error, with the indented lines that belong to it; else the last line."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        return "it said nothing"
    last = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=len(lines) - 1)
    more = takewhile(lambda line: line[0] == " ", lines[last + 1 :])
    return " ".join(line.strip() for line in (lines[last], *more)).removeprefix("error: ")
