import math

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from rnr.metrics.calibration import (
    area_under_roc,
    covered,
    interval_figures,
    margin,
    presence_figures,
    reliability,
    temperature,
)


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


def test_area_under_roc_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    chances = torch.randint(0, 20, (200,), generator=generator) / 20  # with ties
    there = torch.rand(200, generator=generator) < chances
    assert area_under_roc(chances, there) == pytest.approx(binary_auroc(chances, there.int()).item(), abs=1e-6)


def test_within_a_photo_only_its_own_pairs_count():
    chances = torch.tensor([0.2, 0.1, 0.9, 0.8, 0.5, 0.5])
    there = torch.tensor([True, False, True, False, True, False])
    photo = torch.tensor([0, 0, 1, 1, 2, 2])
    assert area_under_roc(chances, there, photo) == pytest.approx(2.5 / 3)
    assert area_under_roc(chances, there) == pytest.approx((1 + 3 + 1.5) / 9), "0.2 is below what others have by themselves"
    assert math.isnan(area_under_roc(chances, there, torch.arange(6))), "no photo has both"


def test_equal_chances_are_as_good_in_any_order():
    half, there = torch.full((100,), 0.5), torch.arange(100) < 50
    assert presence_figures(half, there).ece == presence_figures(half, there.flip(0)).ece == 0


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


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
def test_with_its_margin_as_many_of_other_numbers_are_covered_as_should_be(share):
    generator = torch.Generator().manual_seed(0)

    def told(count):
        truth = 50 + 10 * torch.randn(count, generator=generator)
        middle = truth + 2 * torch.randn(count, generator=generator)
        return torch.stack([middle - 1, middle + 1], dim=1), truth

    found = [margin(*told(99), share) for _ in range(200)]
    intervals, truth = told(10_000)
    outwards = torch.tensor([-1.0, 1.0])
    shares = [covered(intervals + each * outwards, truth).double().mean().item() for each in found]
    assert sum(shares) / len(shares) == pytest.approx(share, abs=0.01), "as conformal prediction has it"
    normal = torch.distributions.Normal(0, 2).icdf(torch.tensor((1 + share) / 2)).item()
    assert sum(found) / len(found) == pytest.approx(normal - 1, abs=0.1)


@pytest.mark.parametrize("period", [None, 180])
def test_of_printed_numbers_no_fewer_are_covered_than_the_margin_says(period):
    generator = torch.Generator().manual_seed(0)
    truth = (100 * torch.rand(400, generator=generator, dtype=torch.float64)).round() / 100
    middle = ((truth + 0.05 * torch.randn(400, generator=generator)) * 100).round() / 100
    intervals, outwards = torch.stack([middle - 0.03, middle + 0.03], dim=1), torch.tensor([-1.0, 1.0])
    for share in (0.5, 0.8, 0.9):
        moved = intervals + margin(intervals, truth, share, period) * outwards
        assert covered(moved, truth, period).sum() >= math.ceil(401 * share)


def test_margins_of_few_numbers_and_of_angles():
    around = torch.tensor([[170.0, 190.0], [-10.0, 10.0], [20.0, 40.0]])
    assert margin(around, torch.tensor([15.0, 160.0, 30.0]), 0.5, 180) == pytest.approx(5), "the second of three"
    assert margin(around, torch.tensor([15.0, 160.0, 30.0]), 0.9, 180) == pytest.approx(10), "four would be needed"
    assert margin(around, torch.tensor([180.0, 0.0, 30.0]), 0.9, 180) == pytest.approx(-10), "all in the middle"
    assert margin(around, torch.tensor([15.0, 160.0, 30.0]), 0.9) == pytest.approx(155)
    assert margin(torch.empty(0, 2), torch.empty(0), 0.9) == 0


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
