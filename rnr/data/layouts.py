"""Sources of photos as a user names them: a folder of one's own, or a published set as it unpacks.

    /photos/mine          every image below the folder, in any layout
    reside:/data/RESIDE   ITS (training: 1,399) and SOTS-indoor (test: 50)
    ots:/data/OTS         the outdoor training set of RESIDE-beta (1,861 for training, 200 for test)
    scenes:/data/street   a folder a scene, real photos without a clean original

The two splits of a published set are the paper's (section 4.1); their names are in ``manifests/``.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnr.data import manifest
from rnr.data.photos import Photo, PhotoError, find_photos, photo_at


@dataclass(frozen=True)
class Layout:
    """A published set. folders: for each split, where its clean photos may lie below the root, likeliest first."""

    name: str
    folders: dict[str, tuple[str, ...]]

    def photos(self, root: Path, split: str) -> list[Photo]:
        """The photos of ``split`` in its manifest's order, each with the depth that the set brings along.

        :class:`PhotoError` says what was expected and what is there, for a wrong root or a set that is not complete.
        """
        if split not in self.folders:
            raise PhotoError(f"{self.name}:{root}: the set has no split {split!r}; it has {', '.join(self.folders)}")
        if not root.is_dir():
            raise PhotoError(f"{root}: no such folder of {self.name}")
        folder = self._folder(root, split)
        there = {photo.name: photo for photo in find_photos(folder)}
        try:
            names = manifest.load(f"{self.name}_{split}").pick(list(there))
        except ValueError as error:
            raise PhotoError(f"{folder}: not {self.name} ({split}) as published: {error}; {found(folder)}") from None
        return [_with_depth(there[name]) for name in names]

    def _folder(self, root: Path, split: str) -> Path:
        for pattern in self.folders[split]:
            for folder in sorted(root.glob(pattern)):
                if folder.is_dir():
                    return folder
        expected = " or ".join(f"{pattern}/" for pattern in self.folders[split])
        raise PhotoError(f"{root}: not {self.name} ({split}) as published: expected {expected} in it; {found(root)}")


RESIDE = Layout(
    "reside",
    {
        "train": ("ITS*/clear", "*/ITS*/clear", "clear", "ITS*/train/clear", "ITS*/train/ITS_clear", "train/ITS_clear"),
        "test": (
            "SOTS/indoor/gt", "SOTS/indoor/clear", "SOTS/indoor/nyuhaze500/gt", "SOTS/nyuhaze500/gt",
            "*/SOTS/indoor/gt", "*/SOTS/indoor/clear", "indoor/gt", "indoor/clear", "nyuhaze500/gt", "gt",
        ),
    },
)  # fmt: skip
"""ITS holds ``clear/N.png``, ``hazy/N_*.png`` and ``trans/N_*.png``; SOTS ``indoor/`` and ``outdoor/`` with ``gt/`` (or
``clear/``) and ``hazy/``."""

_OTS_CLEAR = ("OTS*/clear", "*/OTS*/clear", "clear", "clear_images")
OTS = Layout("ots", {"train": _OTS_CLEAR, "test": _OTS_CLEAR})
"""``clear/NNNN.jpg`` and ``depth/NNNN.mat``; the hazy images are not used."""


def scenes(root: Path, but: Path | None = None) -> list[Photo]:
    """Photos in a folder a scene; a photo's name begins with its scene's. but: a folder in which none is looked for.
    :class:`PhotoError` for a photo in no scene, or none at all."""
    photos = find_photos(root)
    if but is not None:
        photos = [photo for photo in photos if not photo.path.resolve().is_relative_to(but.resolve())]
        if not photos:
            raise PhotoError(f"{root}: no photos found but those in {but}")
    if loose := [photo.name for photo in photos if "/" not in photo.name]:
        raise PhotoError(f"{root}: expected a folder a scene, found photos outside of one: {', '.join(loose[:3])}")
    return photos


def photos_of(source: str, split: str) -> list[Photo]:
    """The photos of one ``source`` (see the top of this file) for ``split``: 'train', 'test', 'val' or 'predict'."""
    kind, colon, rest = source.partition(":")
    for layout in (RESIDE, OTS):
        if colon and kind == layout.name:
            return layout.photos(Path(rest), split)
    if colon and kind == "scenes":
        return scenes(Path(rest))
    path = Path(source)
    if path.is_file():
        return [photo_at(path)]
    if (path / "dataset.json").is_file():
        raise PhotoError(f"{path}: a built set, where clean photos or photos as they are were expected")
    _refuse_hazy(path)
    return find_photos(path)


def photos_in(sources: Sequence[str], split: str) -> list[list[Photo]]:
    """Those of each source. Names stay apart: with several sources each begins with its source's place in the list."""
    found = [photos_of(source, split) for source in sources]
    if len(found) == 1:
        return found
    return [[dataclasses.replace(p, name=f"{i}/{p.name}") for p in photos] for i, photos in enumerate(found)]


def found(folder: Path, most: int = 6) -> str:
    """What is in ``folder``, for an error message: a few names and how many more there are."""
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    if not names:
        return "found an empty folder"
    return f"found {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")


def _refuse_hazy(root: Path) -> None:
    """A published dehazing set named as if it were a plain folder: its hazy half would pass for clean photos."""
    for folder in (root, *sorted(root.glob("*/"))):
        below = {entry.name.lower(): entry for entry in folder.glob("*/")}
        if below.keys() & {"hazy", "haze"} and (clean := below.keys() & {"clear", "gt"}):
            raise PhotoError(
                f"{root}: {folder.name}/ holds hazy photos beside clean ones; name reside:{root} or ots:{root}, "
                f"or the folder of the clean ones itself, {below[min(clean)]}"
            )


def _with_depth(photo: Photo) -> Photo:
    """A depth map of one's own comes first, then OTS's ``depth/<stem>.mat``, then one of ITS's ``trans/<stem>_*.png``."""
    if photo.depth is not None:
        return photo
    beside, stem = photo.path.parent.parent, photo.path.stem
    candidates = [beside / "depth" / f"{stem}.mat", *sorted((beside / "trans").glob(f"{stem}_*.png"))]
    return dataclasses.replace(photo, depth=next((path for path in candidates if path.is_file()), None))
