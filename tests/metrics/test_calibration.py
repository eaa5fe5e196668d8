import math

import pytest
import torch

from rnr.metrics.calibration import covered, interval_figures, presence_figures, reliability, temperature


def drawn(count, choices, true_temperature, seed=0):
    """Log-probabilities, and choices that come about as if they had been divided by ``true_temperature``."""
    generator = torch.Generator().manual_seed(seed)
    scores = (3 * torch.randn(count, choices, generator=generator, dtype=torch.float64)).log_softmax(dim=1)
    chosen = torch.multinomial((scores / true_temperature).softmax(dim=1), 1, generator=generator).squeeze(1)
    return scores, chosen


def test_presence_by_hand():
    chances = torch.tensor([0.1, 0.8] * 10)
    there = torch.tensor([False, True] * 6 + [False, False] * 2 + [True, False] * 2)  # 2 of the faint ten, 6 of the sure
    found = presence_figures(chances, there)
    assert found.photos == 20
    assert found.brier == pytest.approx((8 * 0.1**2 + 2 * 0.9**2 + 6 * 0.2**2 + 4 * 0.8**2) / 20)
    assert found.brier_of_base_rate == pytest.approx(0.4 * 0.6)
    assert found.ece == pytest.approx((0.1 + 0.2) / 2)
    assert found.ece_by_chance == pytest.approx(math.sqrt(2 / math.pi / 10) * (0.3 + 0.4) / 2)
    bins = reliability(chances, there)
    assert bins.chance.tolist() == pytest.approx([0.1, 0.8]) and bins.share.tolist() == pytest.approx([0.2, 0.6])
    assert bins.photos.tolist() == [10, 10]


def test_who_is_right_about_how_sure_he_is_gets_the_error_of_chance():
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(100, generator=generator)
    found = [presence_figures(chances, torch.rand(100, generator=generator) < chances) for _ in range(400)]
    mean = sum(figures.ece for figures in found) / len(found)
    assert mean == pytest.approx(found[0].ece_by_chance, rel=0.05)


@pytest.mark.parametrize("true", [0.7, 1.0, 2.5])
@pytest.mark.parametrize("choices", [2, 10])
def test_a_temperature_is_found_again(true, choices):
    assert temperature(*drawn(4000, choices, true)) == pytest.approx(true, rel=0.1)
    few = [temperature(*drawn(100, choices, true, seed)) for seed in range(20)]
    assert all(true / 2 < found < true * 2 for found in few)


def test_what_was_not_allowed_changes_no_temperature():
    scores, chosen = drawn(200, 2, 2.0)
    padded = torch.nn.functional.pad(scores, (0, 8), value=float("-inf"))
    assert temperature(padded, chosen) == pytest.approx(temperature(scores, chosen))


def test_temperatures_stay_within_reason():
    sure = torch.tensor([[0.01, 0.99]]).log()
    right, wrong = torch.ones(100, dtype=torch.int64), torch.zeros(100, dtype=torch.int64)
    assert temperature(sure.expand(100, 2), wrong) == pytest.approx(10, rel=0.01)
    assert temperature(torch.tensor([[0.3, 0.7]]).log().expand(100, 2), right) == pytest.approx(0.5, rel=0.01)
    assert 0.8 < temperature(sure.expand(20, 2), right[:20]) < 1, "twenty photos without a mistake are no proof"
    assert temperature(torch.empty(0, 2), right[:0]) == pytest.approx(1, abs=1e-3)


def test_an_interval_of_an_angle_goes_around():
    intervals = torch.tensor([[-10.0, 20.0], [170.0, 200.0], [30.0, 50.0], [30.0, 50.0]])
    truth = torch.tensor([175.0, 10.0, 29.0, 50.0])
    assert covered(intervals, truth, 180).tolist() == [True, True, False, True]
    assert covered(intervals, truth).tolist() == [False, False, False, True]


def test_intervals_beside_the_one_that_never_looks():
    truth = torch.linspace(0, 100, 101)
    found = interval_figures(torch.stack([truth - 5, truth + torch.arange(101) % 2 - 0.5], dim=1), truth, 0.8)
    assert found.numbers == 101
    assert found.covered == pytest.approx(50 / 101)
    assert found.width == pytest.approx(5 - 0.5 + 50 / 101)
    assert found.width_of_rival == pytest.approx(80)
    around = torch.cat([torch.arange(170.0, 180), torch.arange(0.0, 11)])
    assert interval_figures(torch.zeros(21, 2), around, 0.8, 180).width_of_rival == pytest.approx(16, abs=1e-3)


def test_nothing_to_look_at_is_nan():
    none = interval_figures(torch.empty(0, 2), torch.empty(0), 0.9)
    assert none.numbers == 0 and all(math.isnan(x) for x in (none.covered, none.width, none.width_of_rival))
    nobody = presence_figures(torch.empty(0), torch.empty(0, dtype=torch.bool))
    assert nobody.photos == 0 and math.isnan(nobody.brier) and math.isnan(nobody.ece)
