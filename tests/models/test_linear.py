"""Linear layers by oneDNN: the products that torch gives, and torch's own where a gradient or another type is asked for."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from rnr.models.linear import ROWS, Linear, take_over
from rnr.models.qwen3vl import Qwen3VLReasoner


def layer(bias=True, dtype=torch.float32):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(192, 80, bias=bias, dtype=dtype))
    take_over(made)
    return made[0]


def by_one_dnn(run):
    """What ``run`` returns, and whether oneDNN's operator was called."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        result = run()
    return result, any("mkldnn::_linear" in event.key for event in profiler.key_averages())


@pytest.mark.parametrize("shape", [(ROWS, 192), (2, 3, 7, 192), (1, 71, 192)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_equal_to_the_exact_product(shape, bias):
    one, x = layer(bias), torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    ours, fast = by_one_dnn(lambda: one(x))
    exact = nn.functional.linear(x.double(), one.weight.double(), one.bias.double() if bias else None)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)
    assert fast == torch.backends.mkldnn.is_available()


@torch.no_grad()
def test_what_is_not_contiguous_is_read_as_it_stands():
    one, x = layer(), torch.randn(192, 100, generator=torch.Generator().manual_seed(1)).T[::2]
    torch.testing.assert_close(one(x), nn.functional.linear(x, one.weight, one.bias), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_few_rows_are_left_to_torch():
    _, fast = by_one_dnn(lambda: layer()(torch.ones(ROWS - 1, 192)))
    assert not fast


@pytest.mark.parametrize("frozen", [False, True])
def test_a_gradient_flows_to_the_weights_and_to_what_goes_in(frozen):
    one, x = layer().requires_grad_(not frozen), torch.ones(ROWS, 192, requires_grad=True)
    made, fast = by_one_dnn(lambda: one(x))
    made.sum().backward()
    torch.testing.assert_close(x.grad, one.weight.detach().sum(0).expand(ROWS, -1))
    assert not fast and (one.weight.grad is None) == frozen


def test_a_bias_alone_can_learn():
    one = layer().requires_grad_(False)
    one.bias.requires_grad_()
    one(torch.ones(ROWS, 192)).sum().backward()
    assert one.bias.grad.eq(ROWS).all()


@torch.no_grad()
def test_other_types_and_autocast_are_left_to_torch():
    rows = torch.ones(ROWS, 192)
    made, fast = by_one_dnn(lambda: layer(dtype=torch.float64)(rows.double()))
    assert made.dtype == torch.float64 and not fast
    with torch.autocast("cpu", torch.bfloat16):
        assert layer()(rows).dtype == torch.bfloat16


def test_a_reasoner_has_no_other_linear_layers():
    kinds = {type(module) for module in Qwen3VLReasoner().model.modules() if isinstance(module, nn.Linear)}
    assert kinds == {Linear}
