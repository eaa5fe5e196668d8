"""What commands are tested on in the place of models: a reasoner that can be seen through, and photos for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rnr.diagnosis import Diagnosis, Fog
from rnr.models.interfaces import Reasoner


class Untrained(Reasoner):
    """A reasoner that nothing is trained or saved of."""

    def examine(self, images, fields=(), lean=None):
        raise NotImplementedError

    def severities(self, images):
        raise NotImplementedError

    def loss(self, images, diagnoses):
        raise NotImplementedError

    def save(self, directory):
        raise NotImplementedError


class Watcher(Untrained):
    """Sees fog as dense as the photo is bright, which tells one photo from another."""

    def severities(self, images):
        return torch.stack([torch.tensor([100 * image.mean(), 0, 0, 0]) for image in images])

    def diagnose(self, images, fields=()):
        return [Diagnosis(fog=Fog(1 + 99 * image.mean().item(), None, None)) for image in images]


def brighter_and_brighter(folder: Path) -> Path:
    """``folder``, with three photos, each brighter than the one before."""
    folder.mkdir()
    for i in range(3):
        levels = np.random.default_rng(i).integers(40 * i, 40 * i + 120, (40, 48, 3))
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder
