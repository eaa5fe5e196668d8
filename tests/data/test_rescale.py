"""Clean training photos at other sizes: how much, how often, and the photo and its depth alike."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from rnr.data.dataset import PhotoDataset, Visit
from rnr.data.photos import Photo
from rnr.data.rescale import Rescale, resized


def drawn(rescale, crop, size, count=400):
    return [rescale.source(crop, *size, torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_nothing_is_drawn_where_nothing_is_to_be_rescaled():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert Rescale().source(64, 480, 640, generator) == 64
    assert torch.equal(generator.get_state(), before), "crops stay where they were"


def test_factors_are_log_uniform_and_as_many_as_asked_for():
    sides = drawn(Rescale(share=0.75, factor=(0.5, 2.0)), 100, (480, 640))
    others = [100 / side for side in sides if side != 100]
    assert 0.68 < len(others) / len(sides) < 0.82
    assert 0.49 < min(others) < 0.55 and 1.8 < max(others) < 2.03
    assert abs(sum(map(math.log, others)) / len(others)) < 0.08


def test_a_photo_is_shown_no_smaller_than_it_can_be():
    assert set(drawn(Rescale(share=1.0, factor=(0.5, 0.5)), 64, (100, 640))) == {100}
    assert set(drawn(Rescale(share=1.0, factor=(0.5, 2.0)), 128, (100, 640))) == {128}, "continued as ever"
    assert set(drawn(Rescale(share=1.0, factor=(4.0, 4.0)), 1, (100, 640))) == {1}


def test_photo_and_depth_are_resized_alike(tmp_path):
    columns = np.linspace(0, 255, 96)[None, :, None].repeat(80, 0).repeat(3, 2).astype(np.uint8)
    Image.fromarray(columns).save(tmp_path / "a.png")
    Image.fromarray(columns[..., 0]).save(tmp_path / "depth.png")
    photos = [Photo(tmp_path / "a.png", depth=tmp_path / "depth.png", name="a")]
    plain, other = (PhotoDataset(photos, 0, rescale=each) for each in (Rescale(), Rescale(1.0, (0.5, 0.5))))
    photo, depth, *_ = other[Visit(0, 0, 32)]
    assert photo.shape == (3, 32, 32) and depth.shape == (1, 32, 32) and photo.dtype == depth.dtype == torch.uint8
    slope, before = (shown[0].float().diff(dim=1).mean().abs().item() for shown in (photo, plain[Visit(0, 0, 32)][0]))
    assert slope == pytest.approx(2 * before, rel=0.1)
    assert (photo[0].float() - depth[0].float()).abs().max() <= 2
    again = other[Visit(0, 0, 32)]
    assert torch.equal(photo, again[0]) and not torch.equal(photo, other[Visit(0, 1, 32)][0])
    assert torch.equal(plain[Visit(0, 0, 0)][0], other[Visit(0, 0, 0)][0]), "whole photos keep their size"


def test_a_square_of_the_right_size_is_the_same():
    photo, depth = torch.randint(256, (3, 8, 8), dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert resized(photo, depth, 8) == (photo, depth)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"share": 1.5}, r"share must lie within \[0, 1\]"), ({"factor": (2.0, 1.0)}, "factor must be an ordered range")],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Rescale(**wrong)
