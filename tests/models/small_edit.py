"""What the tests of the full-scale restorer share: photos, and small models of the real classes."""

import torch
from torch import nn

from rnr.models.qwen_image_edit import QwenImageEditRestorer


def photos(count: int = 3, height: int = 32, width: int = 48, seed: int = 0) -> torch.Tensor:
    """Of 8 bits, as a pipeline takes them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, height, width), generator=generator) / 255


def make(**arguments) -> QwenImageEditRestorer:
    torch.manual_seed(0)
    return QwenImageEditRestorer(**{"steps": 3, **arguments})


def with_living_adapter(**arguments) -> QwenImageEditRestorer:
    """New adapters do nothing, their second half being zero."""
    restorer = make(lora_rank=4, lora_alpha=12, **arguments)
    for name, parameter in restorer.named_parameters():
        if ".lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return restorer
