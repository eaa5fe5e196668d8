"""What a command printed, for machines: a JSON file beside its tables that says what made them.

command   as it was typed          seed      of the degradations drawn
weights   SHA-256 by name          date      UTC
versions  of Python and libraries  tables    rows by title, cells as printed
"""

import csv
import hashlib
import io
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from rnr.atomic import whole
from rnr.models.weights import locate

LIBRARIES = (
    "rnr",
    "torch",
    "torchmetrics",
    "transformers",
    "diffusers",
    "kornia",
    "lightning",
    "numpy",
    "scikit-image",
)
INDICES = ("model_index.json", "config.json")


@dataclass(frozen=True)
class Record:
    """command: words, ``rnr`` the first. seed: None where nothing is drawn. weights: see :func:`digest`."""

    command: list[str]
    tables: dict[str, list[dict[str, Any]]]
    seed: int | None
    weights: dict[str, str]
    date: str
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        write_whole(json.dumps(asdict(self), indent=2) + "\n", path)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """``ValueError`` names a file that is no record."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: is no record of a command: {error}") from error


def record(
    command: Sequence[str], tables: Mapping[str, list[dict[str, Any]]], seed: int | None, weights: Sequence[str]
) -> Record:
    """Of a command that runs now. command: without ``rnr``. weights: names that :func:`rnr.models.weights.locate` takes."""
    return Record(
        command=["rnr", *command],
        tables=dict(tables),
        seed=seed,
        weights={name: digest(name) for name in sorted(set(weights))},
        date=datetime.now(UTC).date().isoformat(),
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    )


def digest(name: str) -> str:
    """What tells weights apart: the SHA-256 of a folder's files and their names, of a hub name the revision in the cache.
    Empty where they are not there."""
    try:
        place = locate(name)
    except FileNotFoundError:
        return ""
    if not Path(place).is_dir():
        files = [try_to_load_from_cache(place, file) for file in INDICES]
        return next((Path(file).parent.name for file in files if isinstance(file, str)), "")
    total = hashlib.sha256()
    for path in sorted(path for path in Path(place).rglob("*") if path.is_file()):
        with path.open("rb") as file:
            total.update(
                f"{path.relative_to(place).as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return total.hexdigest()


def named_weights(config: Any) -> list[str]:
    """The weights that a configuration names under ``checkpoint``; of several names, the one that is there."""
    found = []
    for value in values(config, "checkpoint"):
        names = [value] if isinstance(value, str) else value
        found += [name for name in names if digest(name)][:1] or names[-1:]
    return found


def values(node: Any, key: str) -> Iterator[Any]:
    """What stands under ``key`` anywhere in a configuration, but for null."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key and value is not None:
                yield value
            else:
                yield from values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from values(value, key)


def write_whole(text: str, path: Path) -> None:
    """``text`` as the file ``path``, which is whole or not there; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as place:
        place.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be anything


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """``rows``, at least one and all with the keys of the first, as a CSV file that is whole or not there."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(text.getvalue(), path)
