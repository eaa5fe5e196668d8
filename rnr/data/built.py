"""A built set: samples (:mod:`rnr.data.sample`) on disk, as folders or as WebDataset shards.

    DIR/dataset.json             what the set was made with, and once it is whole, how many samples it has
    DIR/000012-000/clean.png     as folders: one a sample, named by the photo's place in the list and the look
    DIR/shard-000003.tar         as shards: 000012-000.clean.png, ... in the same order

``dataset.json`` is the :class:`Header`.
"""

import dataclasses
import hashlib
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rnr.data.photos import Photo, PhotoError
from rnr.data.sample import Recipe

FORMAT = 1
"""Changes whenever samples are stored differently."""


@dataclass(frozen=True)
class Header:
    """recipe: how the samples were made, by which ``version`` of rnr. photos: names of the clean ones, in order.
    shard_mb: megabytes from which a shard is closed, 0 for folders. samples: how many there are; None while a set is
    being built. That is fewer than photos times looks where photos could not be read. digest: tells these photos from others
    of their names, by the size of their files and of their depth's, and by their scenes; empty in sets from before it was."""

    recipe: dict[str, Any]
    photos: tuple[str, ...]
    version: str
    shard_mb: float = 0
    samples: int | None = None
    digest: str = ""

    @classmethod
    def of(cls, recipe: Recipe, photos: Sequence[Photo], shard_mb: float) -> "Header":
        # By way of JSON, so that it equals what is read back.
        settings = json.loads(json.dumps(dataclasses.asdict(recipe)))
        names = tuple(photo.name for photo in photos)
        return cls(settings, names, version("rnr"), float(shard_mb), digest=_digest(photos))

    def expected(self) -> list[str]:
        """Of all samples that the set should have, in order."""
        return [key_of(i, look) for i in range(len(self.photos)) for look in range(self.recipe["looks"])]

    def differences(self, other: "Header") -> list[str]:
        """What keeps two builds from going into one folder, in words; nothing if the one can go on with the other."""
        mine, theirs = self._settings(), other._settings()
        lines = [f"{key} {theirs.get(key)} there, {mine.get(key)} here" for key in mine if mine[key] != theirs.get(key)]
        if self.photos != other.photos:
            lines.append(f"{len(other.photos)} photos there, {len(self.photos)} here, or other names")
        elif self.digest != other.digest and other.digest:
            lines.append("photos of these names, but other files, depth or scenes, there")
        return lines

    def _settings(self) -> dict[str, Any]:
        flat = {"version": self.version, "shards": self.shard_mb}
        for key, value in self.recipe.items():
            flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        return flat

    def save(self, root: Path) -> None:
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        partial = root / "dataset.json.part"  # whole or not there, even if the process is killed meanwhile
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(root / "dataset.json")

    @classmethod
    def load(cls, root: Path) -> "Header":
        """Raises :class:`PhotoError` if ``root`` is no built set or one of another format."""
        path = root / "dataset.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}, which this version of rnr reads")
            return cls(**{**content, "photos": tuple(content["photos"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PhotoError(f"{path}: not the description of a built set ({error})") from error


def _digest(photos: Sequence[Photo]) -> str:
    told = [(photo.name, _bytes(photo.path), _bytes(photo.depth), photo.scene) for photo in photos]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()


def _bytes(file: Path | None) -> int:
    return file.stat().st_size if file and file.exists() else 0


@dataclass(frozen=True)
class BuiltSet:
    """A whole set, open for reading. keys: of its samples, in order. Nothing but names and places is in memory."""

    root: Path
    header: Header
    keys: tuple[str, ...]
    places: dict[str, dict[str, tuple[str, int, int]]]
    """Of shards, where each file of a sample lies: shard, offset and size in bytes. Empty for folders."""

    def read(self, key: str, names: Sequence[str]) -> dict[str, bytes]:
        """The contents of the files ``names`` of a sample. Raises :class:`PhotoError` for one that cannot be read."""
        try:
            if not self.header.shard_mb:
                return {name: (self.root / key / name).read_bytes() for name in names}
            return {name: self._cut(*self.places[key][name]) for name in names}
        except (OSError, KeyError) as error:
            raise PhotoError(f"{self.root}: sample {key} is broken ({error})") from error

    def _cut(self, shard: str, offset: int, size: int) -> bytes:
        with open(self.root / shard, "rb") as file:
            file.seek(offset)
            return file.read(size)

    @property
    def shards(self) -> list[Path]:
        return shards_in(self.root)


def is_built(source: str | Path) -> bool:
    return (Path(source) / "dataset.json").is_file()


def open_set(root: str | Path) -> BuiltSet:
    """Raises :class:`PhotoError` for what is no built set, or not yet a whole one."""
    root = Path(root)
    header = Header.load(root)
    places: dict[str, dict[str, tuple[str, int, int]]] = {}
    if header.shard_mb:
        for shard in shards_in(root):
            places |= index_of(shard)
    present = places if header.shard_mb else {path.name for path in root.iterdir() if path.is_dir()}
    keys = tuple(key for key in header.expected() if key in present)
    if header.samples is None:
        raise PhotoError(
            f"{root}: not whole yet ({len(keys)} samples); run the same `rnr dataset build` again to go on"
        )
    if len(keys) != header.samples:
        raise PhotoError(f"{root}: {len(keys)} samples are there, dataset.json tells of {header.samples}")
    return BuiltSet(root, header, keys, places)


def key_of(photo: int, look: int) -> str:
    return f"{photo:06d}-{look:03d}"


def photo_of(key: str) -> int:
    """The place in the list of the photo that a sample was made of."""
    return int(key.split("-")[0])


def shards_in(root: Path) -> list[Path]:
    """Not copies that lie beside them."""
    return sorted(root.glob(f"shard-{6 * '[0-9]'}.tar"))


def index_of(shard: Path) -> dict[str, dict[str, tuple[str, int, int]]]:
    """Where each file of each sample lies in a shard. Raises :class:`PhotoError` for a file that is no archive."""
    places: dict[str, dict[str, tuple[str, int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key, _, name = member.name.partition(".")
                places.setdefault(key, {})[name] = (shard.name, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise PhotoError(f"{shard}: cannot be read as a shard ({error})") from error
    return places
