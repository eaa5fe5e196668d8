import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rnr.degradation import rain
from rnr.degradation.rain import RainParams, RainPrior


def params(count=1, seed=0, **changes):
    values = {"density": 0.02, "slant": 20.0, "length": 9.0, "width": 1.5, "opacity": 0.6} | changes
    numbers = {key: torch.full((count,), value, dtype=torch.float64) for key, value in values.items()}
    color = torch.tensor([[0.9, 0.8, 0.7]], dtype=torch.float64).expand(count, 3)
    return RainParams(torch.ones(count, dtype=torch.bool), **numbers, color=color, seed=torch.arange(count) + seed)


def image(count=1, height=24, width=31):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def stroke(right, up, slant, length, width):
    """The streak's value at an offset from its seed: 1 inside, falling to 0 over a pixel at the rim."""
    turn = math.radians(slant)
    toward = np.array([math.sin(turn), math.cos(turn)])
    along = abs(np.dot([right, up], toward))
    across = abs(np.linalg.det([[right, up], toward]))
    return np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(width / 2 + 0.5 - across, 0, 1)


def paper(photo, field, slant, length, width, opacity, color):
    """A.2 for one photo: seeds, each drawn out into a streak, laid over the photo; and the share of pixels covered."""
    _, rows, columns = photo.shape
    mask = np.zeros((rows, columns))
    for y, x in np.argwhere(field):
        for row in range(rows):
            for column in range(columns):
                mask[row, column] += stroke(column - x, y - row, slant, length, width)
    alpha = opacity * np.minimum(mask, 1)
    out = photo * (1 - alpha) + np.array(color)[:, None, None] * alpha
    return out, (alpha > 0.05).mean()


@pytest.mark.parametrize(
    "changes",
    [{}, {"slant": -50.0, "width": 3.0}, {"slant": 0.0, "length": 1.0, "width": 0.5}, {"slant": 90.0, "opacity": 1.0}],
    ids=str,
)
def test_streaks_coverage_and_score_are_those_of_the_paper(changes):
    drawn, photo = params(**changes), image()
    applied = rain.apply(photo, drawn)
    field = rain.seeds(drawn.seed.tolist(), drawn.density, 24, 31)[0, 0].bool().numpy()
    assert field.sum() > 3
    numbers = (getattr(drawn, key).item() for key in ("slant", "length", "width", "opacity"))
    expected, coverage = paper(photo[0].double().numpy(), field, *numbers, drawn.color[0].tolist())
    np.testing.assert_allclose(applied.image[0], expected, rtol=0, atol=1e-3)  # masks below 1e-3 are none
    assert applied.severity.item() == pytest.approx(coverage * 99 + 1, abs=1e-4)


def single(slant, length=15.0, width=1.0):
    return rain.line(*(torch.tensor([value], dtype=torch.float64) for value in (slant, length, width)))[0]


@pytest.mark.parametrize(("slant", "column"), [(0, 0), (30, 3), (-30, -3)])
def test_a_positive_slant_leans_to_the_right_at_the_top(slant, column):
    kernel = single(float(slant))
    middle = kernel.shape[0] // 2
    above, below = kernel[middle - 5], kernel[middle + 5]
    assert above.argmax().item() - middle == column
    assert below.argmax().item() - middle == -column


@pytest.mark.parametrize(("length", "width"), [(1, 1), (10, 1), (20.5, 2.5), (32, 9), (64, 0.5)])
def test_a_streak_is_as_long_and_as_wide_as_it_says(length, width):
    kernel = single(0.0, length, width)
    middle = kernel.shape[0] // 2
    # An odd grid sees an even length as one more pixel at half weight at either end, so both sums agree with it.
    peak = min(1, width / 2 + 0.5)
    assert (kernel[:, middle].sum() / peak).item() == pytest.approx(length, abs=0.51)
    assert kernel[middle].sum().item() == pytest.approx(width, abs=0.51)
    assert kernel.max().item() == pytest.approx(peak)
    assert kernel[0].max() == kernel[-1].max() == kernel[:, 0].max() == kernel[:, -1].max() == 0


@pytest.mark.parametrize("density", [0.0, 0.003, 0.1, 1.0])
def test_stamped_streaks_are_those_of_the_convolution(density):
    field = rain.seeds([3], torch.tensor([density], dtype=torch.float64), 21, 34)
    kernel = single(35.0, 17.0, 2.5)
    expected = ndimage.convolve(field[0, 0].numpy(), kernel.numpy(), mode="constant")
    np.testing.assert_allclose(rain.stamped(field[0, 0], kernel), expected, rtol=0, atol=1e-12)


def test_density_is_the_share_of_pixels_that_seed_a_streak():
    field = rain.seeds([1], torch.tensor([0.1]), 200, 200)
    assert field.unique().tolist() == [0, 1]
    assert field.mean().item() == pytest.approx(0.1, abs=0.01)


def test_the_seed_alone_decides_where_streaks_are():
    density = torch.tensor([0.1, 0.1, 0.1])
    a, b, c = rain.seeds([1, 2, 1], density, 20, 20)
    assert a.equal(c)
    assert not a.equal(b)
    assert rain.seeds([2], density[:1], 20, 20)[0].equal(b)


def scores(*variants):
    return [rain.apply(image(), params(**variant)).severity.item() for variant in variants]


pairs = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@settings(max_examples=40)
@given(pairs, pairs, pairs, st.integers(0, 10**6))
def test_denser_longer_and_more_opaque_rain_never_scores_less(densities, lengths, opacities, seed):
    less, more = scores(
        *(
            {"density": d, "length": 1 + 31 * n, "opacity": o, "seed": seed}
            for d, n, o in zip(densities, lengths, opacities, strict=True)
        )
    )
    assert 1 <= less <= more + 1e-4
    assert more <= 100


def test_rain_everywhere_scores_a_hundred_and_shows_its_color():
    drawn = params(density=1.0, opacity=1.0)
    applied = rain.apply(image(), drawn)
    assert applied.severity.item() == pytest.approx(100)
    torch.testing.assert_close(applied.image, drawn.color.float().view(1, 3, 1, 1).expand_as(applied.image))


@pytest.mark.parametrize("changes", [{"opacity": 0.04}, {"opacity": 0.0}, {"density": 0.0}], ids=str)
def test_rain_of_which_no_streak_is_visible_is_absent_and_not_applied(changes):
    photo = image()
    applied = rain.apply(photo, params(**changes))
    assert not applied.present
    assert applied.image.equal(photo)


def test_a_photo_without_rain_is_untouched_to_the_bit():
    photo, drawn = image(3), params(3)
    drawn.present[[0, 2]] = False
    applied = rain.apply(photo, drawn)
    assert applied.present.tolist() == [False, True, False]
    assert applied.image[::2].equal(photo[::2])
    assert not applied.image[1].equal(photo[1])


def test_where_no_streak_is_the_photo_is_untouched_to_the_bit():
    photo, drawn = image(), params(density=0.005)
    applied = rain.apply(photo, drawn)
    untouched = (applied.image == photo).all(dim=1).double().mean().item()
    assert 1 - untouched == pytest.approx((applied.severity.item() - 1) / 99, abs=0.02)
    assert untouched > 0.8


def test_the_prior_draws_density_evenly_over_its_magnitudes():
    u = torch.rand(4000, RainPrior.draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    color = torch.rand(4000, 3)
    drawn = RainPrior(density=(1e-4, 1e-2), slant=(-10, 30)).sample(u, color)
    assert (drawn.density < 1e-3).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert 1e-4 <= drawn.density.min() < drawn.density.max() <= 1e-2
    assert -10 <= drawn.slant.min() < -9.9 < 29.9 < drawn.slant.max() <= 30
    assert drawn.color is color
