import math

import pytest
import torch

from rnr.models.chart import SIDE, chart, log_spectra, noise_curve, whole_plane, windows


def noise(deviation, level=0.5, size=(300, 400)):
    return level + deviation * torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (64, 64), (65, 200), (700, 480)])
def test_any_photo_has_a_chart(size):
    made = chart(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert made.shape == (2, 3, 128, 128)
    assert ((made >= 0) & (made <= 1)).all()


def test_a_photo_has_its_own_chart_in_any_company():
    photos = torch.rand(3, 3, 90, 120, generator=torch.Generator().manual_seed(0))
    assert torch.equal(chart(photos)[1:2], chart(photos[1:2]))


def test_a_chart_does_not_depend_on_torchs_default_type():
    """Lightning's bf16-true changes it around every step; counts would stop at 256."""
    photo = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    expected = chart(photo)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = chart(photo)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.equal(expected)


def test_white_noise_has_its_variance_at_every_frequency():
    power = 10 ** log_spectra(windows(noise(0.1)))
    assert power.mean().item() == pytest.approx(0.01, rel=0.02)
    half = power.mean(dim=(0, 1, 2))
    assert (half[8:24, 8:24].mean() / half[30:34, 20:].mean()).item() == pytest.approx(1, abs=0.1)


def test_the_plane_is_that_of_a_full_transform():
    photo = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    half = torch.fft.rfft2(photo).abs()
    torch.testing.assert_close(whole_plane(half), torch.fft.fftshift(torch.fft.fft2(photo).abs(), dim=(-2, -1)))


@pytest.mark.parametrize(("deviation", "level"), [(0.01, 0.2), (0.05, 0.5), (0.1, 0.7)])
def test_the_noise_curve_peaks_at_the_noise_and_the_brightness(deviation, level):
    curve = noise_curve(windows(noise(deviation, level)))[0].mean(dim=0)
    row = (curve.sum(dim=1) * torch.arange(SIDE)).sum() / curve.sum()
    column = (curve.sum(dim=0) * torch.arange(SIDE)).sum() / curve.sum()
    assert row.item() == pytest.approx(SIDE * (1 - math.log10(deviation / 5e-4) / 3), abs=1.5)
    assert column.item() == pytest.approx(SIDE * level, abs=1)


def test_a_horizontal_blur_darkens_the_spectrum_to_the_left_and_right():
    photo = noise(0.2)
    blurred = photo.unfold(-1, 9, 1).mean(dim=-1)
    panel = chart(blurred)[0, 1, :SIDE, :SIDE]
    assert panel[SIDE // 2 - 2 : SIDE // 2 + 2, 48:60].mean() < panel[48:60, SIDE // 2 - 2 : SIDE // 2 + 2].mean() - 0.1
