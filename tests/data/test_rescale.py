"""Clean training photos at other sizes: how much, how often, and the photo and its depth alike."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from rnr.data.batches import Visit
from rnr.data.dataset import PhotoDataset
from rnr.data.photos import Photo
from rnr.data.rescale import Rescale, resized, source


def drawn(rescale, count=400):
    generator = torch.Generator().manual_seed(0)
    return [rescale.draw(generator) for _ in range(count)]


def test_nothing_is_drawn_where_nothing_is_to_be_rescaled():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert Rescale().draw(generator) == 1
    assert torch.equal(generator.get_state(), before), "batches stay as they were"


def test_factors_are_log_uniform_and_as_many_as_asked_for():
    factors = drawn(Rescale(share=0.75, factor=(0.5, 2.0)))
    others = [factor for factor in factors if factor != 1]
    assert 0.68 < len(others) / len(factors) < 0.82
    assert 0.5 <= min(others) < 0.55 and 1.8 < max(others) <= 2
    assert abs(sum(map(math.log, others)) / len(others)) < 0.08


@pytest.mark.parametrize(
    ("size", "scale", "whole", "cut"),
    [
        ((64, 64), 1.0, (480, 640), (64, 64)),
        ((64, 64), 0.5, (480, 640), (128, 128)),
        ((64, 64), 2.0, (480, 640), (32, 32)),
        ((64, 64), 0.5, (100, 640), (100, 100)),  # no smaller than the photo has room for, and a square still
        ((60, 90), 0.5, (100, 640), (100, 150)),
        ((240, 320), 0.5, (480, 640), (480, 640)),
        ((128, 128), 0.5, (100, 640), (128, 128)),  # continued as ever
        ((1, 1), 4.0, (100, 640), (1, 1)),
        ((600, 800), 1.5, (480, 640), (400, 533)),  # larger than the photo, of which there is enough to be enlarged
        ((320, 320), 1.6, (300, 400), (200, 200)),
        ((600, 800), 1.25, (480, 640), (480, 640)),
        ((600, 800), 1.2, (480, 640), (600, 800)),
    ],
)
def test_what_is_cut_out_to_be_shown_at_another_size(size, scale, whole, cut):
    assert source(size, scale, whole) == cut


def test_photo_and_depth_are_resized_alike(tmp_path):
    columns = np.linspace(0, 255, 96)[None, :, None].repeat(80, 0).repeat(3, 2).astype(np.uint8)
    Image.fromarray(columns).save(tmp_path / "a.png")
    Image.fromarray(columns[..., 0]).save(tmp_path / "depth.png")
    photos = [Photo(tmp_path / "a.png", depth=tmp_path / "depth.png", name="a")]
    photos = PhotoDataset(photos, 0)
    photo, depth, *_ = photos[Visit(0, 0, 32, 0.5)]
    assert photo.shape == (3, 32, 32) and depth.shape == (1, 32, 32) and photo.dtype == depth.dtype == torch.uint8
    slope, before = (shown[0].float().diff(dim=1).mean().abs().item() for shown in (photo, photos[Visit(0, 0, 32)][0]))
    assert slope == pytest.approx(2 * before, rel=0.1)
    assert (photo[0].float() - depth[0].float()).abs().max() <= 2
    again = photos[Visit(0, 0, 32, 0.5)]
    assert torch.equal(photo, again[0]) and not torch.equal(photo, photos[Visit(0, 1, 32, 0.5)][0])
    assert photos[Visit(0, 0, 0, 0.5)][0].shape == (3, 80, 96), "whole photos keep their size"


def test_a_part_of_the_right_size_is_the_same():
    photo, depth = torch.randint(256, (3, 8, 9), dtype=torch.uint8), torch.zeros(1, 8, 9, dtype=torch.uint8)
    assert resized(photo, depth, (8, 9)) == (photo, depth)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"share": 1.5}, r"share must lie within \[0, 1\]"), ({"factor": (2.0, 1.0)}, "factor must be an ordered range")],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Rescale(**wrong)
