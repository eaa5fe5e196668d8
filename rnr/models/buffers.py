"""Buffers that stay exact whatever the weights are cast to."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose floating-point buffers follow it to another device, but keep their precision.

    Rotary embeddings keep their frequencies in buffers. ``module.to(torch.bfloat16)``, which is what training in
    ``bf16-true`` does to a whole model, would round them by up to 0.4 %: at position 1000 an angle is then off by radians,
    and the model was trained on other positions than it is used with. ``from_pretrained`` leaves buffers alone; so do
    we.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: buffer for name, buffer in self.named_buffers() if buffer.is_floating_point()}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            owner, _, leaf = name.rpartition(".")
            module = self.get_submodule(owner)
            if (cast := module.get_buffer(leaf)).dtype != buffer.dtype:
                setattr(module, leaf, buffer.to(cast.device))
        return self
