"""Restoration without learning: one well-known filter for each degradation, from scikit-image, scipy and kornia.

None of them is told a parameter; each estimates what it needs from the photo alone. As steps of a
:class:`~rnr.models.baselines.chain.Chain` they are the classic row beside the paper's 3D.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from kornia.filters import guided_blur
from scipy import ndimage
from skimage import restoration
from skimage.draw import line
from skimage.morphology import opening, white_tophat
from torch import Tensor

from rnr.diagnosis import Diagnosis
from rnr.models.interfaces import Restorer

LAPLACIANS = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
"""The difference of two Laplacians: 0 on slopes and straight edges."""

PATCH = 5


class Filter(Restorer):
    """A filter of single photos; it draws nothing, and what a diagnosis says does not matter to it."""

    @abstractmethod
    def filter(self, photo: np.ndarray) -> np.ndarray:
        """photo: (H, W, 3) float32 in [0, 1]. The result may leave that range; it is clamped."""

    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        photos = images.detach().float().cpu().permute(0, 2, 3, 1).numpy()
        done = np.stack([self.filter(photo) for photo in photos]).astype(np.float32)
        return torch.from_numpy(done).permute(0, 3, 1, 2).clamp(0, 1).to(images)


class Denoise(Filter):
    """Non-local means (Buades et al. 2005), its strength from a mask that sees noise and little else (Immerkaer 1996)."""

    def filter(self, photo: np.ndarray) -> np.ndarray:
        if min(photo.shape[:2]) < PATCH:
            return photo
        response = ndimage.convolve(photo, LAPLACIANS[..., None])
        sigma = np.median(np.abs(response)) / (0.6745 * np.linalg.norm(LAPLACIANS))  # the median forgives edges
        return restoration.denoise_nl_means(
            photo, patch_size=PATCH, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True, channel_axis=2
        )


class Derain(Filter):
    """Takes off what is bright, grey, narrow across the fall of the rain and long along it: a white top-hat, as much of
    it as all channels share, opened along the slant that leaves most. ``width``, ``length``: of the narrowest thing
    that is no streak and of the shortest streak, in pixels. ``slants``: degrees from the vertical."""

    def __init__(self, width: int = 5, length: int = 11, slants: Sequence[int] = range(-30, 31, 10)) -> None:
        super().__init__()
        self.across = np.ones((1, width))
        self.along = [_line(slant, length // 2) for slant in slants]

    def filter(self, photo: np.ndarray) -> np.ndarray:
        narrow = np.min([white_tophat(channel, self.across) for channel in np.moveaxis(photo, 2, 0)], axis=0)
        streaks = np.max([opening(narrow, streak) for streak in self.along], axis=0)
        return photo - streaks[..., None]


class Deblur(Filter):
    """The Wiener filter of a round Gaussian: which way the camera shook is not known. ``sigma``: of that Gaussian, in
    pixels. ``balance``: how much smoothness counts against sharpness."""

    def __init__(self, sigma: float = 1.5, balance: float = 0.1) -> None:
        super().__init__()
        self.balance = balance
        self.margin = int(4 * sigma + 0.5)
        spike = np.zeros((2 * self.margin + 1,) * 2)
        spike[self.margin, self.margin] = 1
        self.kernel = ndimage.gaussian_filter(spike, sigma)

    def filter(self, photo: np.ndarray) -> np.ndarray:
        m = self.margin  # scikit-image's filter wraps around; mirrored borders keep one side out of the other
        wide = np.pad(photo, ((m, m), (m, m), (0, 0)), mode="symmetric")
        channels = [
            restoration.wiener(channel, self.kernel, self.balance, clip=False) for channel in np.moveaxis(wide, 2, 0)
        ]
        return np.stack(channels, axis=2)[m:-m, m:-m]


class Dehaze(Filter):
    """The dark channel prior (He et al. 2009), t(x) = 1 - omega min_y min_c I_c(y) / A_c, refined by a guided filter.

    A: the mean colour of the 0.1 % of pixels with the brightest dark channel. ``window``: side of the neighbourhood of
    y, in pixels. ``floor``: fog is never divided out by less than this transmission.
    """

    def __init__(self, omega: float = 0.95, window: int = 15, floor: float = 0.1) -> None:
        super().__init__()
        self.omega, self.window, self.floor = omega, window, floor

    def filter(self, photo: np.ndarray) -> np.ndarray:
        dark = ndimage.minimum_filter(photo.min(axis=2), self.window)
        count = max(1, dark.size // 1000)
        brightest = np.argpartition(dark, -count, axis=None)[-count:]
        light = photo.reshape(-1, 3)[brightest].mean(axis=0).clip(0.05, 1)
        clear = 1 - self.omega * ndimage.minimum_filter((photo / light).min(axis=2), self.window)
        grey, clear = (torch.from_numpy(np.ascontiguousarray(a, np.float32))[None, None] for a in (photo.mean(2), clear))
        side = 4 * self.window + 1
        if min(photo.shape[:2]) > side:
            clear = guided_blur(grey, clear, side, eps=1e-3, border_type="replicate")
        t = clear[0, 0].numpy().clip(self.floor, 1)[..., None]
        return (photo - light * (1 - t)) / t


def _line(slant: float, radius: int) -> np.ndarray:
    """A line through the middle of a square of 2 ``radius`` + 1 pixels, ``slant`` degrees from the vertical."""
    square = np.zeros((2 * radius + 1,) * 2, dtype=bool)
    shift = round(radius * np.tan(np.radians(slant)))
    square[line(0, radius + shift, 2 * radius, radius - shift)] = True
    return square
