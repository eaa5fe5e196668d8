"""JPEG: what most photos have been through before anyone looks at them. Part of no diagnosis, and not undone.

A model trained on pixels that no file has touched takes the compression's blocks and lost grain for something else. It is
libjpeg's own, by way of Pillow: codecs that are differentiable round neither colors nor coefficients to whole levels, and
what that leaves of the finest frequencies is of no file.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rnr.data.batches import seed_of
from rnr.degradation.severity import check_probability, check_range, uniform

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(frozen=True)
class Jpeg:
    """share: of photos that are saved as JPEG. quality: libjpeg's, uniform within its bounds. subsampling: of the colors, one
    of these each."""

    share: float = 0.0
    quality: tuple[float, float] = (50.0, 95.0)
    subsampling: tuple[str, ...] = ("4:2:0", "4:2:0", "4:2:2", "4:4:4")

    def __post_init__(self) -> None:
        check_probability("jpeg.share", self.share)
        check_range("jpeg.quality", self.quality, 1, 100)
        if not self.subsampling or set(self.subsampling) - set(SUBSAMPLINGS):
            raise ValueError(f"jpeg.subsampling must be some of {', '.join(SUBSAMPLINGS)}, got {list(self.subsampling)}")

    def apply(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """images: (B, 3, H, W) in [0, 1], of whole 8-bit levels before and after. What is drawn for a photo depends on its
        seed alone."""
        if not self.share:
            return images
        saved = images.clone()
        for image, seed in zip(saved, seeds, strict=True):
            chance, place, colors = torch.rand(3, generator=torch.Generator().manual_seed(seed_of(seed, "jpeg")))
            if chance < self.share:
                subsampling = self.subsampling[int(colors * len(self.subsampling))]
                image.copy_(compressed(image, round(uniform(place, self.quality).item()), subsampling))
        return saved


def compressed(image: Tensor, quality: int, subsampling: str = "4:2:0") -> Tensor:
    """image: (3, H, W) in [0, 1], as it comes back from a file of that quality, on its own device."""
    pixels = (image * 255).round().to("cpu", torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).to(image) / 255
