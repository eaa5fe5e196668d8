import dataclasses

import pytest
import torch
from diagnosis_strategies import doubtful as any_diagnosis
from diagnosis_strategies import subsets
from hypothesis import given
from hypothesis import strategies as st

from rnr.degradation import Degrader
from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, Rain, Shake
from rnr.diagnosis.edit import TYPICAL, jitter, surely, with_severity
from rnr.diagnosis.truth import degradation, diagnoses
from rnr.diagnosis.types import FINDINGS, quantities

STATED = Diagnosis(
    fog=Fog(40.0, (0.9, 0.8, 0.85), 0.6),
    shake=Shake(16.0, 30.0, 2.2, 0.2),
    rain=Rain(12.0, 0.004, -12.0, 16.0, 1.2, 0.7, (0.9, 0.8, 0.85)),
    noise=Noise(20.0, 0.1, 12.0),
    scene="A face.",
)
GREY = torch.full((1, 3, 96, 96), 0.5)
NEAR_TO_FAR = torch.linspace(0, 1, 96).view(1, 1, 96, 1).expand(1, 1, 96, 96)


def measured(diagnosis, kind):
    """The finding that the degradation model itself makes when ``kind`` alone is applied as stated."""
    alone = Diagnosis(**{kind: diagnosis[kind]})
    degraded = Degrader.apply(GREY, NEAR_TO_FAR, degradation([alone], NEAR_TO_FAR, [3]))
    return diagnoses(degraded)[0][kind]


def consistent(kind):
    """:data:`STATED` with the severity of ``kind`` that its parameters really have."""
    return dataclasses.replace(STATED, **{kind: measured(STATED, kind)})


# Fog and noise follow A.2's formulas; shake keeps the kernel's shape, rain reckons with chance overlaps.
TOLERANCE = {"fog": 1e-3, "shake": 1.5, "rain": 4.0, "noise": 0.05}


@pytest.mark.parametrize("severity", [10, 20, 40, 55])
@pytest.mark.parametrize("kind", KINDS)
def test_the_degradation_model_agrees_with_an_overruled_severity(kind, severity):
    changed = with_severity(consistent(kind), kind, severity)
    assert changed[kind].severity == severity
    assert measured(changed, kind).severity == pytest.approx(severity, abs=TOLERANCE[kind])


@pytest.mark.parametrize("severity", [2, 3, 5, 30])
def test_noise_that_prints_as_nothing_is_taken_for_no_less_than_a_printed_digit(severity):
    changed = with_severity(Diagnosis(noise=Noise(1.0, 0.0, 1.0)), "noise", severity)
    assert 1 <= measured(changed, "noise").severity <= severity


@pytest.mark.parametrize("severity", [50, 100])
@pytest.mark.parametrize("faint", [Noise(1.1, 0.076, -14.6), Noise(1.8, 0.139, -14.7), Noise(1.0, 0.0, 9.0)])
def test_noise_that_cannot_be_so_loud_becomes_typical(faint, severity):
    changed = with_severity(Diagnosis(noise=faint), "noise", severity)
    assert changed.noise.b / changed.noise.k == pytest.approx(TYPICAL.noise.b / TYPICAL.noise.k)
    assert measured(changed, "noise").severity == pytest.approx(severity, rel=0.2)
    without = Noise(20.0, 0.1, None)
    assert with_severity(Diagnosis(noise=without), "noise", severity).noise.b is None


@pytest.mark.parametrize("severity", [2, 2.5, 3, 3.5, 4, 5])
def test_a_faint_shake_is_as_severe_as_it_is_told(severity):
    changed = with_severity(STATED, "shake", severity)
    assert measured(changed, "shake").severity == pytest.approx(severity, abs=0.6)


@pytest.mark.parametrize(
    "nothing",
    [
        Shake(1.0, 70.0, 0.0, 1.0),
        Rain(1.0, 0.0, 15.0, 16.0, 1.2, 0.7, (0.9, 0.8, 0.85)),
        Noise(1.0, 0.0, 0.0),
        Noise(30.0, 0.05, -20.0),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_stated_as_nothing_can_be_overruled_too(nothing):
    kind = type(nothing).__name__.lower()
    changed = with_severity(Diagnosis(**{kind: nothing}), kind, 30)
    # TYPICAL is round numbers; where they come from it is as severe as that.
    assert measured(changed, kind).severity == pytest.approx(30, abs=8)
    assert getattr(changed[kind], "direction", 70.0) == 70.0 and getattr(changed[kind], "slant", 15.0) == 15.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_present_severity_changes_nothing_else(kind):
    before = consistent(kind)
    after = with_severity(before, kind, before[kind].severity)
    for key, spec in quantities(FINDINGS[kind]).items():
        values = (getattr(after[kind], key), getattr(before[kind], key))
        a, b = values if spec.count > 1 else ((value,) for value in values)
        assert a == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize(("severity", "transmission"), [(1, 1.0), (50.5, 0.525), (100, 0.05)])
def test_the_transmission_of_a_fog_severity_is_that_of_the_paper(severity, transmission):
    assert with_severity(STATED, "fog", severity).fog.transmission == pytest.approx(transmission)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_kind_itself_changes(kind):
    changed = with_severity(STATED, kind, 70)
    assert dataclasses.replace(changed, **{kind: STATED[kind]}) == STATED
    assert changed[kind] != STATED[kind]


def test_a_person_is_sure():
    unsure = Diagnosis(fog=Fog(50, (0.8, 0.8, 0.8), 0.5, chance=0.6), noise=Noise(20, 0.1, 5, chance=0.7))
    overruled = with_severity(unsure, "fog", 30)
    assert (overruled.fog.chance, overruled.noise.chance) == (1, 0.7)
    assert jitter(unsure, 0.1, torch.Generator()).fog.chance == 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_absence(kind):
    assert with_severity(STATED, kind, 0) == dataclasses.replace(STATED, **{kind: None})
    assert with_severity(Diagnosis(), kind, 0) == Diagnosis()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_is_typical(kind):
    added = with_severity(Diagnosis(), kind, TYPICAL[kind].severity)
    assert [name for name in KINDS if added[name] is not None] == [kind]
    # Noise depends on the photo's brightness, rain on where its few seeds fall.
    tolerance = {"fog": 0.1, "shake": 1, "rain": 8, "noise": 5}[kind]
    assert measured(added, kind).severity == pytest.approx(TYPICAL[kind].severity, abs=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_without_parameters_gets_none(kind):
    cut = STATED.keep(("presence", "severity"))
    changed = with_severity(cut, kind, 70)
    assert changed == dataclasses.replace(cut, **{kind: dataclasses.replace(cut[kind], severity=70)})


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [
        ("blur", 50, "'blur' is no degradation; there are fog, shake, rain, noise"),
        ("fog", 0.5, r"fog must be 0 \(absent\) or a severity within \[1, 100\], got 0\.5"),
        ("rain", 101, r"rain must be .* got 101"),
        ("shake", -3, r"shake must be .* got -3"),
        ("noise", float("nan"), r"noise must be .* got nan"),
    ],
)
def test_nonsense_is_refused(kind, severity, message):
    with pytest.raises(ValueError, match=message):
        with_severity(STATED, kind, severity)


@given(any_diagnosis, subsets, st.sampled_from(KINDS), st.just(0.0) | st.floats(1, 100))
def test_whatever_is_overruled_the_result_is_valid(diagnosis, fields, kind, severity):
    changed = with_severity(diagnosis.keep(fields), kind, severity)
    assert (changed[kind].severity if severity else changed[kind]) == (severity or None)


@given(any_diagnosis, subsets, st.floats(0, 1e6), st.integers(0, 2**31))
def test_a_jittered_diagnosis_is_valid_and_keeps_what_is_there_and_what_is_stated(diagnosis, fields, strength, seed):
    before = diagnosis.keep(fields)
    after = jitter(before, strength, torch.Generator().manual_seed(seed))
    assert after.scene == before.scene
    for kind in KINDS:
        assert type(after[kind]) is type(before[kind])
        for key in quantities(FINDINGS[kind]) if before[kind] is not None else ():
            assert (getattr(after[kind], key) is None) == (getattr(before[kind], key) is None)


def test_jitter_follows_its_generator():
    first, second, third = (jitter(STATED, 0.1, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first == second != third


def test_no_strength_is_no_change():
    assert jitter(STATED, 0, torch.Generator().manual_seed(0)) == STATED


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_normal_and_relative_to_the_number(kind):
    generator = torch.Generator().manual_seed(0)
    copies = [jitter(STATED, 0.05, generator)[kind] for _ in range(500)]
    for key, spec in quantities(FINDINGS[kind]).items():
        if spec.count > 1:
            continue
        value = getattr(STATED[kind], key)
        errors = torch.tensor([getattr(copy, key) - value for copy in copies], dtype=torch.float64)
        deviation = 0.05 * (60 if spec.unit == "deg" else max(abs(value), abs(getattr(TYPICAL[kind], key)) / 10))
        assert errors.std().item() == pytest.approx(deviation, rel=0.12), key
        assert abs(errors.mean().item()) < 0.2 * deviation, key


def test_a_direction_wraps_around():
    generator = torch.Generator().manual_seed(0)
    near_zero = Diagnosis(shake=Shake(20.0, 0.5, 3.0, 0.2))
    directions = [jitter(near_zero, 0.05, generator).shake.direction for _ in range(100)]
    assert any(direction > 170 for direction in directions)
    assert all(direction < 12 or direction > 168 for direction in directions)


def test_what_is_less_sure_than_asked_for_is_left_out():
    diagnosis = Diagnosis(fog=Fog(50, None, None, chance=0.7), noise=Noise(9, None, None, chance=0.9), scene="A dog.")
    assert surely(diagnosis, 0.0) == surely(diagnosis, 0.7) == diagnosis
    assert surely(diagnosis, 0.8) == dataclasses.replace(diagnosis, fog=None)
    assert surely(diagnosis, 1.0) == Diagnosis(scene="A dog.")
    for chance in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"chance must lie within \[0, 1\]"):
            surely(diagnosis, chance)
