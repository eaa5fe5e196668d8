import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnr.degradation import fog
from rnr.degradation.fog import FogParams, FogPrior

PHOTOS = 3


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(PHOTOS, 3, 9, 13, generator=generator)
    depth = torch.rand(PHOTOS, 1, 9, 13, generator=generator)
    depth[:, :, 0], depth[:, :, -1] = 1, 0
    light = 0.7 + 0.3 * torch.rand(PHOTOS, 3, generator=generator)
    return image, depth, light, torch.tensor([0.8, 1.7, 3.0])


def paper(image, depth, light, beta):
    """A.2 for one photo, in float64: the foggy photo, t(x), t_mean and s_fog."""
    _, height, width = image.shape
    t, foggy = np.zeros((height, width)), np.zeros((3, height, width))
    for y in range(height):
        for x in range(width):
            t0 = math.exp(-float(depth[0, y, x]))
            t[y, x] = min(max(t0 ** float(beta), 0.05), 1.0)
            for c in range(3):
                foggy[c, y, x] = float(image[c, y, x]) * t[y, x] + float(light[c]) * (1 - t[y, x])
    mean = t.sum() / (height * width)
    return foggy, t, mean, (1 - mean) / (1 - 0.05) * 99 + 1


def test_the_foggy_photo_its_transmission_and_its_score_are_those_of_the_paper(scene):
    image, depth, light, beta = scene
    applied = fog.apply(image, depth, FogParams(torch.ones(PHOTOS, dtype=torch.bool), light, beta))
    for i in range(PHOTOS):
        foggy, t, mean, score = paper(image[i], depth[i], light[i], beta[i])
        np.testing.assert_allclose(applied.image[i], foggy, rtol=0, atol=1e-6)
        np.testing.assert_allclose(fog.transmission(depth, beta)[i, 0], t, rtol=0, atol=1e-6)
        assert applied.parameters["transmission"][i].item() == pytest.approx(mean, abs=1e-6)
        assert applied.severity[i].item() == pytest.approx(score, abs=1e-4)
    assert applied.parameters["atmospheric_light"].equal(light)


@pytest.mark.parametrize(
    ("depth", "beta", "t"),
    [(0, 3, 1), (1, 0, 1), (1, 1, math.exp(-1)), (1, 2.99, math.exp(-2.99)), (1, 3, 0.05), (1, 20, 0.05)],
)
def test_transmission_is_clamped_where_the_largest_beta_meets_the_far_end(depth, beta, t):
    far = torch.full((1, 1, 2, 2), float(depth), dtype=torch.float64)
    assert fog.transmission(far, torch.tensor([beta], dtype=torch.float64)).unique().tolist() == [
        pytest.approx(t, abs=1e-12)
    ]


@pytest.mark.parametrize(("mean", "score"), [(1.0, 1), (0.05, 100), (0.525, 50.5)])
def test_the_score_of_a_mean_transmission(mean, score):
    assert fog.severity(torch.tensor([mean], dtype=torch.float64)).item() == pytest.approx(score)


@given(st.tuples(st.floats(0, 20), st.floats(0, 20)).map(sorted), st.integers(0, 10**6))
def test_more_fog_never_scores_less(betas, seed):
    depth = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).expand(
        2, -1, -1, -1
    )
    less, more = fog.severity(fog.transmission(depth, torch.tensor(betas, dtype=torch.float64)).mean(dim=(1, 2, 3)))
    assert 1 <= less <= more <= 100


@given(st.floats(0.01, 20), st.integers(0, 10**6))
def test_beta_for_inverts_the_mean_transmission(beta, seed):
    depth = torch.rand(1, 1, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean = fog.transmission(depth, torch.tensor([beta], dtype=torch.float64)).mean(dim=(1, 2, 3))
    found = fog.beta_for(depth, mean)
    assert fog.transmission(depth, found).mean().item() == pytest.approx(mean.item(), abs=1e-12)
    if beta * depth.min() < 2.9:  # some pixel is not clamped, so only one beta has this mean
        assert found.item() == pytest.approx(beta, rel=1e-6)


@pytest.mark.parametrize(("depth", "mean", "beta"), [(0.5, 1.0, 0), (0.0, 0.5, 1000), (0.5, 0.01, 1000)])
def test_beta_for_at_the_ends(depth, mean, beta):
    found = fog.beta_for(
        torch.full((1, 1, 2, 2), depth, dtype=torch.float64), torch.tensor([mean], dtype=torch.float64)
    )
    assert found.item() == pytest.approx(beta, abs=1e-9)


def test_a_photo_without_fog_is_untouched_to_the_bit(scene):
    image, depth, light, beta = scene
    applied = fog.apply(image, depth, FogParams(torch.tensor([False, True, False]), light, beta))
    assert applied.present.tolist() == [False, True, False]
    assert applied.image[::2].equal(image[::2])
    assert not applied.image[1].equal(image[1])


def test_the_prior_draws_from_the_papers_ranges():
    u = torch.rand(5000, FogPrior.draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = FogPrior().sample(u)
    for values, low, high in ((drawn.beta, 0.8, 3.0), (drawn.atmospheric_light, 0.7, 1.0)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.02)
    assert drawn.present.double().mean().item() == pytest.approx(0.75, abs=0.02)
    assert torch.corrcoef(drawn.atmospheric_light.T).triu(1).abs().max() < 0.05
