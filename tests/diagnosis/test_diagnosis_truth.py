import dataclasses
import math

import pytest
import torch
from diagnosis_strategies import diagnoses as any_diagnosis
from hypothesis import given, settings
from hypothesis import strategies as st

from rnr.degradation import Degrader, FogPrior, NoisePrior, RainPrior, ShakePrior, fog, shake
from rnr.diagnosis import FIELDS, KINDS, Diagnosis, Fog, Shake, parse, render
from rnr.diagnosis.truth import at_odds, degradation, diagnoses, missed

ALWAYS = Degrader(FogPrior(1), ShakePrior(1), RainPrior(1, density=(2e-3, 1e-2)), NoisePrior(1, b=(1, 20)))
COUNT = 4


@pytest.fixture(scope="module")
def batch(photo, depth):
    return photo.expand(COUNT, -1, -1, -1), depth.expand(COUNT, -1, -1, -1)


def degrade(degrader, batch, seed=0):
    drawn = degrader.sample([torch.Generator().manual_seed(seed + i) for i in range(COUNT)])
    return drawn, degrader.apply(*batch, drawn)


def again(stated, batch, seeds):
    return Degrader.apply(*batch, degradation(stated, batch[1], seeds))


def test_what_is_stated_is_what_was_applied(batch):
    drawn, degraded = degrade(ALWAYS, batch)
    scenes = ["A red bus.", None, "Trees.", None]
    stated = diagnoses(degraded, scenes)
    assert [diagnosis.scene for diagnosis in stated] == scenes
    for i, diagnosis in enumerate(stated):
        moments = shake.moments(drawn.shake.kernel[i : i + 1])
        t = fog.transmission(batch[1][i : i + 1], drawn.fog.beta[i : i + 1].float())
        assert diagnosis.severities == pytest.approx(degraded.severity[i].tolist(), abs=1e-4)
        assert diagnosis.fog.atmospheric_light == pytest.approx(drawn.fog.atmospheric_light[i].tolist())
        assert diagnosis.fog.transmission == pytest.approx(t.mean().item())
        for key in ("direction", "length", "energy"):
            assert getattr(diagnosis.shake, key) == pytest.approx(getattr(moments, key).item())
        for key in ("density", "slant", "length", "width", "opacity"):
            assert getattr(diagnosis.rain, key) == getattr(drawn.rain, key)[i].item()
        assert diagnosis.rain.color == tuple(drawn.rain.color[i].tolist())
        assert (diagnosis.noise.k, diagnosis.noise.b) == (drawn.noise.k[i].item(), drawn.noise.b[i].item())


def test_what_is_absent_is_not_stated(batch):
    _, degraded = degrade(
        dataclasses.replace(ALWAYS, fog=FogPrior(0), noise=NoisePrior(1, k=(0, 0), b=(-9, -9))), batch
    )
    for diagnosis in diagnoses(degraded):
        assert [diagnosis[kind] is not None for kind in KINDS] == [False, True, True, False]
        assert diagnosis.severities[0] == diagnosis.severities[3] == 0
    _, untouched = degrade(dataclasses.replace(ALWAYS, clean=1.0), batch)
    assert diagnoses(untouched) == [Diagnosis()] * COUNT


def test_the_record_reproduces_the_foggy_photo_and_the_scores(batch):
    drawn, degraded = degrade(ALWAYS, batch)
    repeated = again(diagnoses(degraded), batch, drawn.rain.seed.tolist())
    torch.testing.assert_close(repeated.steps["fog"].image, degraded.steps["fog"].image, rtol=0, atol=1e-5)
    fog_off, shake_off, rain_off, noise_off = (repeated.severity - degraded.severity).abs().amax(dim=0).tolist()
    assert fog_off < 1e-3
    assert shake_off < 5  # a Gaussian stands in for the path
    assert rain_off < 1e-3
    assert noise_off < 0.5  # it depends on the photo beneath, which the other kernel blurred a little differently
    for before, after in zip(diagnoses(degraded), diagnoses(repeated), strict=True):
        assert after.shake.length == pytest.approx(before.shake.length, rel=0.01)
        assert after.shake.energy == pytest.approx(before.shake.energy, rel=0.01)


def test_without_shake_the_record_reproduces_the_rainy_photo(batch):
    drawn, degraded = degrade(dataclasses.replace(ALWAYS, shake=ShakePrior(0)), batch)
    repeated = again(diagnoses(degraded), batch, drawn.rain.seed.tolist())
    torch.testing.assert_close(repeated.steps["rain"].image, degraded.steps["rain"].image, rtol=0, atol=1e-5)
    torch.testing.assert_close(repeated.severity, degraded.severity, rtol=0, atol=1e-2)


def test_even_the_printed_record_is_enough(batch):
    drawn, degraded = degrade(ALWAYS, batch)
    printed = [parse(render(diagnosis, FIELDS)) for diagnosis in diagnoses(degraded)]
    repeated = again(printed, batch, drawn.rain.seed.tolist())
    torch.testing.assert_close(repeated.steps["fog"].image, degraded.steps["fog"].image, rtol=0, atol=0.02)
    torch.testing.assert_close(repeated.severity, degraded.severity, rtol=0, atol=5)


def test_the_stated_severity_is_not_read(batch):
    _, degraded = degrade(ALWAYS, batch)
    stated = diagnoses(degraded)
    overstated = [
        dataclasses.replace(d, **{kind: dataclasses.replace(d[kind], severity=100) for kind in KINDS}) for d in stated
    ]
    assert again(stated, batch, range(COUNT)).image.equal(again(overstated, batch, range(COUNT)).image)


def test_equal_seeds_repeat_the_photo_and_others_do_not(batch):
    _, degraded = degrade(ALWAYS, batch)
    stated = diagnoses(degraded)
    first, second, third = (again(stated, batch, seeds).image for seeds in ([1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]))
    assert first.equal(second)
    assert not first.equal(third)


def test_a_diagnosis_without_parameters_describes_no_degradation(depth):
    with pytest.raises(ValueError, match=r"does not state fog\.atmospheric_light"):
        degradation([Diagnosis(), Diagnosis(fog=Fog(50, None, None))], depth.expand(2, -1, -1, -1), [0, 1])


@pytest.mark.parametrize(("width", "told"), [(1.0, []), (0.5, ["shake direction 120 instead of 30"])])
def test_the_direction_of_a_round_blur_is_not_missed(width, told):
    asked = Shake(20.0, 30.0, 2.0, 1 / math.sqrt(4 * math.pi * 2 * 2 * width))
    applied = dataclasses.replace(asked, direction=120.0)
    assert missed(Diagnosis(shake=asked), Diagnosis(shake=applied)) == told


@settings(max_examples=60)
@given(any_diagnosis, st.integers(0, 2**31))
def test_whatever_a_valid_diagnosis_states_can_be_applied_and_stated_again(diagnosis, seed):
    generator = torch.Generator().manual_seed(seed)
    image, depth = torch.rand(1, 3, 12, 9, generator=generator), torch.rand(1, 1, 12, 9, generator=generator)
    degraded = again([diagnosis], (image, depth), [seed])
    assert ((degraded.image >= 0) & (degraded.image <= 1)).all()
    (stated,) = diagnoses(degraded, [diagnosis.scene])
    assert stated.scene == diagnosis.scene
    assert all(diagnosis[kind] is not None for kind in KINDS if stated[kind] is not None)


def test_a_severity_that_was_changed_alone_is_at_odds_with_its_parameters(batch):
    """Others are not, nor what was never stated."""
    _, degraded = degrade(ALWAYS, batch)
    for photo, stated in zip(degraded.image, diagnoses(degraded), strict=True):
        assert not at_odds(stated, photo)
        changed = {kind: dataclasses.replace(stated[kind], severity=(stated[kind].severity + 49) % 99 + 1) for kind in KINDS}
        found = at_odds(Diagnosis(**changed), photo)
        assert found.keys() == {"fog", "shake", "noise"}
        assert found["fog"].startswith(f"fog of severity {changed['fog'].severity:.0f} with the parameters of ")
    assert not at_odds(Diagnosis(fog=Fog(50, None, None), shake=Shake(None, 0.0, 2.0, 0.2)), batch[0][0])
