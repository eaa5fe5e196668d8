"""Flow matching: how a restorer is fine-tuned (section 3.2) and how its images are drawn with gradient (Algorithm 1).

    x_sigma = (1 - sigma) x0 + sigma eps,        v = d x_sigma / d sigma = eps - x0

x0: what to generate, here latents normalised to about unit variance, (B, ...). eps: standard normal, of the same shape.
sigma: the share of noise, in [0, 1]. A velocity is any function (x_sigma (B, ...), sigma (B,)) -> v (B, ...); all
else here is a pure function of it. Sampling follows dx = v dsigma from sigma = 1 to 0.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler

Velocity = Callable[[Tensor, Tensor], Tensor]


def training_sigmas(count: int, generator: torch.Generator, shift: float = 0.0) -> Tensor:
    """(count,) in (0, 1) on the generator's device: logit-normal, its logit moved by ``shift``.

    The exponential time shift of the sampler, sigma -> e^mu sigma / (1 + (e^mu - 1) sigma), is exactly logit + mu: with
    ``shift`` = mu a model trains at the noise levels at which it will be sampled.
    """
    return torch.sigmoid(torch.randn(count, generator=generator, device=generator.device, dtype=torch.float32) + shift)


def flow_matching_loss(velocity: Velocity, x0: Tensor, generator: torch.Generator, shift: float = 0.0) -> Tensor:
    """Mean squared error of the velocity at a random noise level, a scalar. x0: (B, ...). ``shift``: as above."""
    sigma = training_sigmas(len(x0), generator, shift).to(x0)
    noise = torch.randn(x0.shape, generator=generator, device=generator.device, dtype=x0.dtype).to(x0.device)
    share = sigma.view(-1, *[1] * (x0.ndim - 1))
    predicted = velocity((1 - share) * x0 + share * noise, sigma)
    return F.mse_loss(predicted.to(x0.dtype), noise - x0)


def time_shift(scheduler: "FlowMatchEulerDiscreteScheduler", image_seq_len: int) -> float:
    """mu, by which the scheduler moves the logit of sigma for an image of ``image_seq_len`` tokens.

    Larger images keep more of their structure at the same sigma, and so are sampled at more noise. A static shift s is
    the same at every size, log(s).
    """
    config = scheduler.config
    if not config.use_dynamic_shifting:
        return math.log(config.shift)
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return image_seq_len * slope + (config.base_shift - slope * config.base_image_seq_len)


def schedule(scheduler: "FlowMatchEulerDiscreteScheduler", steps: int, image_seq_len: int) -> Tensor:
    """The noise levels of ``steps`` Euler steps: (steps + 1,), float32, falling from 1 to 0.

    The same that ``QwenImageEditPipeline`` uses. ``scheduler`` itself is left as it was. ``ValueError`` for no step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    # shift_terminal stretches the levels until the last one before 0 is what it says. A single level is the first, 1,
    # and nothing can stretch it: the scheduler would divide 0 by 0.
    settings = {"shift_terminal": None} if steps == 1 else {}
    own = type(scheduler).from_config(scheduler.config, **settings)
    own.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=time_shift(scheduler, image_seq_len))
    return own.sigmas


def sample(velocity: Velocity, noise: Tensor, sigmas: Tensor, grad_last: int = 0) -> Tensor:
    """Integrates the flow from ``noise`` down ``sigmas`` by Euler's rule: x0, (B, ...), of the dtype of ``noise``.

    Steps are taken in float32 or better, and rounded where diffusers' scheduler rounds them: with the same velocity the
    result is the same to the bit, in bfloat16 too.

    noise: (B, ...). sigmas: (steps + 1,), falling. Gradient flows through the last ``grad_last`` steps only, each
    recomputed in the backward pass, so that memory does not grow with them. The truncated gradient is smaller than the
    whole by about the share of sigma that those steps cover. ``ValueError`` unless 0 <= grad_last <= steps.
    """
    steps = len(sigmas) - 1
    if not 0 <= grad_last <= steps:
        raise ValueError(f"grad_last must lie within [0, {steps}], the number of steps, got {grad_last}")
    x, sigmas = noise, sigmas.to(noise.device)
    wide = torch.promote_types(x.dtype, torch.float32)
    for step, (sigma, following) in enumerate(pairwise(sigmas)):
        level = sigma.expand(len(x))
        if step < steps - grad_last:
            with torch.no_grad():
                v = velocity(x, level)
        else:
            v = checkpoint(velocity, x, level, use_reentrant=False)
        x = (x.to(wide) + (following - sigma) * v).to(x.dtype)
    return x
