import pytest
import torch
from kornia.filters import gaussian_blur2d

from rnr.metrics.judge import look


def test_each_fault_moves_its_own_measurement(photo):
    clean = photo[None]
    noise = 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    seen = look(torch.cat([clean, gaussian_blur2d(clean, (9, 9), (2.0, 2.0)), clean + noise, 0.5 * clean + 0.4]))
    assert seen.sharpness[1] < 0.7 * seen.sharpness[0]
    assert seen.noise[2] > 1.4 * seen.noise[0] > 1.4 * seen.noise[1]
    assert seen.haze[3] > seen.haze[0] + 0.3


@pytest.mark.parametrize("sigma", [0.01, 0.08])
def test_noise_on_a_slope_is_measured_to_five_per_cent(sigma):
    plane = torch.linspace(0.3, 0.6, 256).expand(1, 3, 256, 256)
    noise = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))  # the same in all colours
    assert look(plane + sigma * noise).noise.item() == pytest.approx(sigma, rel=0.05)


def test_noise_is_the_same_under_autocast(photo):
    smooth = gaussian_blur2d(photo[None], (9, 9), (2.0, 2.0))
    expected = look(smooth).noise
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(look(smooth).noise, expected)


def test_sharpness_is_the_slope_and_haze_the_darkest_colour_around():
    ramp = torch.linspace(0, 1, 101).expand(1, 3, 101, 101).clone()
    assert look(ramp).sharpness.item() == pytest.approx(0.01, rel=1e-3)
    grey = torch.tensor([0.9, 0.4, 0.7]).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    assert look(grey).haze.item() == pytest.approx(0.4)


def test_a_photo_too_small_for_a_slope_has_haze_alone():
    seen = look(torch.full((2, 3, 2, 9), 0.25))
    assert seen.haze.tolist() == [0.25, 0.25]
    assert seen.sharpness.isnan().all() and seen.noise.isnan().all()


def test_what_is_no_photo_is_refused():
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\), got \(3, 2, 9\)"):
        look(torch.zeros(3, 2, 9))
