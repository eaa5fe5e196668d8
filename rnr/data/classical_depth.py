"""A classical guess at relative depth, for photos that have none and where no depth model is at hand.

Four old cues, outdoors in mind. What is smooth, bright or blue and hangs together with the upper edge is sky, the
farthest. Below the horizon the ground comes nearer row by row, as 1 / (c + y). Bright and colourless is farther than
dark and colourful (Zhu, Mai and Shao, "A fast single image haze removal algorithm using color attenuation prior",
2015). And depth jumps where the photo does: a guided filter (He, Sun and Tang, 2010), solved on a small copy and
applied to a large one (He and Sun, "Fast guided filter", 2015), so that 50 megapixels cost little more than a resize.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

SMALL = 160  # longer side, in pixels, of the copy that the cues are found on
FINE = 1024  # and of the one whose edges depth follows

NEAREST, GROUND, COLOUR = 0.07, 0.45, 0.23  # weights of the cues; with them sky, at 1, is farther than all else
FLATNESS = 3e-3  # of the guided filter: a variance of brightness above it is an edge
LEAST_SKY = 0.03  # share of the photo; less of it says nothing about the horizon
HORIZON = 0.2  # of the way down where there is no sky: the camera looks down, or the place is closed


def estimate(pixels: Tensor) -> Tensor:
    """(1, H, W) float32 in [0, 1], 0 near, its largest value 1. pixels: (3, H, W) uint8 of any size, at least 1 x 1."""
    fine = _shrink(pixels[None], FINE)
    photo = _shrink(fine, SMALL).float() / 255
    sky = sky_of(photo)
    depth = NEAREST + GROUND * _ground(sky) + COLOUR * _attenuation(photo)
    depth = torch.lerp(depth, torch.ones_like(depth), sky)
    slope, offset = _guided(photo.mean(dim=1, keepdim=True), depth, _share(photo, 10))
    guide = fine.float().mean(dim=1, keepdim=True) / 255
    slope, offset = (F.interpolate(x, guide.shape[-2:], mode="bilinear") for x in (slope, offset))
    depth = (slope * guide + offset).clamp(1e-3, 1)
    if depth.shape[-2:] != pixels.shape[-2:]:
        depth = F.interpolate(depth, pixels.shape[-2:], mode="bilinear")
    return depth[0] / depth.max()


def sky_of(photo: Tensor) -> Tensor:
    """(1, 1, H, W) in [0, 1]: how surely a point is sky. photo: (1, 3, H, W) in [0, 1], small.

    Each criterion is soft; then only those regions count that reach the upper edge.
    """
    brightest = photo.amax(dim=1, keepdim=True)
    blueness = photo[:, 2:] - photo[:, :1]
    gaudy = (_saturation(photo) - 0.3).clamp(min=0) * (blueness < 0)  # red and yellow skies are there, but rare
    bright = brightest - 0.72 - 0.3 * gaudy
    blue = torch.minimum(blueness - 0.06, brightest - 0.35)
    colour = torch.sigmoid(torch.maximum(bright, blue) / 0.05)
    smooth = torch.sigmoid((0.12 - _texture(photo.mean(dim=1, keepdim=True))) / 0.02)
    rows = torch.linspace(0, 1, photo.shape[-2], dtype=photo.dtype).view(-1, 1)
    high = ((0.85 - rows) / 0.25).clamp(0, 1)
    score = colour * smooth * high
    regions, _ = ndimage.label((score[0, 0] > 0.4).numpy())
    at_top = np.unique(regions[: _share(photo, 20)])
    return score * torch.from_numpy(np.isin(regions, at_top[at_top > 0]))


def _ground(sky: Tensor) -> Tensor:
    """(1, 1, H, 1) in [0, 1]: 1 down to the horizon, then falling as flat ground comes nearer.

    The horizon is where most columns' sky ends; what stands before it, a tree or a tower, hides it in the others.
    """
    rows = torch.linspace(0, 1, sky.shape[-2], dtype=sky.dtype)
    horizon = HORIZON
    if (sky > 0.4).float().mean() > LEAST_SKY:
        ends = ((sky[0, 0] > 0.4) * rows.view(-1, 1)).amax(dim=0)
        horizon = ends[ends > 0].quantile(0.8).clamp(0.1, 0.7).item() if (ends > 0).any() else HORIZON
    below = ((rows - horizon) / (1 - horizon)).clamp(min=0)
    return (1.5 * 0.5 / (0.5 + below) - 0.5).view(1, 1, -1, 1)


def _attenuation(photo: Tensor) -> Tensor:
    """(1, 1, H, W) in [0, 1]: Zhu's linear model of depth, with his coefficients, without the texture of things."""
    linear = 0.1218 + 0.9597 * photo.amax(dim=1, keepdim=True) - 0.7802 * _saturation(photo)
    return _box(linear.clamp(0, 1), _share(photo, 24))


def _guided(guide: Tensor, x: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Slope and offset, each (1, 1, H, W), of the lines slope * guide + offset that fit ``x`` around each point."""
    mean_guide, mean_x = _box(guide, radius), _box(x, radius)
    covariance = _box(guide * x, radius) - mean_guide * mean_x
    variance = _box(guide * guide, radius) - mean_guide**2
    slope = covariance / (variance.clamp(min=0) + FLATNESS)
    return _box(slope, radius), _box(mean_x - slope * mean_guide, radius)


def _box(x: Tensor, radius: int) -> Tensor:
    """Mean over a square of ``2 * radius + 1`` pixels, or what of it lies inside. x: (1, 1, H, W)."""
    size = 2 * radius + 1
    columns = F.avg_pool2d(x, (size, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(columns, (1, size), 1, (0, radius), count_include_pad=False)


def _texture(grey: Tensor) -> Tensor:
    """(1, 1, H, W): lightest minus darkest of the 3 x 3 points around each."""
    return F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)


def _saturation(photo: Tensor) -> Tensor:
    high, low = photo.amax(dim=1, keepdim=True), photo.amin(dim=1, keepdim=True)
    return (high - low) / high.clamp(min=1e-3)


def _share(photo: Tensor, parts: int) -> int:
    """A ``parts``-th of the shorter side, in whole pixels, at least 1."""
    return max(1, min(photo.shape[-2:]) // parts)


def _shrink(photo: Tensor, side: int) -> Tensor:
    """``photo`` (1, 3, H, W) uint8 with its longer side at most ``side``."""
    scale = min(1.0, side / max(photo.shape[-2:]))
    if scale == 1:
        return photo
    size = [max(1, round(length * scale)) for length in photo.shape[-2:]]
    return F.interpolate(photo, size, mode="bilinear", antialias=True)
