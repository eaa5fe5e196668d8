"""The residual U-Net of the compact restorer: plain convolutions, which a CPU runs best, under a condition (FiLM)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnr.models.padding import padded


@dataclass(frozen=True)
class UNetSize:
    """widths: channels at 1/2, 1/4, 1/8, ... of the input's size. blocks: residual blocks at each, down and up again.
    condition: how many numbers the blocks see of the condition."""

    widths: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (2, 2, 4)
    condition: int = 96

    @classmethod
    def of(cls, config: dict[str, Any]) -> "UNetSize":
        """From what JSON makes of one."""
        return cls(tuple(config["widths"]), tuple(config["blocks"]), config["condition"])


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, its middle scaled and shifted by the condition."""

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
        return x + self.second(F.gelu(torch.addcmul(shift, self.first(x), 1 + scale)))


class UNet(nn.Module):
    """(B, channels, H, W) with H and W multiples of ``multiple`` -> (B, out, H, W), under facts (B, D). Starts out as
    zero."""

    def __init__(self, channels: int, out: int, facts: int, size: UNetSize) -> None:
        super().__init__()
        widths, blocks, condition = size.widths, size.blocks, size.condition
        self.condition = nn.Sequential(
            nn.Linear(facts, condition), nn.GELU(), nn.Linear(condition, condition), nn.GELU()
        )
        self.stem = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList(Block(w, condition) for _ in range(n)) for w, n in zip(widths, blocks, strict=True)
        )
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairs)
        self.up = nn.ModuleList(
            nn.ModuleList(Block(w, condition) for _ in range(n)) for w, n in zip(widths[:-1], blocks[:-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 4 * out, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.multiple = 2 ** len(widths)

    def forward(self, x: Tensor, facts: Tensor) -> Tensor:
        condition = self.condition(facts)
        x = self.stem(F.pixel_unshuffle(x, 2))
        skips = []
        for level, blocks in enumerate(self.down):
            for block in blocks:
                x = block(x, condition)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = F.pixel_shuffle(self.grow[level](x), 2) + skips.pop()
            for block in self.up[level]:
                x = block(x, condition)
        return F.pixel_shuffle(self.head(x), 2)


def reflected(network: UNet, x: Tensor, facts: Tensor) -> Tensor:
    """``network`` on x (B, C, H, W) of any size: padded to what it needs, by reflection where it can be, and cut back."""
    height, width = x.shape[-2:]
    x = padded(x, network.multiple).contiguous(memory_format=torch.channels_last)
    return network(x, facts)[..., :height, :width]


def shrink(images: Tensor, side: int) -> Tensor:
    """``images`` (B, C, H, W) with their longer side at most ``side``, averaged over areas."""
    scale = side / max(images.shape[-2:])
    if scale >= 1:
        return images
    return F.interpolate(images, [max(1, round(length * scale)) for length in images.shape[-2:]], mode="area")
