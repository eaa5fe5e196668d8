"""Each formula of A.2, and Eq. 1 from end to end, against :mod:`reference`, at random and at extreme parameters."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import torch
from scipy import ndimage

from rnr.degradation import (
    Degrader,
    FogParams,
    FogPrior,
    NoiseParams,
    NoisePrior,
    RainParams,
    RainPrior,
    ShakeParams,
    ShakePrior,
    fog,
    noise,
    rain,
    shake,
)

EXACT = 1e-12
HERE = torch.ones(1, dtype=torch.bool)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def scene(height, width, seed=0, dtype=torch.float64):
    """A photo (1, 3, H, W), black and white in places, and its depth (1, 1, H, W), with 0 and 1 in it."""
    generator = torch.Generator().manual_seed(seed)
    photo = (1.4 * torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    depth = torch.rand(1, 1, height, width, generator=generator, dtype=torch.float64)
    depth[..., 0, :], depth[..., -1, :] = 1, 0
    return photo.to(dtype), depth.to(dtype)


def photo_of(image):
    """(1, 3, H, W) as the reference has it."""
    return image[0].permute(1, 2, 0).double().numpy()


def close(found, expected, atol=EXACT):
    np.testing.assert_allclose(np.asarray(found, dtype=np.float64), expected, rtol=0, atol=atol)


def same_step(applied, expected, atol=EXACT):
    """Image, presence and severity of one photo's step."""
    close(photo_of(applied.image), expected.image, atol)
    assert applied.present.tolist() == [expected.severity > 0]
    if expected.severity:
        assert applied.severity.item() == pytest.approx(expected.severity, abs=100 * atol + 1e-9)


# Fog


@pytest.mark.parametrize("beta", [0.0, 1e-6, 0.8, 1.9, 2.995, 2.996, 3.0, 20.0])
@pytest.mark.parametrize("light", [(0.7, 0.7, 0.7), (1.0, 0.9, 0.8), (0.0, 1.0, 0.5)], ids=str)
def test_fog(beta, light):
    image, depth = scene(7, 9)
    expected = reference.add_fog(photo_of(image), depth[0, 0].numpy(), reference.Fog(np.array(light), beta))
    applied = fog.apply(image, depth, FogParams(HERE, column(light), column(beta)))
    same_step(applied, expected)
    close(fog.transmission(depth, column(beta))[0, 0], reference.transmission(depth[0, 0].numpy(), beta))
    assert applied.parameters["transmission"].item() == pytest.approx(expected.figures["transmission"], abs=EXACT)


# Shake


def wandering(count, stride, seed):
    headings = np.random.default_rng(seed).normal(scale=0.4, size=count).cumsum()
    return stride * np.stack([np.cos(headings), np.sin(headings)], axis=-1).cumsum(axis=0)


def straight(degrees, count=33, stride=0.4):
    """A path that rises at ``degrees`` from the horizontal; y points down."""
    angle = math.radians(degrees)
    return stride * np.arange(count)[:, None] * np.array([math.cos(angle), -math.sin(angle)])


PATHS = {
    "two steps": (wandering(64, 1.0, 0), 2),
    "16 of 64 steps": (wandering(64, 0.15, 1), 16),
    "all 64 steps": (wandering(64, 1.0, 2), 64),
    "too far for the kernel": (wandering(64, 4.0, 3), 64),
    "straight off to the left": (straight(180, 64, 4.0), 64),
    "up to the rim": (straight(90, 31, 1.0), 31),
    "on the spot": (np.full((64, 2), 3.7), 40),
    "half a pixel": (straight(45, 64, 0.01), 64),
}


@pytest.mark.parametrize("name", PATHS)
def test_the_kernel_of_a_path(name):
    path, steps = PATHS[name]
    close(shake.draw(torch.from_numpy(path)[None], column(steps))[0], reference.kernel_of(path, steps))


def test_kernels_of_a_batch_each_take_their_own_steps():
    paths, steps = np.stack([wandering(64, 0.7, seed) for seed in range(5)]), [2, 16, 33, 63, 64]
    kernels = shake.draw(torch.from_numpy(paths), column(*steps))
    for kernel, path, count in zip(kernels, paths, steps, strict=True):
        close(kernel, reference.kernel_of(path, count))


def kernels():
    yield from (reference.kernel_of(path, steps) for path, steps in PATHS.values())
    speckle = np.random.default_rng(0).random((3, 33, 33)) ** 40
    yield from speckle / speckle.sum(axis=(1, 2), keepdims=True)
    corner = np.zeros((33, 33))
    corner[0, 0] = corner[32, 32] = 0.5  # the farthest that a kernel reaches: its severity is off the scale
    yield corner


def same_direction(a, b, atol):
    difference = abs(a - b) % 180
    assert min(difference, 180 - difference) < atol


@pytest.mark.parametrize("kernel", kernels())
def test_the_moments_of_a_kernel(kernel):
    measured, expected = shake.moments(torch.from_numpy(kernel)[None]), reference.moments(kernel)
    for name in ("length", "energy", "rms_radius"):
        # A root turns rounding near 0 into its own root.
        assert getattr(measured, name).item() == pytest.approx(getattr(expected, name), abs=1e-7)
    if expected.length > 1e-3:  # a point has no direction
        same_direction(measured.direction.item(), expected.direction, 1e-6)
    close(shake.severity(measured.rms_radius), [reference.severity(expected.rms_radius / 16)], 1e-5)


@pytest.mark.parametrize("degrees", [-1e-4, 0, 1e-4, 1, 30, 45, 89.9, 90, 90.1, 135, 179, 179.9999, 180, 180.0001])
def test_directions_all_around_and_at_the_seam(degrees):
    kernel = reference.kernel_of(straight(degrees), 33)
    found = shake.moments(torch.from_numpy(kernel)[None]).direction.item()
    assert 0 <= found < 180
    same_direction(found, reference.moments(kernel).direction, 1e-6)
    same_direction(found, degrees, 1.5)  # splatting on the grid turns a short stroke a little


@pytest.mark.parametrize("size", [(40, 33), (17, 17), (17, 60), (16, 30), (3, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("name", ["16 of 64 steps", "too far for the kernel", "on the spot"])
def test_shake(size, name):
    kernel, (image, _) = reference.kernel_of(*PATHS[name]), scene(*size)
    expected = reference.add_shake(photo_of(image), reference.Shake(kernel))
    # scipy's own direct convolution, with its own borders, holds the reference itself.
    mode = "mirror" if min(size) > 16 else "nearest"
    close(expected.image, ndimage.convolve(photo_of(image), kernel[..., None], mode=mode))
    applied = shake.apply(image, ShakeParams(HERE, torch.from_numpy(kernel)[None]))
    same_step(applied, expected)
    for key in ("length", "energy"):
        assert applied.parameters[key].item() == pytest.approx(expected.figures[key], abs=1e-7)


# Rain

STREAKS = [
    # slant, length, width, opacity
    (0, 1, 0.5, 1.0),
    (90, 20, 1.0, 0.6),
    (-90, 20, 1.0, 0.6),
    (30, 10, 1.0, 0.3),
    (-30, 32, 2.5, 0.9),
    (-61.3, 7.7, 0.5, 0.04),
    (12.5, 33.3, 9.0, 1.0),
    (45, 64, 9.0, 0.05),
    (20, 15, 2.0, 0.0),
]
COLOR = (0.9, 0.75, 1.0)


def uniform_field(seed, height, width):
    """What a seed stands for: pixels seed a streak where this is below the density."""
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)).double().numpy()


def faint(mask):
    """Pixels (H, W, 1) of a mask so low that streaks may be left out there."""
    return ((mask > 0) & (mask < 1e-3))[..., None]


def same_rain(found, expected, mask, atol, faintest=1e-3):
    off = np.abs(photo_of(found) - expected)
    assert (off <= np.where(faint(mask), faintest, atol)).all(), off.max()


@pytest.mark.parametrize(("slant", "length", "width", "opacity"), STREAKS)
@pytest.mark.parametrize("density", [0.0, 0.004, 0.1, 1.0])
def test_rain(slant, length, width, opacity, density):
    image, _ = scene(26, 31)
    seeds = uniform_field(7, 26, 31) < density
    color = column(COLOR)
    numbers = (column(value) for value in (density, slant, length, width, opacity))
    applied = rain.apply(image, RainParams(HERE, *numbers, color=color, seed=torch.tensor([7])))
    drawn = reference.Rain(slant, length, width, opacity, np.array(COLOR))
    expected = reference.add_rain(photo_of(image), drawn, seeds)
    mask = reference.rain_mask(seeds, slant, length, width)
    same_rain(applied.image, expected.image, mask, EXACT)
    assert applied.present.tolist() == [expected.severity > 0]
    # A pixel right at the threshold may fall on either side.
    low, high = (reference.severity(((opacity * mask) > 0.05 + edge).mean()) for edge in (1e-9, -1e-9))
    assert low - 1e-9 <= applied.severity.item() <= high + 1e-9


@pytest.mark.parametrize(("slant", "length", "width"), [streak[:3] for streak in STREAKS])
def test_one_streak_is_a_segment_of_its_slant_length_and_width(slant, length, width):
    numbers = [column(value) for value in (slant, length, width)]
    kernel, expected = rain.line(*numbers)[0].numpy(), reference.streak(slant, length, width)
    trim = (len(kernel) - len(expected)) // 2
    assert trim >= 0
    close(kernel[trim : len(kernel) - trim, trim : len(kernel) - trim], expected)
    assert kernel.sum() == pytest.approx(expected.sum())
    # Geometry of its own: the streak's moments, seen from the side that it leans to.
    if length > 2 * width:
        same_direction(reference.moments(expected / expected.sum()).direction, 90 - slant, 1)


# Noise


@pytest.mark.parametrize(
    ("k", "b"),
    [(0, 0), (0, 20), (0.3, 20), (0.3, -20), (0, -20), (0.05, -20), (0.1, -5), (1, 99), (1, -99), (0, 0.28), (0, 0.3)],
)
def test_noise(k, b):
    image, _ = scene(8, 9)
    field = torch.randn(3, 8, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = reference.add_noise(photo_of(image), reference.Noise(k, b), field.permute(1, 2, 0).numpy())
    applied = noise.apply(image, NoiseParams(HERE, column(k), column(b), torch.tensor([5])))
    same_step(applied, expected)
    close(photo_of(noise.sigma(image, column(k), column(b))), reference.sigma(photo_of(image), k, b))


# Severities and priors


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1 - 1e-9, 1.0, 1.5, 1e6])
def test_the_four_severities_and_where_they_saturate(share):
    score = min(1 + 99 * share, 100)
    assert fog.severity(column(1 - 0.95 * share)).item() == pytest.approx(score)
    assert shake.severity(column(16 * share)).item() == pytest.approx(score)
    assert rain.severity(column(share)).item() == pytest.approx(score)
    assert noise.severity(column(0.05 * share)).item() == pytest.approx(score)
    assert reference.severity(share) == pytest.approx(score)


@pytest.mark.parametrize("end", [0, 1], ids=["low", "high"])
def test_the_priors_end_where_the_paper_and_the_deviations_say(end):
    fogs, rains, noises = (
        prior.sample(torch.full((1, prior.draws), float(end), dtype=torch.float64), *more)
        for prior, more in ((FogPrior(), ()), (RainPrior(), (torch.ones(1, 3),)), (NoisePrior(), ()))
    )
    strides = SimpleNamespace(**{key: column(getattr(ShakePrior(), key)[end]) for key in reference.RANGES["shake"]})
    for kind, drawn in (("fog", fogs), ("shake", strides), ("rain", rains), ("noise", noises)):
        for key, bounds in reference.RANGES[kind].items():
            for value in getattr(drawn, key).flatten().tolist():
                assert value == pytest.approx(bounds[end]), f"{kind}.{key}"


# Eq. 1 from end to end

ALL = Degrader(FogPrior(1), ShakePrior(1), RainPrior(1), NoisePrior(1))
WORST = Degrader(
    FogPrior(1, atmospheric_light=(0, 1), beta=(15, 20)),
    ShakePrior(1, steps=(64, 64), stride=(4, 4), turn=(0, 3)),
    RainPrior(1, density=(0.2, 1), slant=(-90, 90), length=(60, 64), width=(7, 9), opacity=(1, 1)),
    NoisePrior(1, k=(0.9, 1), b=(-99, 99)),
)
FAINTEST = Degrader(
    FogPrior(0.5, beta=(0, 1e-6)),
    ShakePrior(0.5, steps=(2, 3), stride=(0.01, 0.01)),
    RainPrior(0.5, density=(1e-6, 0.01), length=(1, 1), width=(0.5, 0.5), opacity=(0, 0.1)),
    NoisePrior(0.5, k=(0, 0), b=(-1, 1)),
)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, EXACT), (torch.float32, 5e-6)], ids=["float64", "float32"])
@pytest.mark.parametrize("degrader", [Degrader(), ALL, WORST, FAINTEST], ids=["default", "all", "worst", "faintest"])
@pytest.mark.parametrize("size", [(24, 31), (16, 13), (40, 20)], ids=str)
def test_the_whole_chain(size, degrader, dtype, atol):
    count = 6
    image, depth = (torch.cat(parts) for parts in zip(*(scene(*size, i, dtype) for i in range(count)), strict=True))
    drawn = degrader.sample([torch.Generator().manual_seed(100 + i) for i in range(count)])
    degraded = degrader.apply(image, depth, drawn)
    assert list(degraded.steps) == ["fog", "shake", "rain", "noise"]
    for i in range(count):
        applied = reference.parameters(drawn, i)
        seeds = uniform_field(drawn.rain.seed[i].item(), *size) < drawn.rain.density[i].to(dtype).item()
        field = torch.randn(3, *size, generator=torch.Generator().manual_seed(drawn.noise.seed[i].item()), dtype=dtype)
        expected = reference.degrade(
            photo_of(image[i : i + 1]), depth[i, 0].double().numpy(), applied, seeds, photo_of(field[None])
        )
        mask = np.zeros(size)
        if applied.rain:
            mask = reference.rain_mask(seeds, applied.rain.slant, applied.rain.length, applied.rain.width)
        for kind, step in expected.items():
            # What rain leaves out, noise may enlarge: sigma depends on the photo beneath.
            same_rain(degraded.steps[kind].image[i : i + 1], step.image, mask, atol, faintest=5e-3)
        severities = [step.severity for step in expected.values()]
        assert degraded.present[i].tolist() == [score > 0 for score in severities]
        close(degraded.severity[i], severities, 1e-3)
