"""A group of candidates (Algorithm 1) from a restorer that draws nothing: it is shown slightly different photos."""

from collections.abc import Sequence

import torch
from torch import Tensor


def disturbed(images: Tensor, seeds: Sequence[int], group: int, sigma: float = 4 / 255) -> Tensor:
    """(B N, 3, H, W): of each photo (B, 3, H, W) itself and ``group`` - 1 = N - 1 copies under Gaussian noise of
    standard deviation ``sigma``, drawn from its seed on the CPU."""
    rows = []
    for image, seed in zip(images, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        noise = sigma * torch.randn(group - 1, *image.shape, generator=generator, dtype=torch.float32)
        rows += [image[None], image + noise.to(image)]
    return torch.cat(rows)
