"""The inverse of Eq. 1, driven by a diagnosis: rain undone along its slant, sensor noise and shake by a Wiener filter, then
fog by its A and t.

Given I = (1 - a) (k * (J t + A (1 - t))) + a c + n, with streaks of the color c that cover a share a of a pixel, a is
found by a matched filter: how much brighter a line of the diagnosed slant and width is than what lies on either side. Rid
of that, the foggy sharp photo is estimated in the Fourier domain as

    conj(K) I / (|K|^2 + N / S),      N the diagnosed noise power, S ~ 1 / f^2 that of natural photos,

which is a plain denoiser where the kernel K is 1. Noise differs with the brightness: the photo is filtered for a low and for
a high N, and each pixel takes what lies between, by where the logarithm of its own sigma(x)^2 does. Then J = (I - A (1 - t))
/ t, with t(x) from the dark channel, bent so that its mean is the diagnosed one.

What the diagnosis is not sure of counts by its chance: transmission and kernel are the mean ones, noise has its mean power,
and no more is taken out of a streak than its mean opacity. (Of the fog's doubt makes :mod:`rnr.models.haze` more.) All of it
is differentiable in the photo, and the identity for what the diagnosis calls absent. It is a guess that a network refines,
not a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from kornia.filters import guided_blur
from torch import Tensor

from rnr.degradation import rain
from rnr.degradation.convolve import convolve
from rnr.degradation.noise import INVISIBLE_VARIANCE, sigma
from rnr.degradation.shake import RADIUS, TAPS, gaussian_kernel
from rnr.diagnosis import KINDS, Diagnosis, Finding

WHITE = (1.0, 1.0, 1.0)
POOL = 4  # the transmission map is estimated on a copy this many times smaller
WINDOW = 7  # of the dark channel, in pixels of that copy
MISMATCH = 0.02  # power of the error in the kernel's response, as a share of the signal
FLOOR = 0.1  # nothing is divided by less: a transmission, what a streak leaves of a pixel, its contrast to what lies beside
TRACE = 0.4  # a streak is looked for by a line of this share of its length: its ends show as well
FLANK = 1.0  # width in pixels of what lies on either side of a streak
GAIN = 1.5  # by which a streak's pixels outdo the mean over a line through them
SURE = 1.5  # standard deviations of the noise by which a streak must stand out


@dataclass(frozen=True)
class Physics:
    """What the inverse needs of B diagnoses, with the values that change nothing where something is absent or not
    stated. light: (B, 3). transmission: (B,), the mean over fog and none. doubt: (B,), of the fog, 0 where it is certain or
    absent, to 1 where it might as well be absent. kernel: (B, 33, 33). slant, trace, width, opacity: (B,), of streaks, trace
    the length of the line that they are looked for by, opacity 0 without any, or none twice as long as wide. color: (B, 3).
    k, b, noise_chance: (B,), of the noise, -inf in b where there is none."""

    light: Tensor
    transmission: Tensor
    doubt: Tensor
    kernel: Tensor
    slant: Tensor
    trace: Tensor
    width: Tensor
    opacity: Tensor
    color: Tensor
    k: Tensor
    b: Tensor
    noise_chance: Tensor

    @classmethod
    def of(cls, diagnoses: Sequence[Diagnosis | None], like: Tensor) -> "Physics":
        """On the device and in the type of ``like``."""
        light, transmission, doubt, blur, streaks, color, noise = [], [], [], [], [], [], []
        for diagnosis in diagnoses:
            fog, shake, drops, readout = (diagnosis and diagnosis[kind] for kind in KINDS)
            a, t, chance = _stated(fog, "atmospheric_light", "transmission", "chance") or (WHITE, 1.0, 1.0)
            light.append(a)
            transmission.append(1 - chance * (1 - t))
            doubt.append(min(2 - 2 * chance, 1.0))
            blur.append(_stated(shake, "direction", "length", "energy", "chance") or (0.0, 0.0, 1.0, 0.0))
            seen = _stated(drops, "slant", "length", "width", "opacity", "color", "chance")
            slant, length, width, opacity, c, chance = seen or (0.0, 1.0, 1.0, 0.0, WHITE, 1.0)
            streaks.append((slant, TRACE * length, width, opacity * chance if length > 2 * width else 0.0))
            color.append(c)
            noise.append(_stated(readout, "k", "b", "chance") or (0.0, float("-inf"), 0.0))
        numbers = partial(torch.tensor, dtype=torch.float32, device=like.device)
        direction, length, energy, chance = numbers(blur).to(like).T
        kernel = gaussian_kernel(direction, length.clamp(min=0.3), energy)
        delta = torch.zeros_like(kernel)
        delta[:, RADIUS, RADIUS] = 1
        slant, trace, width, opacity = numbers(streaks).to(like).T
        k, b, noise_chance = numbers(noise).to(like).T
        return cls(
            light=numbers(light).to(like),
            transmission=numbers(transmission).to(like),
            doubt=numbers(doubt).to(like),
            kernel=delta.lerp(kernel, torch.where(length > 0, chance, 0).view(-1, 1, 1)),
            slant=slant,
            trace=trace,
            width=width,
            opacity=opacity,
            color=numbers(color).to(like),
            k=k,
            b=b,
            noise_chance=noise_chance,
        )


def _stated(finding: Finding | None, *keys: str) -> tuple | None:
    """These of a finding, if it states all of them."""
    values = tuple(getattr(finding, key, None) for key in keys)
    return None if None in values else values


@dataclass(frozen=True)
class Power:
    """Of whole photos, for all their tiles. signal: (B,), of the variance what is not noise. low, high: (B,), the noise's
    variance, but for the lowest and highest twentieth of the pixels; 0 where there is none, or next to none."""

    signal: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, image: Tensor, variance: Tensor) -> "Power":
        """image: (B, 3, H, W). variance: (B, 1, h, w), of the noise, on a copy of it of any size."""
        flat = variance.flatten(1)
        signal = (_framed(image).var(dim=(2, 3)).mean(dim=1) - flat.mean(dim=1)).clamp(min=1e-3)
        low, high = flat.quantile(torch.tensor([0.05, 0.95]).to(flat), dim=1)
        return cls(signal, low, high)


def noise_variance(image: Tensor, physics: Physics) -> Tensor:
    """(B, 1, H, W): the diagnosed noise's variance at each pixel of ``image`` (B, 3, H, W), mean over channels.

    The brightness is read off a smoothed copy, which the noise itself disturbs less.
    """
    smooth = F.avg_pool2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    variance = (sigma(smooth, physics.k, physics.b) ** 2).mean(dim=1, keepdim=True)
    return variance * physics.noise_chance.view(-1, 1, 1, 1)


def derain(image: Tensor, physics: Physics, variance: Tensor) -> Tensor:
    """(B, 3, H, W): ``image`` rid of streaks, under noise of ``variance`` (B, 1, H, W), which it leaves as it is, and grown
    where a streak was."""
    if not physics.opacity.any():
        return image
    line = rain.line(physics.slant, physics.trace, physics.width)
    around = rain.line(physics.slant, physics.trace, physics.width + 2 * FLANK)
    margin = (around.shape[-1] - line.shape[-1]) // 2
    flank = (around - F.pad(line, (margin,) * 4)).clamp(min=0)
    line, flank = (kernel / kernel.sum(dim=(1, 2), keepdim=True) for kernel in (line, flank))
    brightness = image.mean(dim=1, keepdim=True)
    beside = convolve(brightness, flank, "replicate")
    # Channels have noise of their own, of which the brightness is the mean.
    spread = ((line**2).sum(dim=(1, 2)) + (flank**2).sum(dim=(1, 2))).view(-1, 1, 1, 1) * variance / 3
    above = convolve(brightness, line, "replicate") - beside - SURE * (spread + 1e-12).sqrt()
    color, opacity = physics.color.view(-1, 3, 1, 1), physics.opacity.view(-1, 1, 1, 1)
    contrast = color.mean(dim=1, keepdim=True) - beside
    found = (GAIN * above / contrast.clamp(min=FLOOR)).clamp(min=0).minimum(opacity)
    share = torch.where(contrast > 0, found, 0)  # what is brighter than rain was not brightened by it
    return ((image - color * share) / (1 - share).clamp(min=FLOOR)).clamp(0, 1)


def wiener(image: Tensor, kernel: Tensor, variance: Tensor, power: Power | None = None) -> Tensor:
    """(B, 3, H, W): ``image`` with kernel (B, K, K) undone under noise of ``variance`` (B, 1, H, W); borders by reflection.
    power: that of the whole photo where ``image`` is a tile."""
    power = Power.of(image, variance) if power is None else power
    height, width = image.shape[-2:]
    padded = _framed(image)
    rows, columns = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded)
    # The kernel's centre goes to the origin, so that the photo does not move.
    placed = F.pad(kernel, (0, columns - TAPS, 0, rows - TAPS)).roll((-RADIUS, -RADIUS), dims=(1, 2))
    response = torch.fft.rfft2(placed)[:, None]
    fy = torch.fft.fftfreq(rows, device=image.device).view(-1, 1)
    fx = torch.fft.rfftfreq(columns, device=image.device).view(1, -1)
    falloff = 1 / (fy**2 + fx**2 + 1e-4)
    falloff = falloff / falloff.mean()
    gained = response.abs() ** 2
    # Where there is blur, the true kernel is never quite the diagnosed one: that error acts like noise of its own.
    blurred, mismatch = spectrum * response.conj(), MISMATCH * (1 - gained).clamp(min=0)

    def filtered(level: Tensor) -> Tensor:
        ratio = (level / power.signal).view(-1, 1, 1, 1) / falloff + mismatch
        restored = torch.fft.irfft2(blurred / (gained + ratio), s=(rows, columns))
        return restored[..., RADIUS : RADIUS + height, RADIUS : RADIUS + width]

    if not power.high.any():
        return filtered(power.low).clamp(0, 1)
    ends = (end.view(-1, 1, 1, 1) for end in (power.low, power.high))
    low, high, here = (each.clamp(min=INVISIBLE_VARIANCE).log() for each in (*ends, variance))
    place = ((here - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
    return filtered(power.low).lerp(filtered(power.high), place).clamp(0, 1)


def _framed(image: Tensor) -> Tensor:
    """With a margin as wide as a kernel reaches."""
    return F.pad(image, (RADIUS,) * 4, mode="reflect" if min(image.shape[-2:]) > RADIUS else "replicate")


def dark_channel_transmission(image: Tensor, light: Tensor) -> Tensor:
    """(B, 1, h, w) in (0, 1]: 1 minus the dark channel of ``image`` (B, 3, H, W) under light (B, 3), at 1 / POOL size."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % POOL, 0, -height % POOL), mode="replicate")
    small = F.avg_pool2d(padded, POOL)
    relative = (small / light.clamp(min=0.05).view(-1, 3, 1, 1)).amin(dim=1, keepdim=True)
    half = WINDOW // 2
    dark = -F.max_pool2d(-F.pad(relative, (half,) * 4, mode="replicate"), WINDOW, stride=1)
    clear = (1 - dark).clamp(0.02, 1)
    if min(clear.shape[-2:]) > 2 * WINDOW:
        clear = guided_blur(small.mean(dim=1, keepdim=True), clear, 2 * WINDOW + 1, eps=1e-3, border_type="replicate")
    return clear.clamp(0.02, 1)


def dehaze(image: Tensor, light: Tensor, t: Tensor) -> Tensor:
    """J = (I - A (1 - t)) / max(t, 0.1), clamped to [0, 1]. light: (B, 3); t: (B, 1, H, W)."""
    return ((image - light.view(-1, 3, 1, 1) * (1 - t)) / t.clamp(min=FLOOR)).clamp(0, 1)
