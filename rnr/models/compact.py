"""The compact restorer: the inverse of Eq. 1 under the diagnosis, refined by a small U-Net that also sees the diagnosis.

It runs on a CPU. A first network finds where the fog lies (:mod:`rnr.models.haze`). With that the physics
(:mod:`rnr.models.inverse`) hands the second the photo as it is, rid of rain, noise and blur, and dehazed; it answers with
a gain and an offset for each pixel of the last. Whatever it needs to know of the whole photo comes as numbers (diagnosis,
brightness statistics) and as the map of the fog, so that large photos can go through it in tiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from rnr.diagnosis import KINDS, Diagnosis, Shake, afar
from rnr.diagnosis.edit import jitter
from rnr.diagnosis.vector import LENGTH, encode
from rnr.models import inverse
from rnr.models.haze import Haze, HazeNetwork
from rnr.models.interfaces import TrainableRestorer
from rnr.models.inverse import Physics, Power
from rnr.models.tiling import tiled
from rnr.models.unet import UNet, UNetSize, reflected, shrink
from rnr.models.weights import load_module, save_module, saved_module

NAME = "rnr.models.compact.CompactRestorer"
AT_ONCE = 2  # candidates of a rollout that go through the networks together
LEAST_ERROR = 1e-5  # mean squared error, 50 dB, below which nothing is left to learn
OWN_ERROR = 2e-5  # mean square, 47 dB: of so small a change half is the networks' own error
READ = 512  # pixels of the longer side of the copy that the noise's power is read off
REACH = 8.0  # pixels of a shake's length: a kernel of 33 x 33 holds twice that on either side
STATISTICS = 15  # mean, deviation and three quantiles of each channel


@dataclass(frozen=True)
class CompactSize:
    """Of the network that refines and of the one that finds the fog. inverted: what the physics undoes; the rest is
    left to the networks."""

    refine: UNetSize = UNetSize(widths=(32, 64, 128), blocks=(2, 2, 4))
    haze: UNetSize = UNetSize(widths=(24, 48, 64, 96, 128), blocks=(1, 1, 2, 2, 2))
    inverted: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        if wrong := set(self.inverted) - set(KINDS):
            raise ValueError(f"the physics inverts {', '.join(KINDS)}, not {', '.join(sorted(wrong))}")

    @classmethod
    def of(cls, config: dict[str, Any]) -> "CompactSize":
        """From what JSON makes of one."""
        refine, haze = (UNetSize.of(config[name]) for name in ("refine", "haze"))
        return cls(refine, haze, tuple(config.get("inverted", KINDS)))


class CompactRestorer(TrainableRestorer):
    """See the module.

    Args:
        checkpoint: a folder that :meth:`save` wrote, or several of which the first that is there counts (see
            :func:`rnr.models.weights.locate`); None starts from random weights.
        size: of the network; a checkpoint brings its own.
        ssim_weight: of the structure term in the loss, beside the fidelity's.
        jitter: spread of the diagnoses that make a group's candidates differ, see :func:`rnr.diagnosis.edit.jitter`.
        tile, overlap: in pixels; larger photos go through the network in tiles.

    Raises:
        FileNotFoundError, ValueError: no checkpoint is there, or it is not one of this class.
    """

    def __init__(
        self,
        checkpoint: str | list[str] | None = None,
        size: CompactSize = CompactSize(),
        ssim_weight: float = 0.2,
        jitter: float = 0.15,
        tile: int = 768,
        overlap: int = 48,
    ) -> None:
        super().__init__()
        if checkpoint is not None:
            weights, saved = saved_module(checkpoint, NAME, "compact restorer")
            size = CompactSize.of(saved)
        self.size, self.ssim_weight, self.jitter, self.tile, self.overlap = size, ssim_weight, jitter, tile, overlap
        self.haze = HazeNetwork(LENGTH + STATISTICS, size.haze)
        self.network = UNet(11, 6, LENGTH + STATISTICS, size.refine).to(memory_format=torch.channels_last)
        if checkpoint is not None:
            load_module(self, weights)

    def save(self, directory: Path) -> None:
        save_module(self, NAME, self.size, directory)

    @torch.no_grad()
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """As the interface says, whatever the module's mode; this restorer draws nothing, so ``seeds`` do not matter."""
        training = self.training
        self.eval()
        try:
            return self(images, diagnoses).clamp(0, 1)
        finally:
            self.train(training)

    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """1 - PSNR / 100 dB plus ``ssim_weight`` (1 - SSIM), both the mean over photos: a light error on a good photo
        counts as much as a heavy one on a bad photo. This restorer draws nothing from ``generator``."""
        restored = self(degraded, diagnoses)
        squared = (restored - clean).square().mean(dim=(1, 2, 3)).clamp(min=LEAST_ERROR)
        return 1 + squared.log10().mean() / 10 + self.ssim_weight * (1 - box_ssim(restored, clean))

    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """Candidates differ by their diagnosis: the first has the given one, the others jittered copies of it."""
        varied: list[Diagnosis | None] = []
        for diagnosis, seed in zip(diagnoses, seeds, strict=True):
            generator = torch.Generator().manual_seed(seed)
            varied.append(diagnosis)
            varied += [diagnosis and jitter(diagnosis, self.jitter, generator) for _ in range(group - 1)]
        images = degraded.repeat_interleave(group, dim=0)
        # A few at once, recomputed in the backward pass: a group's activations outweigh all else of a step.
        parts = [
            recompute(self, images[i : i + AT_ONCE], varied[i : i + AT_ONCE], use_reentrant=False)
            for i in range(0, len(images), AT_ONCE)
        ]
        return torch.cat(parts).unflatten(0, (len(degraded), group))

    def forward(self, images: Tensor, diagnoses: Sequence[Diagnosis | None]) -> Tensor:
        """(B, 3, H, W), not clamped, with gradient. images: (B, 3, H, W) in [0, 1] of any size.

        A photo of which the diagnosis says that nothing is wrong with it stays as it is. None says nothing. The smaller the
        change of a photo, the less of it is made: next to nothing of one that is hardly more than :data:`OWN_ERROR`. A shake
        that is too wide for the kernels is undone in a smaller copy, after all else. Not while it trains: A.2 hardly draws
        one so wide, and processes among which the weights are dealt out must make equally many passes.
        ``ValueError`` for weights of fewer digits than float32 has, for which there is no Fourier transform.
        """
        rows = () if self._trains else enumerate(diagnoses)
        wide = {row: each.shake for row, each in rows if each and _is_wide(each.shake)}
        first = [replace(each, shake=None) if row in wide else each for row, each in enumerate(diagnoses)]
        restored = self._repaired(images, first)
        if not wide:
            return restored
        rows = [self._unshaken(row, wide[i]) if i in wide else row for i, row in enumerate(restored)]
        return torch.stack(rows)

    @property
    def _trains(self) -> bool:
        """Then every batch takes one pass, whatever its diagnoses: with gradient, and in a training step without."""
        return self.training or torch.is_grad_enabled()

    def _unshaken(self, image: Tensor, shake: Shake) -> Tensor:
        """``image`` (3, H, W) with what undoing ``shake`` changes in a copy in which it is narrow enough."""
        times = 2 ** math.ceil(math.log2(shake.length / REACH))
        copy = shrink(image[None], max(max(image.shape[-2:]) // times, 1)).clamp(0, 1)
        change = self._repaired(copy, [Diagnosis(shake=afar.scaled(shake, 1 / times))]).clamp(0, 1) - copy
        return image + F.interpolate(change, image.shape[-2:], mode="bicubic", align_corners=False)[0]

    def _repaired(self, images: Tensor, diagnoses: Sequence[Diagnosis | None]) -> Tensor:
        """At the photos' own size."""
        if (dtype := self.network.head.weight.dtype).itemsize < 4:
            raise ValueError(f"the restorer's weights must be float32, got {dtype}; --trainer.precision bf16-mixed does")
        ill = [diagnosis is None or any(diagnosis[kind] is not None for kind in KINDS) for diagnosis in diagnoses]
        if not any(ill) and not self._trains:
            return images
        restored = self._refine(images, *self.see(images, diagnoses))
        change = torch.linalg.vector_norm((restored - images).flatten(1), dim=1).square() / images[0].numel()
        share = change / (change + OWN_ERROR)
        made = images.lerp(restored, share.view(-1, 1, 1, 1))
        return torch.where(torch.tensor(ill, device=images.device).view(-1, 1, 1, 1), made, images)

    def see(self, images: Tensor, diagnoses: Sequence[Diagnosis | None]) -> tuple[Physics, Tensor, Haze]:
        """What the diagnosis and the whole photo, shrunk, say: the physics, facts (B, D) for the networks, the fog."""
        left = dict.fromkeys(set(KINDS) - set(self.size.inverted))
        physics = Physics.of([diagnosis and replace(diagnosis, **left) for diagnosis in diagnoses], images)
        facts = torch.cat([encode(diagnoses, images), statistics(images)], dim=1)
        return physics, facts, self.haze(images, physics, facts)

    def _refine(self, images: Tensor, physics: Physics, facts: Tensor, haze: Haze) -> Tensor:
        power = Power.of(images, inverse.noise_variance(shrink(images, READ), physics))
        t = F.interpolate(haze.t, images.shape[-2:], mode="bilinear", align_corners=False)

        def restore(tile: Tensor, window: tuple[slice, slice]) -> Tensor:
            rows, columns = window
            here, noise = t[..., rows, columns], inverse.noise_variance(tile, physics)
            filtered = inverse.wiener(inverse.derain(tile, physics, noise), physics.kernel, noise, power)
            dehazed = inverse.dehaze(filtered, haze.light, here)
            inputs = torch.cat([tile, filtered, dehazed, here, (noise + 1e-12).sqrt()], dim=1)
            gain, offset = reflected(self.network, inputs, facts).chunk(2, dim=1)
            return dehazed * (1 + gain) + offset

        return tiled(restore, images, self.tile, self.overlap)


def _is_wide(shake: Shake | None) -> bool:
    return shake is not None and shake.length is not None and shake.length > REACH


def statistics(images: Tensor) -> Tensor:
    """(B, 15): mean, standard deviation and the quantiles 0.02, 0.5, 0.98 of each channel, on a small copy."""
    small = shrink(images, 128).flatten(2)
    quantiles = small.quantile(torch.tensor([0.02, 0.5, 0.98]).to(small), dim=2)
    return torch.cat([small.mean(dim=2), small.std(dim=2, correction=0), *quantiles], dim=1)


def box_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Mean SSIM of (B, C, H, W) in [0, 1] over 8x8 boxes every 4 pixels: a third of the cost of the Gaussian window."""

    def mean(z: Tensor) -> Tensor:
        return F.avg_pool2d(z, 8, stride=4)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
