"""Other tones for clean training photos, so that no photo can be known by heart.

Faint fog is little more than a lifted, paler photo. A model that has seen each of a few hundred photos many times may know
how bright and how colourful it is without fog, and tell the fog of a training photo from that alone, which is of no use for a
new one. A photo that comes in other tones at every look leaves only what tells fog in any photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_gamma, adjust_saturation_with_gray_subtraction
from torch import Tensor

from rnr.data.batches import seed_of
from rnr.degradation.severity import check_probability, check_range, log_uniform


@dataclass(frozen=True)
class Tone:
    """What is drawn for each photo, log-uniform within its bounds, in the order in which it is applied.

    share: of clean photos whose tones are changed; 0 for none. cast: factor of each channel for itself, a colour cast.
    gamma: exponent of the pixel values. contrast: factor about the photo's mean brightness. saturation: factor about each
    pixel's brightness. ``ValueError`` for a share outside [0, 1] and bounds outside [0.1, 10].
    """

    share: float = 0.0
    cast: tuple[float, float] = (0.92, 1.09)
    gamma: tuple[float, float] = (0.7, 1.43)
    contrast: tuple[float, float] = (0.75, 1.33)
    saturation: tuple[float, float] = (0.6, 1.4)

    def __post_init__(self) -> None:
        check_probability("tone.share", self.share)
        for name in ("cast", "gamma", "contrast", "saturation"):
            check_range(f"tone.{name}", getattr(self, name), 0.1, 10)

    def apply(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """images: (B, 3, H, W) in [0, 1], of whole 8-bit levels before and after. What is drawn for a photo depends on its
        seed alone."""
        if not self.share:
            return images
        generators = [torch.Generator().manual_seed(seed_of(seed, "tone")) for seed in seeds]
        drawn = torch.stack([torch.rand(7, generator=generator) for generator in generators])
        chosen = (drawn[:, 0] < self.share).nonzero().flatten()
        if not len(chosen):
            return images
        drawn, chosen = drawn[chosen], chosen.to(images.device)
        cast = log_uniform(drawn[:, 4:], self.cast).to(images)[..., None, None]
        gamma, contrast, saturation = (
            log_uniform(drawn[:, i], bounds).to(images)
            for i, bounds in enumerate((self.gamma, self.contrast, self.saturation), 1)
        )
        toned = adjust_gamma((images[chosen] * cast).clamp(0, 1), gamma)
        toned = adjust_saturation_with_gray_subtraction(
            adjust_contrast_with_mean_subtraction(toned, contrast), saturation
        )
        return images.index_copy(0, chosen, (toned * 255).round() / 255)
