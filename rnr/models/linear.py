"""Matrix products on a CPU, by oneDNN instead of MKL.

For float32 torch multiplies by MKL, which leaves half the width of AVX-512 unused on processors that are not Intel's.
oneDNN, which torch brings along for its convolutions, does not: twice as fast there. torch calls it for linear layers only
in compiled code, by the operator that is used here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 32  # below so many, oneDNN costs more than it saves
ONE_DNN = torch.backends.mkldnn.is_available()


class Linear(nn.Linear):
    """As its base; where no gradient is asked for, by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., out) = x (..., in) weight (out, in)^T + bias (out,), equal but for rounding to torch's own, which is taken for
    few rows, where a gradient is recorded, and for anything but float32 on a CPU that has oneDNN."""
    suits = (
        ONE_DNN
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (x, weight, bias)))
    )
    if not suits:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def take_over(model: nn.Module) -> None:
    """Makes all plain linear layers of ``model`` :class:`Linear`."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
