import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rnr.degradation import noise
from rnr.degradation.noise import NoiseParams, NoisePrior


def params(k, b, seed=0, present=True, count=1):
    column = [torch.full((count,), value, dtype=torch.float64) for value in (k, b)]
    return NoiseParams(torch.full((count,), present), *column, torch.full((count,), seed))


def paper(image, k, b):
    """A.2 in float64: sigma(x) on the scale of [0, 1], its mean square over pixels and channels, and s_noise."""
    sigma = np.array([max(k * (255 * x) + b, 0) / 255 for x in image.double().flatten().tolist()])
    variance = (sigma**2).mean()
    return sigma.reshape(image.shape), variance, min(variance / 0.05 * 99 + 1, 100)


@pytest.mark.parametrize(("k", "b"), [(0.0, 20.0), (0.3, 20.0), (0.3, -20.0), (0.1, -5.0), (0.17, 3.0), (0.0, 5.0)])
def test_deviation_and_score_are_those_of_the_paper(k, b):
    image = torch.rand(1, 3, 7, 11, generator=torch.Generator().manual_seed(0))
    sigma, _, score = paper(image, k, b)
    drawn = params(k, b)
    np.testing.assert_allclose(noise.sigma(image, drawn.k.float(), drawn.b.float()), sigma, rtol=0, atol=1e-7)
    assert noise.apply(image, drawn).severity.item() == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(("variance", "score"), [(0.0, 1), (0.05, 100), (0.025, 50.5), (0.2, 100)])
def test_the_score_of_a_mean_variance(variance, score):
    assert noise.severity(torch.tensor([variance], dtype=torch.float64)).item() == pytest.approx(score)


@pytest.mark.parametrize("level", [64, 128, 160])
@pytest.mark.parametrize(("k", "b"), [(0.1, 5.0), (0.0, 12.0), (0.2, -8.0)])
def test_what_is_added_is_normal_with_the_stated_deviation(level, k, b):
    image = torch.full((1, 3, 64, 64), level / 255)
    added = (noise.apply(image, params(k, b, seed=level)).image - image).double().flatten()
    deviation = (k * level + b) / 255
    assert added.std().item() == pytest.approx(deviation, rel=0.03)
    assert abs(added.mean().item()) < 4 * deviation / len(added) ** 0.5
    assert stats.kstest(added / deviation, "norm").pvalue > 0.001


def test_neighbours_and_channels_are_independent():
    field = noise.field([5], torch.zeros(1, 3, 64, 64))[0]
    pairs = [(field[:, 1:], field[:, :-1]), (field[:, :, 1:], field[:, :, :-1]), (field[0], field[1])]
    for a, b in pairs:
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.05


def test_the_seed_alone_decides_the_field():
    like = torch.zeros(3, 3, 8, 8)
    a, b, c = noise.field([1, 2, 1], like)
    assert a.equal(c)
    assert not a.equal(b)
    assert noise.field([2], like[:1])[0].equal(b)


@pytest.mark.parametrize(("k", "b"), [(0.0, 0.0), (0.0, -20.0), (0.05, -20.0), (0.0, 0.2)])
def test_noise_too_faint_for_eight_bit_is_absent_and_not_applied(k, b):
    image = torch.full((1, 3, 8, 8), 0.5)
    applied = noise.apply(image, params(k, b))
    assert not applied.present
    assert applied.image.equal(image)


def test_noise_just_visible_is_present():
    image = torch.full((1, 3, 8, 8), 0.5)
    assert noise.apply(image, params(0.0, 0.3)).present


def test_a_photo_without_noise_is_untouched_to_the_bit():
    image = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = params(0.2, 10.0, count=3)
    applied = noise.apply(image, NoiseParams(torch.tensor([False, True, False]), drawn.k, drawn.b, drawn.seed))
    assert applied.image[::2].equal(image[::2])
    assert not applied.image[1].equal(image[1])


def test_the_result_is_clipped():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    noisy = noise.apply(image, params(0.3, 20.0)).image
    assert (noisy.min().item(), noisy.max().item()) == (0, 1)


strengths = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@given(strengths, strengths.map(lambda pair: [198 * value - 99 for value in pair]), st.integers(0, 10**6))
def test_more_noise_never_scores_less(ks, bs, seed):
    image = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    less, more = (noise.apply(image, params(k, b)).severity.item() for k, b in zip(ks, bs, strict=True))
    assert 1 <= less <= more + 1e-4
    assert more <= 100


def test_the_prior_draws_from_the_papers_ranges():
    u = torch.rand(5000, NoisePrior.draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = NoisePrior().sample(u)
    for values, low, high in ((drawn.k, 0, 0.3), (drawn.b, -20, 20)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
    assert len(drawn.seed.unique()) > 4990
