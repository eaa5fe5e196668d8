import dataclasses

import pytest
import torch

from rnr.degradation import (
    Degrader,
    FogPrior,
    NoisePrior,
    RainPrior,
    ShakePrior,
    fog,
    noise,
    parts,
    rain,
    shake,
)

KINDS = ["fog", "shake", "rain", "noise"]
ALWAYS = Degrader(FogPrior(1), ShakePrior(1), RainPrior(1), NoisePrior(1, b=(1, 20)))
NEVER = Degrader(FogPrior(0), ShakePrior(0), RainPrior(0), NoisePrior(0))


def seeded(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 32, 40, generator=generator), torch.rand(6, 1, 32, 40, generator=generator)


def degrade(degrader, batch, rows):
    image, depth = batch
    return degrader.apply(image[rows], depth[rows], degrader.sample(seeded([50 + row for row in rows])))


def tensors(degradation):
    return {
        f"{part}.{field.name}": getattr(getattr(degradation, part), field.name)
        for part in KINDS
        for field in dataclasses.fields(getattr(degradation, part))
    }


def test_the_steps_follow_each_other_as_in_the_appendix(batch):
    image, depth = batch
    drawn = ALWAYS.sample(seeded(range(6)))
    degraded = ALWAYS.apply(image, depth, drawn)
    light, beta = drawn.fog.atmospheric_light.float(), drawn.fog.beta.float()
    foggy = fog.apply(image, depth, dataclasses.replace(drawn.fog, atmospheric_light=light, beta=beta)).image
    shaken = shake.apply(foggy, drawn.shake).image
    rainy = rain.apply(shaken, drawn.rain).image
    noisy = noise.apply(rainy, drawn.noise).image
    assert list(degraded.steps) == KINDS
    for step, expected in zip(degraded.steps.values(), (foggy, shaken, rainy, noisy), strict=True):
        assert step.image.equal(expected)
    assert degraded.image.equal(noisy)


def test_rain_takes_its_color_from_the_light_even_without_fog():
    drawn = Degrader(fog=FogPrior(0)).sample(seeded(range(20)))
    assert drawn.rain.color.equal(drawn.fog.atmospheric_light)
    assert not drawn.fog.present.any()


def test_applying_twice_gives_the_same_bits_and_leaves_the_photo_alone(batch):
    image, depth = batch
    before, drawn = image.clone(), ALWAYS.sample(seeded(range(6)))
    first, second = (ALWAYS.apply(image, depth, drawn) for _ in range(2))
    assert first.image.equal(second.image)
    assert first.severity.equal(second.severity)
    assert image.equal(before)


def test_the_photo_gets_a_gradient():
    """That of the finite difference, but for rounding: what is present and where streaks fall does not depend on it."""
    generator = torch.Generator().manual_seed(1)
    image, way = (torch.rand(3, 3, 18, 20, generator=generator, dtype=torch.float64) for _ in range(2))
    image = (0.3 + 0.2 * image).requires_grad_()
    depth = torch.rand(3, 1, 18, 20, generator=generator, dtype=torch.float64)
    drawn = Degrader(noise=NoisePrior(k=(0, 0.05), b=(1, 5))).sample(seeded(range(3)))
    (gradient,) = torch.autograd.grad(Degrader.apply(image, depth, drawn).image.sum(), image)
    with torch.no_grad():
        more, less = (Degrader.apply(image + step * way, depth, drawn).image.sum() for step in (1e-6, -1e-6))
    assert (gradient * way).sum().item() == pytest.approx((more - less).item() / 2e-6, rel=1e-5)


@pytest.mark.parametrize("rows", [[0], [5], [5, 2, 0], [3, 1, 4, 2, 0, 5]], ids=str)
def test_a_photo_is_degraded_alike_in_any_company_and_order(batch, rows):
    together, apart = degrade(ALWAYS, batch, list(range(6))), degrade(ALWAYS, batch, rows)
    for kind in KINDS:
        assert apart.steps[kind].image.equal(together.steps[kind].image[rows]), kind
    assert apart.present.equal(together.present[rows])
    assert apart.severity.equal(together.severity[rows])


def test_all_at_once_as_on_a_gpu_is_the_same_but_for_rounding(batch, monkeypatch):
    apart = degrade(Degrader(), batch, list(range(6)))
    sizes = []

    def at_once(rows):
        sizes.append(int(rows.sum()))
        return [rows.nonzero().squeeze(1)] if rows.any() else []

    for module in (fog, shake, rain, noise, parts):
        monkeypatch.setattr(module, "parts", at_once)
    together = degrade(Degrader(), batch, list(range(6)))
    assert max(sizes) > 3 and together.present.equal(apart.present)
    torch.testing.assert_close(together.image, apart.image, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.severity, apart.severity, rtol=0, atol=1e-3)


def test_what_is_drawn_depends_on_the_photos_own_generator_alone():
    degrader = Degrader(clean=0.2, light=0.2)
    together = tensors(degrader.sample(seeded(range(12))))
    apart = tensors(degrader.sample(seeded([7, 3])))
    for name, values in together.items():
        assert apart[name].equal(values[[7, 3]]), name


def test_a_prior_leaves_the_draws_of_the_others_alone():
    shake = ShakePrior(1)  # so that no photo is left without any degradation
    usual = tensors(Degrader(shake=shake).sample(seeded(range(12))))
    other = tensors(Degrader(FogPrior(0.1, beta=(1, 2)), shake, RainPrior(0)).sample(seeded(range(12))))
    for name, values in usual.items():
        assert other[name].equal(values) != (name in ("fog.present", "fog.beta", "rain.present")), name


def test_what_is_absent_leaves_the_photo_untouched_to_the_bit(batch):
    degraded = degrade(NEVER, batch, list(range(6)))
    assert degraded.image.equal(batch[0])
    assert not degraded.present.any()
    assert not degraded.severity.any()


@pytest.mark.parametrize("kind", KINDS)
def test_one_alone_is_all_that_is_recorded(batch, kind):
    degrader = dataclasses.replace(NEVER, **{kind: getattr(ALWAYS, kind)})
    degraded = degrade(degrader, batch, [2, 3])
    assert degraded.present.tolist() == [[name == kind for name in KINDS]] * 2
    assert ((degraded.severity >= 1) == degraded.present).all()
    assert not degraded.image.equal(batch[0][:2])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 40)])
def test_tiny_photos_go_through_all_four(size):
    image, depth = torch.full((2, 3, *size), 0.4), torch.full((2, 1, *size), 0.5)
    degrader = dataclasses.replace(ALWAYS, rain=RainPrior(1, density=(1, 1)))
    degraded = degrader.apply(image, depth, degrader.sample(seeded([0, 1])))
    assert degraded.image.shape == image.shape
    assert degraded.image.isfinite().all()
    assert degraded.present.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_photo_keeps_its_type(batch, dtype):
    image, depth = (tensor[:2].to(dtype) for tensor in batch)
    degraded = ALWAYS.apply(image, depth, ALWAYS.sample(seeded([0, 1])))
    assert all(step.image.dtype == dtype for step in degraded.steps.values())


def presence(degrader, count=3000):
    drawn = degrader.sample(seeded(range(count)))
    return torch.stack([getattr(drawn, kind).present for kind in KINDS], dim=1)


def test_each_is_there_by_its_own_chance():
    there = presence(Degrader(FogPrior(0.3), ShakePrior(0.5), RainPrior(0.7), NoisePrior(0.97))).double()
    assert there.mean(dim=0).tolist() == pytest.approx([0.3, 0.5, 0.7, 0.97], abs=0.03)
    assert torch.corrcoef(there.T).triu(1).abs().max() < 0.06


def test_a_photo_that_drew_none_gets_one_of_those_that_may_occur():
    there = presence(Degrader(FogPrior(1e-9), ShakePrior(1e-9), RainPrior(0), NoisePrior(1e-9)))
    assert (there.sum(dim=1) == 1).all()
    assert there.double().mean(dim=0).tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.03)


def test_clean_and_light_photos_are_as_frequent_as_asked():
    found = presence(dataclasses.replace(ALWAYS, clean=0.2, light=0.3)).sum(dim=1)
    shares = [(found == n).double().mean().item() for n in range(5)]
    # A light photo has one kind where its two choices fall on the same of the four.
    assert shares == pytest.approx([0.2, 0.3 / 4, 0.3 * 3 / 4, 0, 0.5], abs=0.025)


def test_light_photos_choose_among_all_four():
    there = presence(dataclasses.replace(ALWAYS, light=1.0)).double()
    assert there.mean(dim=0).tolist() == pytest.approx([7 / 16] * 4, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": 1.5}, r"clean must lie within \[0, 1\], got 1\.5"),
        ({"light": -0.1}, r"light must lie within \[0, 1\], got -0\.1"),
        ({"clean": 0.7, "light": 0.6}, r"clean \+ light must lie within \[0, 1\], got 1\.3"),
    ],
)
def test_shares_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Degrader(**changes)
