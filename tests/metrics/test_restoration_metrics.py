import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rnr.metrics.restoration import MAX_PSNR, as_saved, psnr, ssim


def photos():
    """(6, 3, 61, 83) restored and clean: a photo and noise, each harmed by noise, an offset and a contrast."""
    generator = torch.Generator().manual_seed(0)
    photo = torch.from_numpy(data.astronaut()[100:161, 180:263].copy()).permute(2, 0, 1) / 255
    clean = torch.stack([photo, torch.rand(photo.shape, generator=generator)])
    noise = 0.05 * torch.randn(clean.shape, generator=generator)
    return torch.cat([clean + noise, clean + 0.2, clean * 0.4 + 0.3]), clean.repeat(3, 1, 1, 1)


def through_png(image):
    """(H, W, 3) uint8, as really saved and read again."""
    buffer = io.BytesIO()
    array = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(buffer, "png")
    return np.asarray(Image.open(buffer))


def test_psnr_is_that_of_the_saved_photos():
    restored, clean = photos()
    expected = [
        peak_signal_noise_ratio(through_png(a), through_png(b), data_range=255)
        for a, b in zip(clean, restored, strict=True)
    ]
    np.testing.assert_allclose(psnr(restored, clean), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(61, 83), (11, 83), (11, 11)])
def test_ssim_is_that_of_the_saved_photos(height, width):
    restored, clean = (images[..., :height, :width] for images in photos())
    expected = [
        structural_similarity(
            through_png(a), through_png(b), data_range=255, channel_axis=2,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(clean, restored, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(restored, clean), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_a_figure_is_the_same_where_a_model_computes_in_bfloat16(figure):
    with torch.autocast("cpu", torch.bfloat16):
        mixed = figure(*photos())
    torch.testing.assert_close(mixed, figure(*photos()), rtol=0, atol=0)


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_a_figure_does_not_depend_on_the_rest_of_the_batch(figure):
    restored, clean = photos()
    alone = torch.cat([figure(restored[i : i + 1], clean[i : i + 1]) for i in range(len(clean))])
    torch.testing.assert_close(figure(restored, clean), alone)
    assert alone.shape == (6,)


@pytest.fixture
def half_by_default():
    """As Lightning's bf16-true has it around every step."""
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_nor_on_torchs_default_type(figure, request):
    clean = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    expected = figure(0.9 * clean, clean)
    request.getfixturevalue("half_by_default")
    assert figure(0.9 * clean, clean).equal(expected)
    assert torch.get_default_dtype() == torch.bfloat16


def test_equal_photos():
    _, clean = photos()
    assert (psnr(clean, clean) == MAX_PSNR).all()
    torch.testing.assert_close(ssim(clean, clean), torch.ones(6))


def test_one_level_off_in_every_value_is_the_textbook_figure():
    clean = torch.full((1, 3, 16, 16), 100 / 255)
    assert psnr(clean + 1 / 255, clean).item() == pytest.approx(20 * np.log10(255), abs=1e-4)


def test_what_eight_bit_cannot_hold_does_not_count():
    _, clean = photos()
    clean = as_saved(clean)
    assert (psnr(clean + 0.4 / 255, clean) == MAX_PSNR).all()
    white = torch.ones(1, 3, 16, 16)
    assert psnr(white + 3, white).item() == MAX_PSNR


def test_as_saved_is_what_png_holds():
    restored, _ = photos()
    for image in restored:
        expected = torch.from_numpy(through_png(image).copy()).permute(2, 0, 1) / 255
        torch.testing.assert_close(as_saved(image), expected, rtol=0, atol=0)
    assert as_saved(as_saved(restored)).equal(as_saved(restored))


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_half_precision_is_read_as_what_it_holds(figure):
    restored, clean = (images.bfloat16() for images in photos())
    torch.testing.assert_close(figure(restored, clean), figure(restored.float(), clean.float()))


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_a_broken_photo_gives_no_figure(figure):
    restored, clean = photos()
    restored[2, 1, 30, 30] = torch.nan
    assert figure(restored, clean).isnan().tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("size", [(10, 64), (64, 10), (1, 1)])
def test_ssim_refuses_photos_smaller_than_its_window(size):
    image = torch.zeros(1, 3, *size)
    with pytest.raises(ValueError, match=f"at least 11 x 11 pixels, got {size[0]} x {size[1]}"):
        ssim(image, image)
    assert psnr(image, image).item() == MAX_PSNR


@pytest.mark.parametrize("figure", [psnr, ssim])
def test_nonsense_is_refused(figure):
    image = torch.zeros(2, 3, 16, 16)
    for other in (image[:1], image[..., :15], image[0], image[:, :1]):
        with pytest.raises(ValueError, match=r"must both be \(B, 3, H, W\)"):
            figure(other, image)
    with pytest.raises(ValueError, match=r"must both be \(B, 3, H, W\)"):
        figure(image[:, :1], image[:, :1])
    with pytest.raises(ValueError, match=r"must be floats in \[0, 1\], got torch\.uint8"):
        figure(image.byte(), image.byte())
