import math

import pytest
import torch

from rnr.metrics.audit import best_of, over_photos, rank_correlations, versions


def test_rank_correlations_by_hand():
    scores = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [10, 1000, 30, 20], [5, 5, 5, 5], [1, 2, math.nan, 4]])
    qualities = torch.tensor([[10.0, 20, 21, 90], [4, 3, 2, 1], [1, 4, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]])
    found = rank_correlations(scores, qualities)
    # 1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 0, 1, 1) in the third
    assert found[:3].tolist() == pytest.approx([1, -1, 1 - 6 * 2 / 60])
    assert found[3:].isnan().all()
    with pytest.raises(ValueError, match="both must be"):
        rank_correlations(scores, qualities[:, :3])


def test_best_of_by_hand():
    scores = torch.tensor([[0.0, 5, 1, 9], [3, math.nan, 2, 1], [math.nan] * 4])
    qualities = torch.tensor([[20.0, 18, 25, 22], [10, 30, 11, 12], [7, 8, 9, 6]])
    two, four = best_of(scores, qualities, ["a", "b", "b"], [2, 4])
    assert (two.first, two.picked, two.oracle) == pytest.approx((37 / 3, 35 / 3, 58 / 3))
    assert (four.picked, four.oracle) == pytest.approx((39 / 3, 64 / 3))
    assert (four.gain.mean, four.gain.n) == (1.0, 2), "a photo counts once"


def test_what_is_not_finite_is_never_picked():
    scores = torch.tensor([[1.0, math.inf, 2], [math.nan, -math.inf, math.nan]])
    qualities = torch.tensor([[10.0, 0, 20], [5, 0, 0]])
    assert best_of(scores, qualities, ["a", "b"], [3])[0].picked == pytest.approx(12.5)


def test_several_draws_of_a_photo_count_by_their_mean():
    assert over_photos(torch.tensor([1.0, 5, 3, math.nan, math.inf]), ["a", "b", "a", "a", "c"]) == [2, 5]


def test_versions_are_photos_of_one_size_and_what_they_are_called(photo):
    clean, other = photo[None], photo[None, :, :50, :90].flip(1)
    asked = versions(clean, 0.5 * clean + 0.4, 0.9 * clean, other)
    assert all(image.shape == clean.shape and 0 <= image.min() <= image.max() <= 1 for image in asked.values())

    def roughness(name):
        return asked[name].diff(dim=-1).abs().mean()

    assert torch.equal(asked["another scene, clean"][..., :50, :], other[..., :64])
    assert asked["constant"].std(dim=(2, 3)).max() < 1e-6
    assert roughness("restored, over-smoothed") < roughness("restored") < roughness("restored, over-sharpened")
    assert roughness("clean, blurred") < roughness("clean")
