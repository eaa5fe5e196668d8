import json

import numpy as np
import pytest
from PIL import Image

from rnr.data.build import build
from rnr.data.photos import find_photos
from rnr.data.sample import Recipe
from rnr.degradation import Degrader


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory):
    """A folder of six small photos, of two sizes; one of them has depth and scene."""
    folder = tmp_path_factory.mktemp("photos")
    rows, columns = np.mgrid[:40, :56]
    for i in range(6):
        wave = 120 + 60 * np.sin(rows / (3 + i)) + 60 * np.cos(columns / 4)
        pixels = np.stack([wave, wave[::-1], 255 - wave], axis=-1)[: 40 - i % 2]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "depth").mkdir()
    Image.fromarray((rows[::-1] * 6).astype(np.uint8)).save(folder / "depth/0.png")
    (folder / "scenes.jsonl").write_text(json.dumps({"photo": "0.png", "scene": "Waves."}) + "\n")
    return folder


@pytest.fixture(scope="session")
def two_looks():
    """How :func:`built_forms` was made."""
    return Recipe("paper", Degrader(), seed=3, looks=2)


@pytest.fixture(scope="session")
def make_set(small_photos):
    """Builds a set and returns the errors that were reported."""

    def make(root, recipe, shard_mb=0.0, workers=0, photos=small_photos):
        errors = []
        build(find_photos(photos), recipe, root, shard_mb, workers, errors.append)
        return [error for error in errors if error]

    return make


@pytest.fixture(scope="session")
def built_forms(make_set, two_looks, tmp_path_factory):
    """The same set, two looks at each photo, as folders and as shards. Not to be changed."""
    root = tmp_path_factory.mktemp("sets")
    for name, shard_mb in (("folders", 0), ("shards", 0.04)):
        assert make_set(root / name, two_looks, shard_mb) == []
    return root / "folders", root / "shards"
