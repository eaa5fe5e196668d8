"""A network for a single degradation, one third of the paper's 3D: a residual U-Net that is told nothing.

    restored = photo + UNet(photo)

Trained on photos with that degradation alone (``rnr/presets/noise.yaml`` and its like), by each photo's root mean square
error. The absolute error would not do: most pixels have no rain on them, and the median of nothing is nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rnr.diagnosis import Diagnosis
from rnr.models.baselines.candidates import disturbed
from rnr.models.interfaces import TrainableRestorer
from rnr.models.tiling import tiled
from rnr.models.unet import UNet, UNetSize, reflected
from rnr.models.weights import load_module, save_module, saved_module

NAME = "rnr.models.baselines.single_task.SingleTask"


class SingleTask(TrainableRestorer):
    """See the module.

    checkpoint: a folder that :meth:`save` wrote, or several of which the first that is there counts; None starts from
        random weights.
    size: of the network; a checkpoint brings its own.
    tile, overlap: in pixels; larger photos go through the network in tiles.

    Raises ``FileNotFoundError`` or ``ValueError`` if no checkpoint is there, or it is not one of this class.
    """

    def __init__(
        self,
        checkpoint: str | list[str] | None = None,
        size: UNetSize = UNetSize(),  # noqa: B008 (frozen)
        tile: int = 768,
        overlap: int = 48,
    ) -> None:
        super().__init__()
        if checkpoint is not None:
            weights, saved = saved_module(checkpoint, NAME, "single-task restorer")
            size = UNetSize.of(saved)
        self.size, self.tile, self.overlap = size, tile, overlap
        self.network = UNet(3, 3, 1, size).to(memory_format=torch.channels_last)
        if checkpoint is not None:
            load_module(self, weights)

    def save(self, directory: Path) -> None:
        save_module(self, NAME, self.size, directory)

    @torch.no_grad()
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        return self(images).clamp(0, 1)

    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """The mean over photos of their root mean square error; nothing is drawn from ``generator``."""
        squares = (self(degraded) - clean).square().mean(dim=(1, 2, 3))
        return (squares + 1e-8).sqrt().mean()

    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """The network draws nothing, so candidates differ by what it is shown (:func:`disturbed`)."""
        return self(disturbed(degraded, seeds, group)).unflatten(0, (-1, group))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), not clamped, with gradient. images: (B, 3, H, W) in [0, 1] of any size."""

        def restore(tile: Tensor, window: tuple[slice, slice]) -> Tensor:
            return tile + reflected(self.network, tile, tile.new_zeros(len(tile), 1))

        return tiled(restore, images, self.tile, self.overlap)
