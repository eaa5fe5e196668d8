import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from rnr.data import presets
from rnr.degradation import shake
from rnr.degradation.shake import RADIUS, TAPS, ShakeParams, ShakePrior


def draws(count, seed=0):
    return torch.rand(count, ShakePrior.draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lines(taps):
    """Horizontal, rising, vertical and falling strokes of ``taps`` equal weights, as seen with row 0 at the top."""
    kernels = torch.zeros(4, TAPS, TAPS, dtype=torch.float64)
    for i in range(-(taps // 2), taps // 2 + 1):
        for kernel, (right, up) in zip(kernels, ((i, 0), (i, i), (0, i), (-i, i)), strict=True):
            kernel[RADIUS - up, RADIUS + right] = 1 / taps
    return kernels


def numpy_moments(kernel):
    """Direction, length, energy and rms radius as A.2 describes them, pixel by pixel."""
    centre = np.zeros(2)
    for row in range(TAPS):
        for column in range(TAPS):
            centre += kernel[row, column] * np.array([column, -row])
    second = np.zeros((2, 2))
    for row in range(TAPS):
        for column in range(TAPS):
            offset = np.array([column, -row]) - centre
            second += kernel[row, column] * np.outer(offset, offset)
    values, vectors = np.linalg.eigh(second)
    direction = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])) % 180
    return direction, math.sqrt(max(values[1], 0)), math.sqrt((kernel**2).sum()), math.sqrt(max(values.sum(), 0))


def angle_between(a, b):
    difference = (a - b).abs() % 180
    return torch.minimum(difference, 180 - difference)


def test_moments_are_those_of_the_eigen_decomposition():
    sampled = ShakePrior().sample(draws(6)).kernel
    noise = torch.rand(2, TAPS, TAPS, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 20
    kernels = torch.cat([sampled, noise / noise.sum(dim=(1, 2), keepdim=True)])
    measured = shake.moments(kernels)
    direction, *others = np.array([numpy_moments(kernel) for kernel in kernels.numpy()]).T
    assert angle_between(measured.direction, torch.from_numpy(direction)).max() < 1e-6
    for found, expected in zip((measured.length, measured.energy, measured.rms_radius), others, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("taps", [3, 9, 21])
def test_moments_of_straight_strokes(taps):
    measured = shake.moments(lines(taps))
    assert angle_between(measured.direction, torch.tensor([0, 45, 90, 135])).max() < 1e-9
    length = math.sqrt((taps**2 - 1) / 12)
    expected = torch.tensor([1, math.sqrt(2), 1, math.sqrt(2)], dtype=torch.float64) * length
    torch.testing.assert_close(measured.length, expected)
    torch.testing.assert_close(measured.rms_radius, expected)
    torch.testing.assert_close(measured.energy, torch.full((4,), taps**-0.5, dtype=torch.float64))
    torch.testing.assert_close(shake.severity(measured.rms_radius), 1 + 99 * expected / 16)


@given(st.floats(-1e-15, 1e-15))
def test_the_direction_stays_below_a_half_turn(tilt):
    kernel = lines(9)[:1]
    kernel[0, RADIUS - 1, RADIUS - 4] += tilt
    assert 0 <= shake.moments(kernel).direction.item() < 180


def test_moments_of_no_motion():
    delta = lines(1)[:1]
    measured = shake.moments(delta)
    assert (measured.length.item(), measured.energy.item(), measured.rms_radius.item()) == (0, 1, 0)
    assert shake.severity(measured.rms_radius).item() == 1


def walk(u, prior):
    """The kernel of one draw, step by step."""
    low, high = prior.steps
    steps = round(low + (high - low) * u[1])
    turn = math.radians(prior.turn[0] + (prior.turn[1] - prior.turn[0]) * u[2])
    stride = prior.stride[0] + (prior.stride[1] - prior.stride[0]) * u[3]
    heading, at, path = 2 * math.pi * u[4], np.zeros(2), []
    for step in range(steps):
        heading += turn * NormalDist().inv_cdf(u[5 + step])
        at = at + stride * np.array([math.cos(heading), math.sin(heading)])
        path.append(at)
    weights = np.array([math.exp(-((i / (steps - 1) - 0.5) ** 2) / (2 * 0.2**2)) for i in range(steps)])
    weights /= weights.sum()
    path = np.array(path) - (np.array(path) * weights[:, None]).sum(axis=0)
    path *= min(1, 15 / np.abs(path).max())
    kernel = np.zeros((TAPS, TAPS))
    for (x, y), weight in zip(path, weights, strict=True):
        for row in range(TAPS):
            for column in range(TAPS):
                near = max(0, 1 - abs(x + RADIUS - column)) * max(0, 1 - abs(y + RADIUS - row))
                kernel[row, column] += weight * near
    return kernel


@pytest.mark.parametrize("prior", [ShakePrior(), ShakePrior(steps=(40, 64), stride=(2, 4), turn=(0, 5))])
def test_a_kernel_is_its_gaussian_weighted_walk(prior):
    u = draws(3, seed=4)
    kernels = prior.sample(u).kernel
    for row, kernel in zip(u.tolist(), kernels, strict=True):
        np.testing.assert_allclose(kernel, walk(row, prior), rtol=0, atol=1e-9)


@pytest.mark.parametrize("prior", [ShakePrior(), ShakePrior(steps=(2, 64), stride=(2, 4), turn=(0, 5))])
def test_single_precision_draws_the_same_kernels(prior):
    u = draws(200, seed=5)
    kernels = prior.sample(u.float()).kernel
    assert kernels.dtype == torch.float32
    torch.testing.assert_close(kernels.double(), prior.sample(u).kernel, rtol=0, atol=1e-4)


def test_a_longer_stride_scores_higher():
    u = draws(20, seed=1)
    strides = (0.05, 0.1, 0.2, 0.4, 0.8)
    kernels = [ShakePrior(1, (32, 32), (stride, stride), (2, 10)).sample(u).kernel for stride in strides]
    scores = torch.stack([shake.severity(shake.moments(kernel).rms_radius) for kernel in kernels])
    assert (scores.diff(dim=0) > 0).all()


@given(st.tuples(st.floats(0, 40), st.floats(0, 40)).map(sorted))
def test_a_larger_radius_never_scores_less(radii):
    less, more = shake.severity(torch.tensor(radii, dtype=torch.float64)).tolist()
    assert 1 <= less <= more <= 100


def asymmetric(radius):
    kernel = torch.zeros(TAPS, TAPS, dtype=torch.float64)
    inner = torch.arange(1, (2 * radius + 1) ** 2 + 1, dtype=torch.float64).view(2 * radius + 1, -1) ** 2
    kernel[RADIUS - radius : RADIUS + radius + 1, RADIUS - radius : RADIUS + radius + 1] = inner / inner.sum()
    return kernel


def test_blur_is_a_true_convolution_with_reflected_borders():
    image = torch.rand(2, 2, 18, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernels = torch.stack([asymmetric(1), asymmetric(2)])
    blurred = shake.blur(image, kernels)
    for i, radius in enumerate((1, 2)):
        for c in range(2):
            padded = np.pad(image[i, c].numpy(), radius, mode="reflect")
            expected = np.zeros((18, 21))
            for y in range(18):
                for x in range(21):
                    for dy in range(-radius, radius + 1):
                        for dx in range(-radius, radius + 1):
                            weight = kernels[i, RADIUS + dy, RADIUS + dx].item()
                            expected[y, x] += weight * padded[y + radius - dy, x + radius - dx]
            np.testing.assert_allclose(blurred[i, c], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "mode"),
    [((40, 33), "mirror"), ((17, 17), "mirror"), ((16, 30), "nearest"), ((3, 5), "nearest"), ((1, 1), "nearest")],
)
def test_blur_by_a_sampled_kernel_is_that_of_scipy(size, mode):
    image = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernels = ShakePrior().sample(draws(3, seed=2)).kernel
    blurred = shake.blur(image, kernels)
    for i in range(3):
        for c in range(3):
            expected = ndimage.convolve(image[i, c].numpy(), kernels[i].numpy(), mode=mode)
            np.testing.assert_allclose(blurred[i, c], expected, rtol=0, atol=1e-12)


def test_a_single_bright_pixel_becomes_the_kernel():
    image = torch.zeros(1, 1, 65, 65, dtype=torch.float64)
    image[0, 0, 32, 32] = 1
    kernel = ShakePrior().sample(draws(1)).kernel
    torch.testing.assert_close(shake.blur(image, kernel)[0, :, 16:49, 16:49], kernel)


def test_a_photo_without_shake_is_untouched_to_the_bit():
    image = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    applied = shake.apply(image, ShakeParams(torch.tensor([False, True, False]), ShakePrior().sample(draws(3)).kernel))
    assert applied.image[::2].equal(image[::2])
    assert not applied.image[1].equal(image[1])
    assert applied.present.tolist() == [False, True, False]


@pytest.mark.parametrize(("preset", "off", "farthest"), [("paper", 1, 8), ("light", 8, 15)])
def test_the_gaussian_kernel_has_what_is_asked_of_it_over_the_prior(preset, off, farthest):
    asked = shake.moments(presets.load(preset).shake.sample(draws(300)).kernel)
    kernel = shake.gaussian_kernel(asked.direction, asked.length, asked.energy)
    found = shake.moments(kernel)
    torch.testing.assert_close(kernel.sum(dim=(1, 2)), torch.ones(300, dtype=torch.float64))
    length, energy = found.length / asked.length - 1, found.energy / asked.energy - 1
    direction = angle_between(found.direction, asked.direction)
    # The directions that are further off are of blurs but a pixel or two wide.
    for error, usual, worst in ((length, 0.001, 0.01), (energy, 0.001, 0.01), (direction, off, farthest)):
        assert error.abs().quantile(0.95) < usual
        assert error.abs().max() < worst
    # The radius is not asked for: a walk with the same three numbers has its mass elsewhere.
    assert (shake.severity(found.rms_radius) - shake.severity(asked.rms_radius)).abs().quantile(0.95) < 4


@pytest.mark.parametrize("numbers", [(30, 0.3, 0.9), (133, 0.4, 0.709), (90, 0.3, 0.9), (0, 0.5, 0.6)])
def test_a_kernel_shorter_than_a_pixel_has_its_length_too(numbers):
    asked = torch.tensor([numbers], dtype=torch.float64).T
    found = shake.moments(shake.gaussian_kernel(*asked))
    assert found.length.item() == pytest.approx(numbers[1], rel=0.01)
    assert found.energy.item() == pytest.approx(numbers[2], rel=0.02)


@pytest.mark.parametrize("direction", [0, 30, 45, 90, 120, 179])
@pytest.mark.parametrize(("length", "width"), [(2.0, 1.0), (5.0, 0.8), (4.0, 3.0)])
def test_the_gaussian_kernel_points_where_it_should(direction, length, width):
    numbers = torch.tensor([[direction, length, 1 / math.sqrt(4 * math.pi * length * width)]], dtype=torch.float64).T
    kernel = shake.gaussian_kernel(*numbers)
    found_direction, found_length, found_energy, _ = numpy_moments(kernel[0].numpy())
    assert angle_between(torch.tensor(found_direction), numbers[0]).item() < 0.5
    assert found_length == pytest.approx(length, rel=0.01)
    assert found_energy == pytest.approx(numbers[2].item(), rel=0.01)
    assert kernel.flip((1, 2)).sub(kernel).abs().max() < 1e-12


@given(st.floats(0, 180), st.floats(0, 64), st.floats(0, 1))
def test_whatever_is_asked_the_gaussian_is_a_kernel(direction, length, energy):
    kernel = shake.gaussian_kernel(*torch.tensor([[direction, length, energy]], dtype=torch.float64).T)
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1)
