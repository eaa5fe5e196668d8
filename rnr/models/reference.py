"""The policy as it was before its adapter learned anything: the same weights with the adapter switched off, no copy.

An adapter that stage 2 has trained already goes off with the rest: the reference is then the model that stage 2 began with.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


def adapted_layers(model: nn.Module) -> list[BaseTunerLayer]:
    """The layers of ``model`` that have an adapter."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """While it lasts, ``model`` is its own reference. Which parameters are trained stays as it was, and an adapter that was
    off stays off. ``ValueError`` if there is none."""
    layers = [layer for layer in adapted_layers(model) if not layer.disable_adapters]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no adapter to switch off (lora_rank), and so no reference")
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)  # and turns on the gradient of all of the adapter's parameters, or off
        for parameter, was in trained:
            parameter.requires_grad_(was)
