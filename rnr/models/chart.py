"""A photo's statistics as a picture: what shake, rain and noise leave behind, gathered over the whole photo.

A crop of untouched pixels shows them too, but each crop only its own share, and buried under what the photo shows. The
chart is made of four panels of 64 x 64 pixels:

    power spectrum of the brightness      its cepstrum (the inverse transform of the logarithm of the power)
    power spectrum of a colour difference noise curve: how much neighbours differ (upwards) at which brightness (to the
                                          right), a histogram for each of R, G, B

All of it is taken over windows of 64 x 64 pixels. Spectra show log power, zero frequency in the middle; their three
channels are the mean of the calmest quarter of the windows (close to the noise floor), of all, and of the liveliest.
Shake darkens a spectrum across its direction, rain draws a band through it at a right angle to the streaks, noise lifts
all of it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64  # of a panel, and of the windows, in pixels
SIZE = 2 * SIDE
WINDOWS = 7  # at most so many along each axis, evenly spread
BLOCK = 4  # of the noise curve, in pixels


def chart(images: Tensor) -> Tensor:
    """(B, 3, 128, 128) in [0, 1]. images: (B, 3, H, W) in [0, 1], of any size."""
    # A CPU is four times faster photo by photo, since one photo's windows stay in its cache.
    parts = images.split(1) if images.device.type == "cpu" else (images,)
    return torch.cat([_chart(part.float()) for part in parts])


def _chart(images: Tensor) -> Tensor:
    cut = windows(images)
    red, green, blue = cut.unbind(dim=1)
    log = log_spectra(torch.stack([(red + green + blue) / 3, (red - blue) / 2], dim=1))
    cepstrum = torch.fft.irfft2(log[:, 0].mean(dim=1), s=(SIDE, SIDE)).abs().clamp(min=1e-5).log10()
    cepstrum = torch.fft.fftshift(cepstrum, dim=(-2, -1))[:, None].expand(-1, 3, -1, -1)
    bright, colour = ((whole_plane(levels(log)) + 7) / 9).clamp(0, 1).unbind(dim=1)
    above = torch.cat([bright, ((cepstrum + 4.5) / 4.5).clamp(0, 1)], dim=3)
    return torch.cat([above, torch.cat([colour, noise_curve(cut)], dim=3)], dim=2)


def windows(images: Tensor) -> Tensor:
    """(B, 3, N, 64, 64): at most 49 windows of images (B, 3, H, W), evenly spread; small photos are continued by their
    mirror image."""
    for axis in (-2, -1):
        while images.shape[axis] < SIDE:
            images = torch.cat([images, images.flip(axis)], dim=axis)
    tops, lefts = (_starts(length) for length in images.shape[-2:])
    return torch.stack([images[..., top : top + SIDE, left : left + SIDE] for top in tops for left in lefts], dim=2)


def log_spectra(cut: Tensor) -> Tensor:
    """(B, C, N, 64, 33): log10 of the power spectra of windows (B, C, N, 64, 64), the non-negative half of the
    horizontal frequencies. White noise of variance v has the power v at every frequency."""
    hann = torch.hann_window(SIDE, periodic=True, dtype=cut.dtype, device=cut.device)
    taper = hann[:, None] * hann
    taper = taper / taper.square().sum().sqrt()
    transformed = torch.fft.rfft2((cut - cut.mean(dim=(-2, -1), keepdim=True)) * taper)
    return (transformed.real.square() + transformed.imag.square()).clamp_(min=1e-7).log10_()


def levels(log: Tensor) -> Tensor:
    """(B, C, 3, 64, 33): means of ``log`` (B, C, N, 64, 33) over the calmest quarter of the windows, over all, and over
    the liveliest quarter."""
    count = log.shape[2]
    order = log.mean(dim=(-2, -1)).argsort(dim=2)
    rank = order.argsort(dim=2).to(log)
    quarter = max(1, count // 4)
    weights = torch.stack([rank < quarter, rank >= 0, rank >= count - quarter], dim=2).to(log)  # (B, C, 3, N)
    weights = weights / weights.sum(dim=3, keepdim=True)
    return (weights @ log.flatten(3)).unflatten(3, log.shape[3:])


def whole_plane(half: Tensor) -> Tensor:
    """(..., 64, 64) with zero frequency in the middle, from the half (..., 64, 33) of a real photo's spectrum."""
    mirrored = half[..., 1:-1].flip(-2, -1).roll(1, dims=-2)
    return torch.fft.fftshift(torch.cat([half, mirrored], dim=-1), dim=(-2, -1))


def noise_curve(cut: Tensor) -> Tensor:
    """(B, 3, 64, 64) in [0, 1]: of all blocks of 4 x 4 pixels of windows (B, 3, N, 64, 64), how many have this
    brightness (64 columns over [0, 1]) and this noise (64 rows, upwards, logarithmic from 0.0005 to 0.5)."""
    # The second difference along both axes: 0 of planes, and of white noise 6 times its deviation.
    rough = F.avg_pool2d(cut.diff(n=2, dim=-1).diff(n=2, dim=-2).flatten(2, 3).square(), BLOCK).sqrt() / 6
    bright = F.avg_pool2d(cut[..., 1:-1, 1:-1].flatten(2, 3), BLOCK)
    row = (63.999 * (1 - (rough.clamp(5e-4, 0.5) / 5e-4).log10() / 3)).long()
    column = (63.999 * bright.clamp(0, 1)).long()
    place = (row * SIDE + column).flatten(2)
    counts = torch.zeros(*place.shape[:2], SIDE * SIDE, dtype=cut.dtype, device=cut.device)
    counts.scatter_add_(2, place, torch.ones_like(place, dtype=counts.dtype))
    share = counts.unflatten(2, (SIDE, SIDE)) * (SIDE * SIDE / place.shape[-1])
    return (share.log1p() / math.log(1 + SIDE)).clamp(max=1)


def _starts(length: int) -> list[int]:
    count = min(WINDOWS, max(1, 2 * length // SIDE - 1))
    return [round(i * (length - SIDE) / max(count - 1, 1)) for i in range(count)]
