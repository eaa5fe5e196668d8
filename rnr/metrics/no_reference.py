"""What a photo by itself says of its quality, by scikit-image, for photos that no clean one belongs to.

    blur    how little is lost by blurring it again (Crete-Roffet et al., 2007): 0 sharp, 1 blurred beyond that
    noise   the median of the finest wavelet coefficients over 0.6745 (Donoho and Johnstone, 1994), of full scale

Neither is a verdict: a restorer that wipes out texture lowers the noise and raises the blur.
"""

from dataclasses import dataclass
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from skimage.measure import blur_effect
from skimage.restoration import estimate_sigma
from torch import Tensor

from rnr.metrics.restoration import as_saved


@dataclass(frozen=True)
class NoReference:
    """blur, noise: (B,), in [0, 1]; less is better."""

    blur: Tensor
    noise: Tensor


def no_reference(images: Tensor) -> NoReference:
    """images: (B, 3, H, W) in [0, 1], at least 16 x 16 pixels; looked at as saved in 8 bit."""
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < 16:
        raise ValueError(f"images must be (B, 3, H, W) of at least 16 x 16 pixels, got {tuple(images.shape)}")
    pixels = as_saved(images).permute(0, 2, 3, 1).cpu().numpy()
    return NoReference(
        blur=torch.tensor([float(blur_effect(each, channel_axis=2)) for each in pixels]),
        noise=torch.tensor([_noise(each) for each in pixels]),
    )


def _noise(pixels: np.ndarray) -> float:
    """Of (H, W, 3); of a channel without any detail, for which scikit-image has no figure, 0."""
    with catch_warnings():
        simplefilter("ignore", RuntimeWarning)
        return float(np.nan_to_num(estimate_sigma(pixels, channel_axis=2)).mean())
