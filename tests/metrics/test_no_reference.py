import pytest
import torch
from kornia.filters import gaussian_blur2d
from skimage import data
from skimage.measure import blur_effect
from skimage.restoration import estimate_sigma

from rnr.metrics.no_reference import no_reference


@pytest.fixture(scope="module")
def photo():
    return torch.from_numpy(data.astronaut()[:256, :256].copy()).permute(2, 0, 1)[None] / 255


def test_figures_are_scikit_images_of_the_saved_photo(photo):
    found = no_reference(photo + 0.3 / 255)
    pixels = data.astronaut()[:256, :256] / 255
    assert found.blur.item() == pytest.approx(blur_effect(pixels, channel_axis=2), abs=1e-4)
    assert found.noise.item() == pytest.approx(estimate_sigma(pixels, average_sigmas=True, channel_axis=2), abs=1e-4)


def test_more_blur_and_more_noise_are_seen(photo):
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    flat = torch.full_like(photo, 0.5)
    blurs = [no_reference(gaussian_blur2d(photo, (25, 25), (s, s))).blur.item() for s in (0.5, 1.5, 4.0)]
    assert blurs == sorted(blurs) and blurs[-1] > blurs[0] + 0.2
    for sigma in (0.02, 0.05, 0.1):
        assert no_reference(flat + sigma * noise).noise.item() == pytest.approx(sigma, rel=0.05)


def test_one_figure_a_photo_whatever_the_batch(photo):
    both = torch.cat([photo, photo.flip(-1) * 0.5])
    together, alone = no_reference(both), [no_reference(each[None]) for each in both]
    assert together.blur.tolist() == [each.blur.item() for each in alone]
    assert together.noise.tolist() == [each.noise.item() for each in alone]


def test_a_channel_without_detail_has_no_noise(photo):
    without_blue = photo * torch.tensor([1.0, 1, 0]).view(3, 1, 1)
    red_and_green = estimate_sigma(data.astronaut()[:256, :256, :2] / 255, channel_axis=2)
    assert no_reference(without_blue).noise.item() == pytest.approx(sum(red_and_green) / 3, abs=1e-4)
    assert no_reference(torch.zeros_like(photo)).noise.item() == 0


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 15, 32)])
def test_nonsense_is_refused(shape):
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, got"):
        no_reference(torch.zeros(shape))
