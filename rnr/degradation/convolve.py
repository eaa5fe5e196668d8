"""Convolution of each photo of a batch with a kernel of its own, by FFT."""

import torch
import torch.nn.functional as F
from torch import Tensor


def convolve(image: Tensor, kernel: Tensor, border: str) -> Tensor:
    """(B, C, H, W): true convolution. kernel: (B, K, K), K odd. border: 'constant' (zeros), 'reflect' or 'replicate'."""
    height, width = image.shape[-2:]
    radius = kernel.shape[-1] // 2
    padded = F.pad(image, (radius,) * 4, mode=border) if radius else image
    size = [fast_length(side) for side in padded.shape[-2:]]
    product = torch.fft.rfft2(padded, s=size).mul_(torch.fft.rfft2(kernel, s=size)[:, None])
    # Wrapping around spoils just the first K - 1 rows and columns, which are not looked at.
    first = 2 * radius
    return torch.fft.irfft2(product, s=size)[..., first : first + height, first : first + width]


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
