"""Photos that were saved as JPEG, held against a file."""

import pytest
import torch
from PIL import Image

from rnr.data.jpeg import SUBSAMPLINGS, Jpeg, compressed
from rnr.data.photos import open_photo, shipped_photos


@pytest.fixture(scope="module")
def photo():
    pixels = open_photo(shipped_photos("test")[0].path)[:200, :150]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [30, 92])
@pytest.mark.parametrize(("height", "width"), [(200, 150), (1, 1), (17, 3)])
def test_it_does_to_a_photo_what_a_file_does(photo, quality, subsampling, height, width, tmp_path):
    part = photo[0, :, :height, :width]
    pixels = (part * 255).round().byte().permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.jpg", quality=quality, subsampling=subsampling)
    read = torch.from_numpy(open_photo(tmp_path / "photo.jpg")).permute(2, 0, 1) / 255
    torch.testing.assert_close(compressed(part, quality, subsampling), read, atol=0, rtol=0)


def test_a_share_of_the_photos_is_saved_each_by_its_own_seed(photo):
    images, seeds = photo[..., :48, :48].expand(120, -1, -1, -1), list(range(120))
    before = images.clone()
    saved = Jpeg(share=0.3).apply(images, seeds)
    changed = (saved != images).flatten(1).any(dim=1)
    assert changed.double().mean().item() == pytest.approx(0.3, abs=0.1) and torch.equal(images, before)
    assert torch.equal((saved * 255).round() / 255, saved)
    assert torch.equal(Jpeg(share=0.3).apply(images[:20], seeds[100:]), saved[100:])
    assert Jpeg().apply(images, seeds) is images


def test_quality_and_colors_are_drawn(photo, monkeypatch):
    drawn = []
    monkeypatch.setattr("rnr.data.jpeg.compressed", lambda image, *how: drawn.append(how) or image)
    Jpeg(1.0, (40, 60), ("4:4:4", "4:2:0")).apply(photo.expand(60, -1, -1, -1), list(range(60)))
    qualities, colors = zip(*drawn, strict=True)
    assert min(qualities) < 45 and max(qualities) > 55 and all(40 <= quality <= 60 for quality in qualities)
    assert 15 < colors.count("4:4:4") < 45 and set(colors) == {"4:4:4", "4:2:0"}


@pytest.mark.parametrize(
    "arguments",
    [{"share": 1.2}, {"quality": (0, 90)}, {"quality": (90, 50)}, {"subsampling": ("4:1:1",)}, {"subsampling": ()}],
)
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"jpeg\."):
        Jpeg(**arguments)
