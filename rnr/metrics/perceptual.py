"""Perceptual distance of restored photos to the clean ones: LPIPS (Zhang et al., 2018), by torchmetrics.

The layers' weights come with torchmetrics. The network beneath comes from nowhere by itself: torchvision has its form,
and its weights are a safetensors file of the user's, with torchvision's names, such as ``timm/vgg16.tv_in1k``.
"""

import re
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS

from rnr.metrics.restoration import as_saved, check

FILE = "model.safetensors"
MARKS = {
    "alex": ("features.0.weight", (64, 3, 11, 11)),
    "vgg": ("features.28.weight", (512, 512, 3, 3)),
    "squeeze": ("features.12.expand3x3.weight", (256, 64, 3, 3)),
}
"""A tensor that only weights of this network have, and its shape."""


class Lpips:
    """LPIPS by AlexNet, VGG16 or SqueezeNet, whichever the weights are of.

    weights: a safetensors file, a folder with ``model.safetensors``, or a hub name that is in the cache already. Raises
    ``FileNotFoundError`` if it is not there, ``ValueError`` for weights of another network, ``ModuleNotFoundError`` without
    torchvision.
    """

    def __init__(self, weights: str) -> None:
        path = _file(weights)
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: is no safetensors file ({error})") from error
        named = [net for net, (key, shape) in MARKS.items() if key in state and tuple(state[key].shape) == shape]
        if not named:
            raise ValueError(f"{path}: holds neither AlexNet, VGG16 nor SqueezeNet 1.1 under torchvision's names")
        self.name = f"LPIPS ({named[0]})"
        try:
            self.net: nn.Module = _LPIPS(net=named[0], pnet_rand=True)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("LPIPS needs torchvision: pip install 'rnr[lpips]'") from error
        own = {key: f"features.{re.sub(r'^slices?[.]?[0-9]+[.]', '', key)}" for key in self.net.net.state_dict()}
        self.net.net.load_state_dict({key: state[name] for key, name in own.items()})

    @torch.no_grad()
    def __call__(self, restored: Tensor, clean: Tensor) -> Tensor:
        """(B,), 0 for equal photos. restored, clean: (B, 3, H, W) in [0, 1], at 8 bit as for the other figures."""
        check(restored, clean)
        net = self.net.to(clean.device)
        return net(as_saved(restored), as_saved(clean), normalize=True).flatten()


def _file(weights: str) -> Path:
    for path in (Path(weights), Path(weights) / FILE):
        if path.is_file():
            return path
    if weights.count("/") == 1 and isinstance(cached := try_to_load_from_cache(weights, FILE), str):
        return Path(cached)
    raise FileNotFoundError(
        f"{weights}: no weights of LPIPS's network there: name a safetensors file, or a hub name after hf download NAME"
    )
