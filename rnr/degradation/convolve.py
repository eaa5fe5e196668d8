"""Convolution of each photo of a batch with a kernel of its own: directly for small kernels, by FFT for large ones.

How a photo is convolved depends on nothing but the photo's size and the kernel's, so on a CPU what else is in the batch
does not change a bit of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DIRECT = 13  # taps up to which the direct way is the faster one, measured on a CPU core


def convolve(image: Tensor, kernel: Tensor, border: str) -> Tensor:
    """(B, C, H, W): true convolution. kernel: (B, K, K), K odd. border: 'constant' (zeros), 'reflect' or 'replicate'."""
    batch, channels, height, width = image.shape
    taps = kernel.shape[-1]
    radius = taps // 2
    padded = F.pad(image, (radius,) * 4, mode=border) if radius else image
    if taps <= DIRECT:
        weight = kernel.flip(-2, -1).repeat_interleave(channels, dim=0)[:, None]  # conv2d is a correlation
        out = F.conv2d(padded.reshape(1, batch * channels, *padded.shape[-2:]), weight, groups=batch * channels)
        return out.view(batch, channels, height, width)
    # A library transforms several photos at once in another order than one alone, and rounds otherwise.
    parts = batch if image.device.type == "cpu" else 1
    pairs = zip(padded.chunk(parts), kernel.chunk(parts), strict=True)
    return torch.cat([_by_fft(*pair)[..., :height, :width] for pair in pairs])


def _by_fft(padded: Tensor, kernel: Tensor) -> Tensor:
    """padded: (B, C, H + K - 1, W + K - 1), kernel: (B, K, K); the result begins with the (H, W) that are asked for."""
    # Wrapping around spoils just the first K - 1 rows and columns, which are not looked at.
    size = [fast_length(side) for side in padded.shape[-2:]]
    product = torch.fft.rfft2(padded, s=size).mul_(torch.fft.rfft2(kernel, s=size)[:, None])
    first = kernel.shape[-1] - 1
    return torch.fft.irfft2(product, s=size)[..., first:, first:]


def fast_length(length: int) -> int:
    """The smallest even length of at least ``length`` with no prime factor above 5, at which an FFT is fast."""
    while True:
        length += length % 2
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


def cropped(kernel: Tensor, taps: int) -> Tensor:
    """The middle ``taps`` x ``taps`` of kernel (B, K, K)."""
    cut = (kernel.shape[-1] - taps) // 2
    return kernel[:, cut : cut + taps, cut : cut + taps]
