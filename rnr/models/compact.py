"""The compact restorer: the inverse of Eq. 1 under the diagnosis, refined by a small U-Net that also sees the diagnosis.

It runs on a CPU. The physics (:mod:`rnr.models.inverse`) hands the network the photo as it is, denoised and deblurred,
and dehazed; the network answers with a gain and an offset for each pixel of the last. Whatever it needs to know of
the whole photo comes as numbers (diagnosis, brightness statistics), so that large photos can go through it in tiles.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.edit import jitter
from rnr.diagnosis.vector import LENGTH, encode
from rnr.models import inverse
from rnr.models.interfaces import TrainableRestorer
from rnr.models.inverse import Physics
from rnr.models.tiling import tiled
from rnr.models.weights import check, locate

NAME = "rnr.models.compact.CompactRestorer"
STATISTICS = 15  # mean, deviation and three quantiles of each channel


@dataclass(frozen=True)
class CompactSize:
    """widths: channels at 1/2, 1/4, 1/8 of the photo's size. blocks: residual blocks at each, down and up again."""

    widths: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (2, 2, 4)
    condition: int = 96


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, its middle scaled and shifted by the condition (FiLM)."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(condition, 2 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.second.weight.data *= 0.1
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[..., None, None].chunk(2, dim=1)
        return x + self.second(F.gelu(self.first(x) * (1 + scale) + shift))


class UNet(nn.Module):
    """(B, C, H, W) with H and W multiples of 2^levels -> (B, out, H, W), under a condition (B, D)."""

    def __init__(self, channels: int, out: int, size: CompactSize) -> None:
        super().__init__()
        widths, blocks, code = size.widths, size.blocks, size.condition
        self.stem = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList(Block(w, code) for _ in range(n)) for w, n in zip(widths, blocks, strict=True)
        )
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.up = nn.ModuleList(
            nn.ModuleList(Block(w, code) for _ in range(n)) for w, n in zip(widths[:-1], blocks[:-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 4 * out, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.multiple = 2 ** len(widths)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(x, 2))
        skips = []
        for level, blocks in enumerate(self.down):
            for block in blocks:
                x = block(x, condition)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = F.pixel_shuffle(self.grow[level](x), 2) + skips[level]
            for block in self.up[level]:
                x = block(x, condition)
        return F.pixel_shuffle(self.head(x), 2)


class CompactRestorer(TrainableRestorer):
    """See the module.

    Args:
        checkpoint: a folder that :meth:`save` wrote, or several of which the first that is there counts (see
            :func:`rnr.models.weights.locate`); None starts from random weights.
        size: of the network; a checkpoint brings its own.
        ssim_weight: of the structure term in the loss, beside the mean absolute error.
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
        folder = None if checkpoint is None else Path(locate(checkpoint))
        if folder is not None:
            check(str(folder), [NAME], "compact restorer")
            size = _read_size(folder)
        self.size, self.ssim_weight, self.jitter, self.tile, self.overlap = size, ssim_weight, jitter, tile, overlap
        self.condition = nn.Sequential(
            nn.Linear(LENGTH + STATISTICS, size.condition),
            nn.GELU(),
            nn.Linear(size.condition, size.condition),
            nn.GELU(),
        )
        self.network = UNet(channels=11, out=6, size=size).to(memory_format=torch.channels_last)
        if folder is not None:
            self.load_state_dict(load_file(folder / "model.safetensors"))

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, directory / "model.safetensors")
        config = {"class": NAME, "size": asdict(self.size)}
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @torch.no_grad()
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """As the interface says; this restorer draws nothing, so ``seeds`` do not matter."""
        return self(images, diagnoses).clamp(0, 1)

    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """Mean absolute error plus ``ssim_weight`` (1 - SSIM); this restorer draws nothing from ``generator``."""
        restored = self(degraded, diagnoses)
        return F.l1_loss(restored, clean) + self.ssim_weight * (1 - box_ssim(restored, clean))

    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """Candidates differ by their diagnosis: the first has the given one, the others jittered copies of it."""
        varied: list[Diagnosis | None] = []
        for diagnosis, seed in zip(diagnoses, seeds, strict=True):
            generator = torch.Generator().manual_seed(seed)
            varied.append(diagnosis)
            varied += [diagnosis and jitter(diagnosis, self.jitter, generator) for _ in range(group - 1)]
        out = self(degraded.repeat_interleave(group, dim=0), varied)
        return out.view(len(degraded), group, *out.shape[1:])

    def forward(self, images: Tensor, diagnoses: Sequence[Diagnosis | None]) -> Tensor:
        """(B, 3, H, W), not clamped, with gradient. images: (B, 3, H, W) in [0, 1] of any size."""
        physics = Physics.of(diagnoses, images)
        condition = self.condition(torch.cat([encode(diagnoses, images), statistics(images)], dim=1))
        clear = inverse.haze(images, physics.light)
        power = inverse.exponent(clear, physics.transmission)
        t = inverse.transmission_map(clear, power, images.shape[-2:])
        mean_variance = inverse.noise_variance(shrink(images, 1024), physics).mean(dim=(1, 2, 3))

        def restore(tile: Tensor, window: tuple[slice, slice]) -> Tensor:
            rows, columns = window
            here, noise = t[..., rows, columns], inverse.noise_variance(tile, physics)
            filtered = inverse.wiener(tile, physics.kernel, mean_variance)
            dehazed = inverse.dehaze(filtered, physics.light, here)
            inputs = torch.cat([tile, filtered, dehazed, here, noise.sqrt()], dim=1)
            gain, offset = self._network(inputs, condition).chunk(2, dim=1)
            return dehazed * (1 + gain) + offset

        return tiled(restore, images, self.tile, self.overlap)

    def _network(self, x: Tensor, condition: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        right, bottom = -width % self.network.multiple, -height % self.network.multiple
        mode = "reflect" if right < width and bottom < height else "replicate"
        x = F.pad(x, (0, right, 0, bottom), mode=mode).contiguous(memory_format=torch.channels_last)
        return self.network(x, condition)[..., :height, :width]


def statistics(images: Tensor) -> Tensor:
    """(B, 15): mean, standard deviation and the quantiles 0.02, 0.5, 0.98 of each channel, on a small copy."""
    small = shrink(images, 128).flatten(2)
    quantiles = small.quantile(torch.tensor([0.02, 0.5, 0.98]).to(small), dim=2)
    return torch.cat([small.mean(dim=2), small.std(dim=2, correction=0), *quantiles], dim=1)


def shrink(images: Tensor, side: int) -> Tensor:
    """``images`` (B, C, H, W) with their longer side at most ``side``, averaged over areas."""
    scale = side / max(images.shape[-2:])
    if scale >= 1:
        return images
    return F.interpolate(images, [max(1, round(length * scale)) for length in images.shape[-2:]], mode="area")


def box_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Mean SSIM of (B, C, H, W) in [0, 1] over 8x8 boxes every 4 pixels: a third of the cost of the Gaussian window."""

    def mean(z: Tensor) -> Tensor:
        return F.avg_pool2d(z, 8, stride=4)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def _read_size(folder: Path) -> CompactSize:
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["size"]
    return CompactSize(tuple(size["widths"]), tuple(size["blocks"]), size["condition"])
