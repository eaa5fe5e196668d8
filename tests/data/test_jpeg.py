"""Photos that were saved as JPEG, held against libjpeg."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rnr.data.jpeg import Jpeg, compressed
from rnr.data.photos import open_photo, shipped_photos


@pytest.fixture(scope="module")
def photo():
    pixels = open_photo(shipped_photos("test")[0].path)[:200, :150]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def libjpeg(photo, quality):
    file = io.BytesIO()
    pixels = (photo[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_it_does_to_a_photo_what_libjpeg_does(photo, quality):
    ours, theirs = compressed(photo, torch.tensor([float(quality)])), libjpeg(photo, quality)
    assert ours.shape == photo.shape
    lost = (theirs - photo).square().mean()
    assert (ours - theirs).square().mean() < 0.2 * lost
    assert (ours - photo).square().mean() == pytest.approx(lost.item(), rel=0.2)


def test_a_share_of_the_photos_is_saved_each_by_its_own_seed(photo):
    images, seeds = photo[..., :48, :48].expand(120, -1, -1, -1), list(range(120))
    saved = Jpeg(share=0.3).apply(images, seeds)
    changed = (saved != images).flatten(1).any(dim=1)
    assert changed.double().mean().item() == pytest.approx(0.3, abs=0.1)
    assert torch.equal((saved * 255).round() / 255, saved)
    torch.testing.assert_close(Jpeg(share=0.3).apply(images[:20], seeds[100:]), saved[100:], atol=1 / 255, rtol=0)
    assert Jpeg().apply(images, seeds) is images


@pytest.mark.parametrize("arguments", [{"share": 1.2}, {"quality": (0, 90)}, {"quality": (90, 50)}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"jpeg\."):
        Jpeg(**arguments)
