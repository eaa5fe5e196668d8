import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from skimage.registration import phase_cross_correlation

from rnr.degradation import noise, rain, shake
from rnr.degradation.shake import RADIUS, TAPS
from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, Rain, Shake
from rnr.models import inverse
from rnr.models.inverse import Physics, Power

ALL = Diagnosis(
    Fog(50, (0.9, 0.85, 0.8), 0.5),
    Shake(15, 30, 2.0, 0.2),
    Rain(10, 0.002, 0, 20, 1.5, 0.6, (1, 1, 1)),
    Noise(20, 0.1, 5),
)


def delta(count=1):
    kernel = torch.zeros(count, TAPS, TAPS)
    kernel[:, RADIUS, RADIUS] = 1
    return kernel


def gaussian(direction, length, width):
    numbers = torch.tensor([[direction, length, 1 / math.sqrt(4 * math.pi * length * width)]])
    return shake.gaussian_kernel(*numbers.T)


def power(variance, count=1):
    """The same at every pixel."""
    return torch.full((count, 1, 1, 1), variance)


def psnr(image, clean):
    return -10 * math.log10((image - clean).square().mean().item())


@pytest.mark.parametrize("size", [(64, 64), (40, 57), (17, 17), (16, 40), (3, 5), (1, 1)])
def test_wiener_without_blur_and_noise_changes_nothing(size):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse.wiener(image, delta(2), power(0.0, 2)), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("direction", "length", "width"), [(0.0, 2.0, 1.0), (40.0, 1.5, 1.0), (90.0, 3.0, 0.7)])
def test_wiener_undoes_a_blur(photo, direction, length, width):
    kernel = gaussian(direction, length, width)
    blurred = shake.blur(photo[None], kernel)
    restored = inverse.wiener(blurred, kernel, power(0.0))
    assert psnr(restored, photo) > psnr(blurred, photo) + 1.5


def test_a_kernel_that_is_not_quite_the_true_one_does_little_harm(photo, monkeypatch):
    """A walk's kernel is told by three numbers, so the one that is undone is never it, and may be all wrong."""
    prior = shake.ShakePrior(1.0)
    u = torch.rand(6, prior.draws, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    walks = prior.sample(u).kernel.float()
    seen = shake.moments(walks)
    blurred = shake.blur(photo.expand(6, -1, -1, -1), walks)

    def gains(turned):
        kernel = shake.gaussian_kernel((seen.direction + turned) % 180, seen.length, seen.energy)
        restored = inverse.wiener(blurred, kernel, power(0.0, 6))
        return [psnr(after, photo) - psnr(before, photo) for after, before in zip(restored, blurred, strict=True)]

    assert min(gains(0)) > 0.8, "told as it is"
    assert min(gains(90)) > -2.5, "told to lie across"
    monkeypatch.setattr(inverse, "MISMATCH", 0.0)
    assert max(gains(0)) < -10, "all of it is MISMATCH"


@pytest.mark.parametrize("deviation", [0.05, 0.2])
def test_noise_that_is_not_there_costs_only_detail(photo, deviation):
    """No more than to smooth the photo over as many pixels as such noise would need."""
    restored = inverse.wiener(photo[None], delta(), power(deviation**2))
    assert restored.mean().item() == pytest.approx(photo.mean().item(), abs=0.005)
    assert (restored - photo).square().mean() < deviation**2 / 2
    assert psnr(restored, photo) > 20


@pytest.mark.parametrize(("k", "b"), [(0.0, 15.0), (0.15, 5.0)])
def test_wiener_takes_noise_out(photo, k, b):
    generator = torch.Generator().manual_seed(0)
    deviation = noise.sigma(photo[None], torch.tensor([k]), torch.tensor([b]))
    noisy = (photo + deviation * torch.randn(deviation.shape, generator=generator)).clamp(0, 1)
    restored = inverse.wiener(noisy, delta(), (deviation**2).mean(dim=1, keepdim=True))
    assert psnr(restored, photo) > psnr(noisy, photo) + 1


def test_wiener_undoes_a_blur_under_noise(photo):
    kernel = gaussian(20.0, 2.0, 1.0)
    blurred = shake.blur(photo[None], kernel)
    noisy = (blurred + 0.03 * torch.randn(blurred.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    restored = inverse.wiener(noisy, kernel, power(0.03**2))
    assert psnr(restored, photo) > psnr(noisy, photo) + 0.3
    careless = inverse.wiener(noisy, kernel, power(0.0))
    assert psnr(restored, photo) > psnr(careless, photo) + 0.3


@pytest.mark.parametrize(
    "kernel", [delta(), gaussian(0.0, 2.0, 1.0), gaussian(70.0, 3.0, 0.8)], ids=["none", "0", "70"]
)
@pytest.mark.parametrize("variance", [0.0, 0.005])
def test_wiener_does_not_move_the_photo(photo, kernel, variance):
    blurred = shake.blur(photo[None], kernel)
    restored = inverse.wiener(blurred, kernel, power(variance))[0].mean(dim=0).numpy()
    moved, _, _ = phase_cross_correlation(photo.mean(dim=0).numpy(), restored, upsample_factor=50)
    assert abs(moved).max() <= 0.15  # what a small photo's borders alone can feign


def test_wiener_keeps_a_spots_centre():
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    spot = torch.exp(-((rows - 30.25) ** 2 + (columns - 33.6) ** 2) / 18).expand(1, 3, -1, -1)
    kernel = gaussian(30.0, 2.5, 1.0)
    restored = inverse.wiener(shake.blur(spot, kernel), kernel, power(0.0))[0, 0, 15:46, 18:49]
    for places, centre in ((rows, 30.25), (columns, 33.6)):
        found = (places[15:46, 18:49] * restored).sum() / restored.sum()
        assert found.item() == pytest.approx(centre, abs=0.05)


def test_wiener_treats_each_photo_by_its_own_kernel(photo):
    kernels = torch.cat([delta(), gaussian(0.0, 2.0, 1.0)])
    variance = torch.tensor([0.0, 0.001]).view(2, 1, 1, 1)
    together = inverse.wiener(photo.expand(2, -1, -1, -1), kernels, variance)
    for i in range(2):
        alone = inverse.wiener(photo[None], kernels[i : i + 1], variance[i : i + 1])
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-6)


def by_brightness(photo, k=0.3, b=-15.0):
    """(1, 3, 128, 128): a larger copy under noise, the copy, and the noise's variance."""
    large = F.interpolate(photo[None], (128, 128), mode="bilinear")
    deviation = noise.sigma(large, torch.tensor([k]), torch.tensor([b]))
    noisy = large + deviation * torch.randn(deviation.shape, generator=torch.Generator().manual_seed(0))
    return noisy.clamp(0, 1), large, (deviation**2).mean(dim=1, keepdim=True)


def test_dark_and_bright_are_denoised_each_by_its_own_noise(photo):
    noisy, clean, variance = by_brightness(photo)
    restored, by_the_mean = (
        inverse.wiener(noisy, delta(), each) for each in (variance, variance.mean(dim=(2, 3), keepdim=True))
    )
    assert psnr(restored, clean) > psnr(by_the_mean, clean) + 0.4
    for end in (variance <= variance.quantile(0.1), variance >= variance.quantile(0.9)):
        ours, theirs, true = (each.mean(dim=1, keepdim=True)[end] for each in (restored, by_the_mean, clean))
        assert psnr(ours, true) > psnr(theirs, true) + 0.4


def test_between_two_powers_of_the_noise_the_filter_lies_between(photo):
    noisy, *_ = by_brightness(photo)
    whole = Power(torch.tensor([0.05]), torch.tensor([1e-3]), torch.tensor([1e-1]))
    low, middle, high = (
        inverse.wiener(noisy / 2 + 0.25, delta(), power(each).expand(-1, -1, 128, 128), whole) for each in (1e-3, 1e-2, 1e-1)
    )
    torch.testing.assert_close(middle, (low + high) / 2)
    assert (low - high).abs().mean() > 0.01


def test_a_tile_is_filtered_by_the_noise_of_the_whole_photo(photo):
    noisy, _, variance = by_brightness(photo)
    dark = variance.mean(dim=2).argsort(dim=2)[0, 0]  # columns, so that a tile is darker than the whole
    noisy, variance = noisy[..., dark], variance[..., dark]
    power = Power.of(noisy, variance)
    whole = inverse.wiener(noisy, delta(), variance)[..., :40]
    tile, by_itself = (inverse.wiener(noisy[..., :64], delta(), variance[..., :64], each)[..., :40] for each in (power, None))
    assert (tile - whole).abs().mean() < 0.6 * (by_itself - whole).abs().mean()


def test_the_power_of_a_photo(photo):
    variance = torch.stack([torch.linspace(1e-4, 1e-2, 64 * 64).view(1, 64, 64), torch.zeros(1, 64, 64)])
    power = Power.of(photo.expand(2, -1, -1, -1), variance)
    assert (power.low[0].item(), power.high[0].item()) == pytest.approx((5.95e-4, 9.505e-3), rel=1e-3)  # 5 and 95 %
    assert power.low[1] == power.high[1] == 0
    assert (power.signal[1] - power.signal[0]).item() == pytest.approx(5.05e-3, rel=1e-3)


DROPS = Rain(10, 0.003, 20, 24, 2.0, 0.7, (0.95, 0.8, 0.65))


def rained_on(image, finding):
    keys = ("density", "slant", "length", "width", "opacity")
    numbers = {key: torch.tensor([float(getattr(finding, key))]) for key in keys}
    color, present = torch.tensor([finding.color]), torch.tensor([True])
    return rain.apply(image, rain.RainParams(present=present, color=color, seed=torch.tensor([3]), **numbers)).image


def derained(image, finding):
    return inverse.derain(image, Physics.of([Diagnosis(rain=finding)], image), torch.zeros(1, 1, *image.shape[-2:]))


@pytest.mark.parametrize("slant", [-60, -25, 0, 30])
def test_derain_takes_streaks_of_the_diagnosed_kind_out(photo, slant):
    image, drops = F.interpolate(photo[None], (128, 160), mode="bilinear"), dataclasses.replace(DROPS, slant=slant)
    rainy = rained_on(image, drops)
    gain = psnr(derained(rainy, drops), image) - psnr(rainy, image)
    assert gain > 3.5
    wrong = {"slant": slant + 40, "width": 5.0, "opacity": 0.2, "color": (1.0, 1.0, 1.0)}
    for key, value in wrong.items():
        worse = psnr(derained(rainy, dataclasses.replace(drops, **{key: value})), image) - psnr(rainy, image)
        assert worse < gain - 0.3, key


def test_no_more_is_taken_out_of_a_streak_than_its_mean_opacity(photo):
    rainy = rained_on(photo[None], DROPS)
    taken = [(derained(rainy, dataclasses.replace(DROPS, chance=chance)) - rainy).abs().mean() for chance in (1, 0.4, 1e-6)]
    assert taken[0] > taken[1] > taken[2] and taken[2] < 1e-5


def test_what_is_brighter_than_the_rain_is_left_alone(photo):
    bright = 0.75 + 0.25 * photo[None]
    drops = dataclasses.replace(DROPS, color=(0.7, 0.7, 0.7))
    assert derained(bright, drops).equal(bright)
    rainy = rained_on(bright, drops)
    assert psnr(derained(rainy, drops), bright) > psnr(rainy, bright) - 0.1


def test_noise_is_no_rain(photo):
    image = photo[None]
    noisy = (image + 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    physics = Physics.of([Diagnosis(rain=DROPS)], image)
    changed = [(inverse.derain(noisy, physics, power(variance)) - noisy).abs().mean() for variance in (0.05**2, 0.0)]
    assert changed[0] < 0.6 * changed[1]
    assert inverse.derain(image, Physics.of([None], photo), power(0.0)).equal(image)


def test_streaks_less_than_twice_as_long_as_wide_are_not_looked_for(photo):
    round_ones = dataclasses.replace(DROPS, length=6, width=3.0)
    assert derained(photo[None], round_ones).equal(photo[None])


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 17)])
def test_derain_takes_every_size_in_any_company(size):
    image = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    long = dataclasses.replace(DROPS, length=64, width=9.0)
    findings = [Diagnosis(rain=DROPS), None, Diagnosis(rain=long)]
    out = inverse.derain(image, Physics.of(findings, image), torch.zeros(3, 1, *size))
    assert out.isfinite().all() and out[1].equal(image[1])
    torch.testing.assert_close(out[:1], derained(image[:1], DROPS), rtol=0, atol=1e-4)


def test_what_is_doubted_counts_by_its_chance(photo):
    def physics(chance):
        doubted = {kind: dataclasses.replace(ALL[kind], chance=chance) for kind in KINDS}
        return Physics.of([Diagnosis(**doubted)], photo)

    sure, doubted = physics(1.0), physics(0.25)
    torch.testing.assert_close(doubted.kernel, 0.75 * delta() + 0.25 * sure.kernel)
    torch.testing.assert_close(doubted.opacity, 0.25 * sure.opacity)
    torch.testing.assert_close(1 - doubted.transmission, 0.25 * (1 - sure.transmission))
    variances = [inverse.noise_variance(photo[None], each) for each in (doubted, sure)]
    torch.testing.assert_close(variances[0], 0.25 * variances[1])


def test_dehaze_is_the_exact_inverse_of_fog(photo):
    light = torch.tensor([[0.9, 0.8, 0.7]])
    t = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.88 + 0.12
    foggy = photo * t + light.view(1, 3, 1, 1) * (1 - t)
    torch.testing.assert_close(inverse.dehaze(foggy, light, t)[0], photo, rtol=0, atol=1e-5)


@pytest.mark.parametrize("off_light", [-0.1, 0.1])
@pytest.mark.parametrize("off_t", [-0.2, 0.2])
def test_a_wrong_fog_errs_by_no_more_than_its_own_error_magnified(photo, depth, off_light, off_t):
    light, t = torch.tensor([[0.8, 0.75, 0.7]]), torch.exp(-1.5 * depth)[None]
    foggy = photo * t + light.view(1, 3, 1, 1) * (1 - t)
    told = (t + off_t).clamp(0.01, 1)
    restored = inverse.dehaze(foggy, light + off_light, told)
    of_light = abs(off_light) * (1 - told)
    of_t = (photo - light.view(1, 3, 1, 1)).abs() * (t - told).abs()
    floor = told.clamp(min=inverse.FLOOR)
    short = (floor - told) * photo  # divided by more than was told
    assert ((restored - photo).abs() <= (of_light + of_t + short) / floor + 1e-5).all()


def test_dehaze_divides_by_no_less_than_its_floor():
    foggy, light = torch.full((1, 3, 2, 2), 0.8), torch.full((1, 3), 0.9)
    t = torch.full((1, 1, 2, 2), 0.01)
    expected = max((0.8 - 0.9 * 0.99) / inverse.FLOOR, 0)
    assert inverse.dehaze(foggy, light, t).unique().tolist() == [pytest.approx(expected)]


def test_the_noise_variance_is_read_off_the_diagnosis(photo):
    physics = Physics.of([ALL, Diagnosis(), None], photo)
    variance = inverse.noise_variance(photo.expand(3, -1, -1, -1), physics)
    assert variance.shape == (3, 1, 64, 64)
    assert variance[1:].eq(0).all()
    flat = inverse.noise_variance(torch.full((1, 3, 9, 9), 0.4), Physics.of([ALL], photo))
    torch.testing.assert_close(flat, torch.full_like(flat, ((0.1 * 0.4 * 255 + 5) / 255) ** 2))


def test_physics_of_a_full_diagnosis(photo):
    physics = Physics.of([ALL], photo)
    moments = shake.moments(physics.kernel)
    assert physics.light[0].tolist() == pytest.approx([0.9, 0.85, 0.8])
    assert physics.transmission.item() == 0.5
    measured = [getattr(moments, key).item() for key in ("direction", "length", "energy")]
    assert measured == pytest.approx([30, 2, 0.2], rel=0.01)
    assert (physics.k.item(), physics.b.item()) == pytest.approx((0.1, 5))


@pytest.mark.parametrize(
    "diagnosis",
    [None, Diagnosis(), ALL.keep(["presence"]), ALL.keep(["presence", "severity"])],
    ids=["none", "clean", "presence", "severity"],
)
def test_what_is_absent_or_not_stated_changes_nothing(photo, diagnosis):
    image = photo[None]
    physics = Physics.of([diagnosis], image)
    variance = inverse.noise_variance(image, physics)
    filtered = inverse.wiener(inverse.derain(image, physics, variance), physics.kernel, variance)
    torch.testing.assert_close(filtered, image, rtol=0, atol=1e-5)
    assert physics.transmission.item() == 1
    assert inverse.dehaze(image, physics.light, torch.ones(1, 1, 64, 64)).equal(image)


def test_what_is_stated_in_part_changes_nothing(photo):
    in_part = {
        "fog": dataclasses.replace(ALL.fog, atmospheric_light=None),
        "shake": dataclasses.replace(ALL.shake, energy=None),
        "rain": dataclasses.replace(ALL.rain, color=None),
        "noise": dataclasses.replace(ALL.noise, b=None),
    }
    ours, nothing = (vars(Physics.of([diagnosis], photo)) for diagnosis in (Diagnosis(**in_part), Diagnosis()))
    assert all(value.equal(nothing[key]) for key, value in ours.items())


def test_physics_takes_rows_in_any_company(photo):
    diagnoses = [None, ALL, Diagnosis(fog=ALL.fog), Diagnosis(shake=Shake(1, 0, 0, 1))]
    together = Physics.of(diagnoses, photo)
    for i, diagnosis in enumerate(diagnoses):
        alone = Physics.of([diagnosis], photo)
        for key, value in vars(alone).items():
            torch.testing.assert_close(value, getattr(together, key)[i : i + 1])
    assert together.kernel[3].equal(delta()[0])  # a length of nothing is no blur
    assert Physics.of([ALL], photo.double()).kernel.dtype == torch.float64


@pytest.mark.parametrize("diagnosis", [None, Diagnosis(), ALL], ids=["none", "clean", "all"])
def test_gradients_are_finite_and_reach_the_photo(photo, diagnosis):
    image = photo[None].clone().requires_grad_()
    physics = Physics.of([diagnosis], image)
    t = F.interpolate(inverse.dark_channel_transmission(image, physics.light), (64, 64))
    variance = inverse.noise_variance(image, physics)
    filtered = inverse.wiener(inverse.derain(image, physics, variance), physics.kernel, variance)
    out = inverse.dehaze(filtered, physics.light, t)
    out.square().sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.ne(0).double().mean() > 0.5
