"""Camera shake: the photo convolved with the kernel of a Gaussian-weighted random walk (appendix A.2).

A hand moves the camera along a path p(tau), tau in [0, 1]: steps of equal length in a heading that wanders. A Gaussian in
tau weights the middle of the path. The path is centred on its weighted mean, so that the blurred photo stays where the
sharp one stood, and drawn into a 33 x 33 kernel that sums to 1. From the kernel's second moments M come

- direction: the angle of M's main eigenvector, degrees in [0, 180), counter-clockwise from the horizontal;
- length: the square root of M's largest eigenvalue, pixels;
- energy: the kernel's L2 norm;
- severity: 1 + 99 r_rms / r_max, with r_rms = sqrt(trace M) and r_max = 16 pixels, the kernel's radius.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rnr.degradation.convolve import convolve
from rnr.degradation.parts import begun, parts
from rnr.degradation.severity import Applied, check_probability, check_range, scale, uniform

RADIUS = 16
TAPS = 2 * RADIUS + 1
MAX_STEPS = 64
WEIGHT_STD = 0.2  # of the Gaussian in tau: the ends of the path weigh 4 % of its middle


@dataclass(frozen=True)
class ShakeParams:
    """present: (B,) bool. kernel: (B, 33, 33), non-negative, each summing to 1."""

    present: Tensor
    kernel: Tensor


@dataclass(frozen=True)
class Moments:
    """Of a kernel, (B,) each: direction in degrees, length and rms_radius in pixels, energy without a unit."""

    direction: Tensor
    length: Tensor
    energy: Tensor
    rms_radius: Tensor


@dataclass(frozen=True)
class ShakePrior:
    """Number of steps ~ U(steps), of ``stride`` pixels each; the heading turns by N(0, turn^2) degrees a step."""

    probability: float = 0.75
    steps: tuple[float, float] = (16, 64)
    stride: tuple[float, float] = (0.15, 1.0)
    turn: tuple[float, float] = (2, 30)

    draws: ClassVar[int] = 5 + MAX_STEPS

    def __post_init__(self) -> None:
        check_probability("shake.probability", self.probability)
        check_range("shake.steps", self.steps, 2, MAX_STEPS)
        check_range("shake.stride", self.stride, 0.01, 4)
        check_range("shake.turn", self.turn, 0, 180)

    def sample(self, u: Tensor) -> ShakeParams:
        """u: (B, 69) uniform on [0, 1)."""
        steps = uniform(u[:, 1], self.steps).round()
        turn = torch.deg2rad(uniform(u[:, 2], self.turn))
        stride = uniform(u[:, 3], self.stride)
        turns = torch.special.ndtri(u[:, 5:].clamp(1e-7, 1 - 1e-7)) * turn[:, None]
        heading = 2 * math.pi * u[:, 4:5] + turns.cumsum(dim=1)
        path = torch.stack([heading.cos(), heading.sin()], dim=-1).cumsum(dim=1) * stride[:, None, None]
        return ShakeParams(present=u[:, 0] < self.probability, kernel=draw(path, steps))


def draw(path: Tensor, steps: Tensor) -> Tensor:
    """(B, 33, 33): kernels of the first ``steps`` (B,) points of ``path`` (B, T, 2), x to the right and y downwards."""
    count = path.shape[1]
    index = torch.arange(count, dtype=path.dtype, device=path.device)
    tau = index / (steps[:, None] - 1)
    weight = torch.exp(-0.5 * ((tau - 0.5) / WEIGHT_STD) ** 2) * (index < steps[:, None])
    weight = weight / weight.sum(dim=1, keepdim=True)
    path = path - (path * weight[..., None]).sum(dim=1, keepdim=True)
    # A path that leaves the kernel is scaled down to fit, centre kept, rather than cut.
    reach = (path.abs() * (weight > 0)[..., None]).amax(dim=(1, 2))
    path = path * ((RADIUS - 1) / reach).clamp(max=1)[:, None, None]
    # Bilinear splatting keeps the centre of mass exactly; points without weight may lie anywhere.
    path = path.clamp(-RADIUS, RADIUS) + RADIUS
    corner = path.floor().clamp(max=TAPS - 2)  # a point on the far rim is that of the last cell
    fraction = path - corner
    kernel = torch.zeros(path.shape[0], TAPS * TAPS, dtype=path.dtype, device=path.device)
    for dx in (0, 1):
        for dy in (0, 1):
            share = (fraction[..., 0] if dx else 1 - fraction[..., 0]) * (
                fraction[..., 1] if dy else 1 - fraction[..., 1]
            )
            place = (corner[..., 1] + dy) * TAPS + corner[..., 0] + dx
            kernel.scatter_add_(1, place.long(), weight * share)
    return kernel.view(-1, TAPS, TAPS)


def moments(kernel: Tensor) -> Moments:
    """Second moments of kernels (B, K, K) about their own centre of mass."""
    offset = torch.arange(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device) - (kernel.shape[-1] - 1) / 2
    along_x, along_y = kernel.sum(dim=1), kernel.sum(dim=2)
    mean_x, mean_y = along_x @ offset, along_y @ offset
    xx = along_x @ offset**2 - mean_x**2
    yy = along_y @ offset**2 - mean_y**2
    xy = (offset @ kernel @ offset[:, None]).squeeze(-1) - mean_x * mean_y
    largest = (xx + yy) / 2 + torch.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    # y points down in the array and up in the eye's frame, hence the sign.
    # Taken modulo twice: the remainder of a tiny negative angle is rounded to 180 itself.
    direction = torch.rad2deg(0.5 * torch.atan2(-2 * xy, xx - yy)) % 180 % 180
    return Moments(
        direction=direction,
        length=largest.clamp(min=0).sqrt(),
        energy=kernel.flatten(1).norm(dim=1),
        rms_radius=(xx + yy).clamp(min=0).sqrt(),
    )


def gaussian_kernel(direction: Tensor, length: Tensor, energy: Tensor) -> Tensor:
    """(B, 33, 33): the Gaussian kernel that has a given direction (degrees), length (pixels) and energy, (B,) each.

    A diagnosis knows these three numbers and not the path. A Gaussian of standard deviations length and w has the
    energy 1 / sqrt(4 pi length w), which gives w; a few fixed-point steps take up what sampling on the grid changes, damped,
    lest those of short kernels go back and forth. Where less energy is asked for than a round kernel of that length has, it
    is that one.
    """
    offset = torch.arange(TAPS, dtype=length.dtype, device=length.device) - RADIUS
    y, x = torch.meshgrid(-offset, offset, indexing="ij")
    angle = torch.deg2rad(direction).view(-1, 1, 1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    long = length.clamp(min=0.1)
    short = (1 / (4 * math.pi * long * energy.clamp(min=1e-3) ** 2)).minimum(long)
    for _ in range(12):
        exponent = (along / long.view(-1, 1, 1)) ** 2 + (across / short.view(-1, 1, 1)) ** 2
        kernel = torch.softmax(-0.5 * exponent.flatten(1), dim=1).view(-1, TAPS, TAPS)
        now = moments(kernel)
        long = (long * (length / now.length.clamp(min=1e-3)).clamp(0.5, 2).sqrt()).clamp(0.05, 64)
        short = (short * (now.energy / energy.clamp(min=1e-3)).clamp(0.5, 2)).clamp(0.05, 64).minimum(long)
    return kernel


def severity(rms_radius: Tensor) -> Tensor:
    """(B,) in [1, 100] from the kernel's root-mean-square radius (B,) in pixels."""
    return scale(rms_radius / RADIUS)


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """image (B, C, H, W) convolved with its own kernel (B, 33, 33); borders reflected, or repeated in photos too small."""
    border = "reflect" if min(image.shape[-2:]) > kernel.shape[-1] // 2 else "replicate"
    return convolve(image, kernel.to(image), border)


def apply(image: Tensor, params: ShakeParams) -> Applied:
    """image: (B, 3, H, W) in [0, 1]."""
    measured = moments(params.kernel)
    out = begun(image, params.present)
    for part in parts(params.present):
        out[part] = blur(image[part], params.kernel[part]).clamp_(0, 1)
    return Applied(
        image=out,
        present=params.present,
        severity=severity(measured.rms_radius),
        parameters={"direction": measured.direction, "length": measured.length, "energy": measured.energy},
    )
