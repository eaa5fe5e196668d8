import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_shift, retrieve_timesteps
from torch import nn

from rnr.models.flow import flow_matching_loss, sample, schedule, time_shift, training_sigmas

QWEN = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "shift_terminal": 0.02,
    "use_dynamic_shifting": True,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x0() -> torch.Tensor:
    return torch.randn(3, 4, 5, generator=generator(1), dtype=torch.float64)


def exact(x0):
    """The velocity of a flow that ends in ``x0`` wherever it is: at x = (1 - sigma) x0 + sigma eps it is eps - x0."""
    return lambda x, sigma: (x - x0) / sigma.view(-1, 1, 1)


def test_exact_velocity_has_no_loss(x0):
    assert flow_matching_loss(exact(x0), x0, generator()) < 1e-25


def test_loss_of_zero_velocity_is_the_power_of_the_target():
    x0 = torch.full((64, 32, 32), 2.0)
    loss = flow_matching_loss(lambda x, sigma: torch.zeros_like(x), x0, generator())
    assert loss == pytest.approx(5, abs=0.05)  # E (eps - 2)^2


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_exact_velocity_leads_back(x0, steps):
    noise = torch.randn(x0.shape, generator=generator(2), dtype=x0.dtype)
    sigmas = torch.linspace(1, 0, steps + 1, dtype=x0.dtype)
    torch.testing.assert_close(sample(exact(x0), noise, sigmas), x0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampler_stays_in_its_dtype(dtype):
    x = sample(lambda x, sigma: x.bfloat16(), torch.ones(2, 3, dtype=dtype), torch.tensor([1.0, 0.5, 0.0]))
    assert x.dtype == dtype


def test_steps_are_rounded_as_by_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(**QWEN)
    sigmas = schedule(scheduler, 8, 64)
    scheduler.set_timesteps(
        sigmas=torch.linspace(1, 1 / 8, 8, dtype=torch.float64).numpy(), mu=time_shift(scheduler, 64)
    )
    noise = torch.randn(2, 50, generator=generator()).bfloat16()
    expected = noise
    for step in scheduler.timesteps:
        expected = scheduler.step(torch.sin(3 * expected), step, expected, return_dict=False)[0]
    assert torch.equal(sample(lambda x, sigma: torch.sin(3 * x), noise, sigmas), expected)


@pytest.mark.parametrize("grad_last", range(5))
def test_gradient_is_that_of_the_last_steps(grad_last):
    net = nn.Linear(5, 5).double()
    noise = torch.randn(2, 5, generator=generator(), dtype=torch.float64)
    sigmas = torch.tensor([1.0, 0.8, 0.5, 0.3, 0.0], dtype=torch.float64)

    def velocity(x, sigma):
        return torch.tanh(net(x)) * sigma.view(-1, 1)

    sampled = sample(velocity, noise, sigmas, grad_last)
    x = noise
    for step in range(4):
        if step == 4 - grad_last:
            x = x.detach()
        x = x + (sigmas[step + 1] - sigmas[step]) * velocity(x, sigmas[step].expand(2))
    assert torch.equal(sampled, x)
    if not grad_last:
        assert not sampled.requires_grad
        return
    expected = torch.autograd.grad(x.square().sum(), net.parameters())
    actual = torch.autograd.grad(sampled.square().sum(), net.parameters())
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("grad_last", [-1, 3])
def test_refuses_more_gradient_than_steps(grad_last):
    with pytest.raises(ValueError, match=f"got {grad_last}"):
        sample(lambda x, sigma: x, torch.ones(1, 1), torch.tensor([1.0, 0.5, 0.0]), grad_last)


def test_sigmas_are_reproducible_and_shifted_in_the_logit():
    plain, shifted = training_sigmas(9, generator()), training_sigmas(9, generator(), shift=0.7)
    assert torch.equal(plain, training_sigmas(9, generator()))
    assert ((plain > 0) & (plain < 1)).all()
    scheduler = FlowMatchEulerDiscreteScheduler(**QWEN)
    torch.testing.assert_close(shifted, scheduler.time_shift(0.7, 1.0, plain))


@pytest.mark.parametrize("steps", [2, 8, 50])
@pytest.mark.parametrize("tokens", [4, 256, 4096])
def test_schedule_is_that_of_the_pipeline(steps, tokens):
    scheduler = FlowMatchEulerDiscreteScheduler(**QWEN)
    before = scheduler.sigmas.clone()
    sigmas = schedule(scheduler, steps, tokens)
    assert torch.equal(scheduler.sigmas, before)
    mu = calculate_shift(tokens, 256, 8192, 0.5, 0.9)
    assert time_shift(scheduler, tokens) == mu
    retrieve_timesteps(scheduler, sigmas=torch.linspace(1, 1 / steps, steps, dtype=torch.float64).numpy(), mu=mu)
    assert torch.equal(sigmas, scheduler.sigmas)


def test_schedule_of_a_static_shift():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert schedule(scheduler, 2, 16).tolist() == pytest.approx([1, 0.75, 0])
    assert torch.sigmoid(torch.tensor(time_shift(scheduler, 16))).item() == pytest.approx(0.75)


@pytest.mark.parametrize("steps", [4, 8])
def test_schedule_of_a_model_distilled_to_few_steps(steps):
    """Such a checkpoint brings a scheduler of its own: shift 3 at every size, down to where the steps end."""
    three = math.log(3)
    scheduler = FlowMatchEulerDiscreteScheduler(
        **{**QWEN, "base_shift": three, "max_shift": three, "shift_terminal": None}
    )
    plain = torch.linspace(1, 1 / steps, steps)
    for tokens in (64, 4096):
        assert schedule(scheduler, steps, tokens).tolist() == pytest.approx(
            [*(3 * plain / (1 + 2 * plain)).tolist(), 0]
        )


def test_one_step_goes_all_the_way():
    assert schedule(FlowMatchEulerDiscreteScheduler(**QWEN), 1, 64).tolist() == [1, 0]


def test_schedule_refuses_no_steps():
    with pytest.raises(ValueError, match="got 0"):
        schedule(FlowMatchEulerDiscreteScheduler(**QWEN), 0, 64)
