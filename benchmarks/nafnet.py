"""NAFNet (Chen et al., Simple Baselines for Image Restoration, ECCV 2022), written from the paper to time it: random weights.

Its shape for GoPro with 32 channels: 17.1 M parameters, 16 GMACs for 256 x 256 and so 64 for 512 x 512.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER, MIDDLE, DECODER = (1, 1, 1, 28), 1, (1, 1, 1, 1)


def gate(x: Tensor) -> Tensor:
    """SimpleGate: one half of the channels times the other."""
    a, b = x.chunk(2, dim=1)
    return a * b


class LayerNorm(nn.LayerNorm):
    """Over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """Figure 3c of the paper: SimpleGate and simplified channel attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(width, eps=1e-6) for _ in range(2))
        self.widen = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attention = nn.Conv2d(width, width, 1)
        self.project = nn.Conv2d(width, width, 1)
        self.feed, self.forth = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = gate(self.depthwise(self.widen(self.norms[0](x))))
        y = y * self.attention(y.mean(dim=(2, 3), keepdim=True))
        x = x + self.beta * self.project(y)
        return x + self.gamma * self.forth(gate(self.feed(self.norms[1](x))))


class NAFNet(nn.Module):
    """(B, 3, H, W) with H and W multiples of 16, the same again."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders, self.downs, self.ups, self.decoders = (nn.ModuleList() for _ in range(4))
        for count in ENCODER:
            self.encoders.append(nn.Sequential(*(Block(width) for _ in range(count))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle = nn.Sequential(*(Block(width) for _ in range(MIDDLE)))
        for count in DECODER:
            self.ups.append(nn.Conv2d(width, 2 * width, 1, bias=False))
            width //= 2
            self.decoders.append(nn.Sequential(*(Block(width) for _ in range(count))))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = self.intro(image), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(F.pixel_shuffle(up(x), 2) + skip)
        return self.ending(x) + image
