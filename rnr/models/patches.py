"""An image as the flat patches that the vision towers of Qwen2-VL and its successors read.

An image of gh x gw patches becomes gh gw rows. Rows go merge block by merge block (the merge x merge patches that the
tower later joins into one token stand together), and within a row the values go channel, time, y, x. A still image
repeats itself along time.

transformers does the same in numpy, one image at a time (``Qwen2VLImageProcessorPil``); here it is one view of a batch
on its own device, through which a gradient can flow.
"""

import torch
from torch import Tensor, nn

from rnr.models.linear import linear


class PatchProjection(nn.Conv3d):
    """The convolution that embeds patches, each as large as its kernel: as the matrix product that it is, which a CPU does
    four times as fast."""

    def forward(self, patches: Tensor) -> Tensor:
        """(n, width, 1, 1, 1). patches: (n, C, temporal, patch, patch)."""
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def patchify(images: Tensor, patch: int, temporal: int, merge: int) -> tuple[Tensor, Tensor]:
    """Patches ``(B * gh * gw, C * temporal * patch * patch)`` and grid ``(B, 3)`` of int64 rows ``(1, gh, gw)``.

    images: (B, C, H, W), already normalised as the tower wants it. ``ValueError`` unless H and W are positive
    multiples of ``patch * merge``.
    """
    batch, channels, height, width = images.shape
    unit = patch * merge
    if not height or not width or height % unit or width % unit:
        raise ValueError(f"images of {height}x{width} do not divide into blocks of {unit}x{unit}")
    blocks = images.reshape(batch, channels, height // unit, merge, patch, width // unit, merge, patch)
    rows = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)  # (B, gh/m, gw/m, m, m, C, 1, patch, patch)
    rows = rows.expand(*rows.shape[:6], temporal, patch, patch)
    grid = torch.tensor([[1, height // patch, width // patch]], device=images.device).repeat(batch, 1)
    return rows.reshape(-1, channels * temporal * patch * patch), grid
