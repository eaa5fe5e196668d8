"""JPEG: what most photos have been through before anyone looks at them. Part of no diagnosis, and not undone.

A model trained on pixels that no file has touched takes the compression's blocks and lost grain for something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.enhance import jpeg_codec_differentiable
from torch import Tensor

from rnr.data.batches import seed_of
from rnr.degradation.severity import check_probability, check_range, uniform

BLOCK = 16  # pixels of the side of what is coded together, with the colors at half the resolution


@dataclass(frozen=True)
class Jpeg:
    """share: of photos that are saved as JPEG. quality: libjpeg's, uniform within its bounds."""

    share: float = 0.0
    quality: tuple[float, float] = (50.0, 95.0)

    def __post_init__(self) -> None:
        check_probability("jpeg.share", self.share)
        check_range("jpeg.quality", self.quality, 1, 100)

    def apply(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """images: (B, 3, H, W) in [0, 1], of whole 8-bit levels before and after. What is drawn for a photo depends on its
        seed alone."""
        if not self.share:
            return images
        drawn = torch.stack(
            [torch.rand(2, generator=torch.Generator().manual_seed(seed_of(seed, "jpeg"))) for seed in seeds]
        )
        chosen = (drawn[:, 0] < self.share).nonzero().flatten().to(images.device)
        if not len(chosen):
            return images
        quality = uniform(drawn[:, 1], self.quality).to(images)[chosen]
        return images.index_copy(0, chosen, compressed(images[chosen], quality))


def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """images: (B, 3, H, W) in [0, 1], after a round through the codec at ``quality`` (B,), rounded to 8 bit."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    decoded = jpeg_codec_differentiable(padded, quality)[..., :height, :width]
    return (decoded.clamp(0, 1) * 255).round() / 255
