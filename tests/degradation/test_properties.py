"""What holds for whatever is drawn: scores, kernels, absence, independence of the batch, and what the record says."""

import dataclasses
import math

import numpy as np
import reference
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rnr.degradation import (
    Degradation,
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
from rnr.diagnosis import KINDS
from rnr.diagnosis.truth import degradation, diagnoses

STEP = 1 - 2**-53  # the largest uniform number below 1

seeds = st.integers(0, 2**48)
sides = st.integers(1, 40)


def generators(seed, count):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def scene(seed, count, height, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 4, height, width)
    both = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    return both[:, :3].contiguous(), both[:, 3:].contiguous()


def within(low, high):
    """Ordered ranges within [low, high]."""
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: tuple(sorted(pair)))


shares = st.sampled_from([0.0, 0.3, 0.75, 1.0])
degraders = st.builds(
    Degrader,
    fog=st.builds(FogPrior, shares, within(0, 1), within(0, 20)),
    shake=st.builds(ShakePrior, shares, within(2, 64), within(0.01, 4), within(0, 180)),
    rain=st.builds(RainPrior, shares, within(1e-5, 0.05), within(-90, 90), within(1, 64), within(0.5, 9), within(0, 1)),
    noise=st.builds(NoisePrior, shares, within(0, 1), within(-99, 99)),
)


# Severities

strengths = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


def applied_at(kind, strength, seed):
    """One degradation on a small photo, everything that makes it stronger turned up to ``strength`` in [0, 1]."""
    image, depth = scene(seed, 1, 12, 15, torch.float64)
    here, one = torch.ones(1, dtype=torch.bool), torch.ones(1, dtype=torch.float64)
    if kind == "fog":
        return fog.apply(image, depth, FogParams(here, torch.ones(1, 3, dtype=torch.float64), 20 * strength * one))
    if kind == "shake":
        u = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        kernel = shake.draw(8 * strength * (u - 0.5).cumsum(dim=1), 48 * one)
        return shake.apply(image, ShakeParams(here, kernel))
    if kind == "rain":
        scaled = {"density": 0.1, "length": 63, "width": 8.5, "opacity": 1}
        least = {"length": 1, "width": 0.5}
        numbers = {key: (least.get(key, 0) + most * strength) * one for key, most in scaled.items()}
        drawn = RainParams(here, **numbers, slant=25 * one, color=torch.ones(1, 3), seed=torch.tensor([seed % 2**31]))
        return rain.apply(image, drawn)
    return noise.apply(image, NoiseParams(here, strength * one, (198 * strength - 99) * one, torch.tensor([seed])))


@settings(max_examples=60)
@given(st.sampled_from(KINDS), strengths, seeds)
def test_a_stronger_degradation_never_scores_less(kind, pair, seed):
    less, more = (applied_at(kind, strength, seed).severity.item() for strength in pair)
    assert 1 <= less <= more + 1e-9
    assert more <= 100


@settings(max_examples=60)
@given(degraders, seeds, sides, sides)
def test_scores_lie_within_the_scale_and_photos_within_their_range(degrader, seed, height, width):
    image, depth = scene(seed, 3, height, width)
    degraded = degrader.apply(image, depth, degrader.sample(generators(seed, 3)))
    for step in degraded.steps.values():
        assert step.image.min() >= 0
        assert step.image.max() <= 1
        assert step.severity.min() >= 1
        assert step.severity.max() <= 100
    assert (degraded.severity > 0).equal(degraded.present)


# Kernels


@settings(max_examples=60)
@given(within(2, 64), within(0.01, 4), within(0, 180), st.lists(st.floats(0, STEP), min_size=69, max_size=69))
def test_every_kernel_sums_to_one_is_non_negative_and_centred(steps, stride, turn, u):
    kernel = ShakePrior(1, steps, stride, turn).sample(torch.tensor([u], dtype=torch.float64)).kernel[0]
    offset = torch.arange(-16, 17, dtype=torch.float64)
    assert kernel.shape == (33, 33)
    assert kernel.min() >= 0
    assert abs(kernel.sum() - 1) < 1e-12
    assert abs(kernel.sum(dim=0) @ offset) < 1e-9
    assert abs(kernel.sum(dim=1) @ offset) < 1e-9


# What is drawn


def contains(bounds, values):
    """Up to the last bit: low + (high - low) u may round over the edge by it."""
    low, high = bounds
    slack = 1e-15 * max(abs(low), abs(high))
    return bool(((values >= low - slack) & (values <= high + slack)).all())


@settings(max_examples=60)
@given(degraders, seeds)
def test_what_is_drawn_lies_within_its_priors_ranges(degrader, seed):
    drawn = degrader.sample(generators(seed, 4))
    for kind in ("fog", "rain", "noise"):
        for key in reference.RANGES[kind]:
            bounds, values = getattr(getattr(degrader, kind), key), getattr(getattr(drawn, kind), key)
            assert contains(bounds, values), (kind, key, bounds, values)
    assert drawn.rain.color.equal(drawn.fog.atmospheric_light)
    # A path of n steps of length s reaches no farther than (n - 1) s in all, so its radius is below half of that, but
    # for what splatting a point over four pixels adds: 1/4 an axis at most.
    longest = (round(degrader.shake.steps[1]) - 1) * degrader.shake.stride[1]
    radii = shake.moments(drawn.shake.kernel).rms_radius
    assert (radii <= math.sqrt((longest / 2) ** 2 + 0.5) + 1e-9).all()


@settings(max_examples=100)
@given(degraders, st.floats(0, 1), st.booleans(), seeds)
def test_a_photo_is_left_alone_only_where_clean_says_so(degrader, clean, light, seed):
    chances = torch.tensor([getattr(degrader, kind).probability for kind in KINDS])
    assume(chances.any())
    # A light photo takes one or two out of all four, and so perhaps one that may not occur.
    light = light and bool(chances.all())
    degrader = dataclasses.replace(degrader, clean=clean, light=(1 - clean) / 2 if light else 0.0)
    drawn = degrader.sample(generators(seed, 16))
    present = torch.stack([getattr(drawn, kind).present for kind in KINDS], dim=1)
    is_clean = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators(seed, 16)]) < clean
    assert present.any(dim=1).equal(~is_clean)
    assert not present[:, chances == 0].any()


@settings(max_examples=60)
@given(degraders, seeds)
def test_what_was_drawn_is_recorded_unless_it_is_too_faint_to_see(degrader, seed):
    """Noise below the rounding to 8 bit, and rain of which no streak is visible, are absent and not applied."""
    image, depth = scene(seed, 3, 16, 16, torch.float64)
    drawn = degrader.sample(generators(seed, 3))
    degraded = degrader.apply(image, depth, drawn)
    for i in range(3):
        asked = reference.parameters(drawn, i)
        dry, rainy = (degraded.steps[kind].image[i].permute(1, 2, 0).numpy() for kind in ("shake", "rain"))
        visible = [asked.fog is not None, asked.shake is not None, False, False]
        if asked.rain:
            u = torch.rand(16, 16, generator=torch.Generator().manual_seed(drawn.rain.seed[i].item())).double()
            visible[2] = reference.add_rain(dry, asked.rain, (u < drawn.rain.density[i]).numpy()).severity > 0
        if asked.noise:
            visible[3] = reference.add_noise(rainy, asked.noise, np.zeros_like(rainy)).severity > 0
        assert degraded.present[i].tolist() == visible


# Absence


@settings(max_examples=60)
@given(degraders, seeds, sides, sides)
def test_what_is_recorded_as_absent_leaves_the_photo_to_the_bit(degrader, seed, height, width):
    image, depth = scene(seed, 6, height, width)
    degraded = degrader.apply(image, depth, degrader.sample(generators(seed, 6)))
    before = image
    for step in degraded.steps.values():
        assert step.image[~step.present].equal(before[~step.present])
        before = step.image
    assert degraded.image.equal(before)


# The batch


def rows_of(drawn, rows):
    parts = (getattr(drawn, kind) for kind in KINDS)
    return Degradation(
        *(
            dataclasses.replace(part, **{f.name: getattr(part, f.name)[rows] for f in dataclasses.fields(part)})
            for part in parts
        )
    )


@settings(max_examples=60)
@given(degraders, seeds, sides, sides, st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_a_photo_is_degraded_alike_in_any_company_and_order(degrader, seed, height, width, rows):
    """To the bit. ``rows`` picks photos of a batch of six, some perhaps twice."""
    image, depth = scene(seed, 6, height, width)
    drawn = degrader.sample(generators(seed, 6))
    together = degrader.apply(image, depth, drawn)
    assert degrader.apply(image, depth, drawn).image.equal(together.image)
    again = degrader.sample([generators(seed, 6)[row] for row in rows])
    torch.testing.assert_close(dataclasses.asdict(again), dataclasses.asdict(rows_of(drawn, rows)), rtol=0, atol=0)
    apart = degrader.apply(image[rows], depth[rows], again)
    for kind in KINDS:
        found, expected = apart.steps[kind], together.steps[kind]
        assert found.image.equal(expected.image[rows]), kind
        assert found.present.equal(expected.present[rows])
        torch.testing.assert_close(found.severity, expected.severity[rows], rtol=0, atol=1e-4)


# The record


@settings(max_examples=60)
@given(degraders, seeds, sides, sides)
def test_the_record_reproduces_the_photo(degrader, seed, height, width):
    """From diagnosis, depth and seeds alone, but for the blur: of its kernel the diagnosis knows three numbers only."""
    image, depth = scene(seed, 3, height, width, torch.float64)
    drawn = degrader.sample(generators(seed, 3))
    degraded = degrader.apply(image, depth, drawn)
    stated = degradation(diagnoses(degraded), depth, drawn.rain.seed.tolist())
    stated = dataclasses.replace(stated, noise=dataclasses.replace(stated.noise, seed=drawn.noise.seed))
    exact = dataclasses.replace(stated, shake=dataclasses.replace(stated.shake, kernel=drawn.shake.kernel))
    again = degrader.apply(image, depth, exact)
    assert again.present.equal(degraded.present)
    torch.testing.assert_close(again.image, degraded.image, rtol=0, atol=1e-7)
    torch.testing.assert_close(again.severity, degraded.severity, rtol=0, atol=1e-4)


@settings(max_examples=20)
@given(seeds)
def test_the_record_of_a_blur_reproduces_it_up_to_a_gaussian(photo, depth, seed):
    blurring = Degrader(FogPrior(0), ShakePrior(1), RainPrior(0), NoisePrior(0))
    drawn = blurring.sample(generators(seed, 2))
    image, depth = photo.expand(2, -1, -1, -1), depth.expand(2, -1, -1, -1)
    degraded = blurring.apply(image, depth, drawn)
    again = blurring.apply(image, depth, degradation(diagnoses(degraded), depth, [0, 0]))
    for sharp, asked, found in zip(image, degraded.image, again.image, strict=True):
        assert (found - asked).norm() < 0.6 * (sharp - asked).norm()
