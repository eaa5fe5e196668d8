"""Intervals that hold for each number by itself, and diagnoses drawn by how sure one is."""

import dataclasses
import math

import pytest
import torch

from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, Rain, Shake
from rnr.diagnosis.edit import with_severity
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.uncertainty import by_themselves, drawn

LIGHT = (0.9, 0.85, 0.8)
FOGGY = Diagnosis(fog=Fog(50.0, LIGHT, 0.53), rain=Rain(10.0, 0.002, 5.0, 20.0, 1.5, 0.6, LIGHT))


def exactly(value):
    return [(value, value)]


def test_transmission_is_as_unsure_as_the_severity_it_follows_from():
    found = by_themselves(FOGGY, {"fog": {"severity": [(40.0, 60.0)], "transmission": exactly(0.53)}})
    assert found["fog"]["severity"] == [(40.0, 60.0)]
    ends = sorted(with_severity(FOGGY, "fog", end).fog.transmission for end in (40, 60))
    assert found["fog"]["transmission"][0] == pytest.approx(ends, abs=1e-6)


def test_errors_of_its_own_and_inherited_ones_add_up_in_quadrature():
    found = by_themselves(FOGGY, {"fog": {"severity": [(40.0, 60.0)], "transmission": [(0.43, 0.63)]}})
    low, high = found["fog"]["transmission"][0]
    darkest, lightest = (with_severity(FOGGY, "fog", end).fog.transmission for end in (60, 40))
    assert low == pytest.approx(0.53 - math.hypot(0.1, 0.53 - darkest))
    assert high == pytest.approx(0.53 + math.hypot(0.1, lightest - 0.53))


def test_rain_takes_its_color_from_the_fog_and_its_doubt_too():
    light = [(0.8, 0.95), (0.75, 0.9), (0.8, 0.8)]
    given = {"fog": {"atmospheric_light": light}, "rain": {"color": [exactly(c)[0] for c in LIGHT], "slant": [(3.0, 7.0)]}}
    found = by_themselves(FOGGY, given)
    for got, expected in zip(found["rain"]["color"], light, strict=True):
        assert got == pytest.approx(expected)
    assert found["rain"]["slant"] == [(3.0, 7.0)]
    assert by_themselves(FOGGY, {"rain": given["rain"]})["rain"]["color"] == given["rain"]["color"]


def test_widened_intervals_stay_within_the_quantity():
    shaken = Diagnosis(shake=Shake(20.0, 30.0, 2.9, 0.9), noise=Noise(30.0, 0.15, 10.0))
    wide = {"severity": [(1.0, 100.0)]}
    found = by_themselves(shaken, {"shake": wide | {"energy": [(0.8, 1.0)]}, "noise": wide | {"k": exactly(0.15)}})
    assert found["shake"]["energy"][0][1] == 1.0
    low, high = found["noise"]["k"][0]
    assert 0 <= low < 0.15 < high <= 1


def sure(diagnosis, chance, intervals=None):
    return Examination(diagnosis, dict.fromkeys(KINDS, chance), intervals or {})


def test_the_sure_is_drawn_as_it_is():
    examined = sure(FOGGY, 1.0, {"fog": {"severity": exactly(50.0)}, "rain": {}})
    one = drawn(examined, torch.Generator().manual_seed(0))
    assert (one.fog, one.rain) == (FOGGY.fog, FOGGY.rain)
    assert one.shake is not None  # its chance is 1, whatever the diagnosis says
    doubted = Diagnosis(fog=dataclasses.replace(FOGGY.fog, chance=0.6))
    assert drawn(sure(doubted, 1.0), torch.Generator()).fog.chance == 1, "drawn as if it were the truth"
    assert drawn(sure(FOGGY, 0.0), torch.Generator()) == Diagnosis()


def test_draws_have_the_chances_and_the_widths_that_are_said():
    generator = torch.Generator().manual_seed(0)
    examined = sure(FOGGY, 0.7, {"fog": {"severity": [(40.0, 60.0)], "atmospheric_light": [(0.8, 1.0)] * 3}})
    draws = [drawn(examined, generator) for _ in range(600)]
    assert sum(d.fog is not None for d in draws) / 600 == pytest.approx(0.7, abs=0.06)
    assert sum(d.noise is not None for d in draws) / 600 == pytest.approx(0.7, abs=0.06)
    scores = torch.tensor([d.fog.severity for d in draws if d.fog])
    assert scores.mean().item() == pytest.approx(50, abs=1)
    assert ((scores > 40) & (scores < 60)).double().mean().item() == pytest.approx(0.9, abs=0.04)
    assert {d.fog.transmission for d in draws if d.fog} == {0.53}  # no interval, no spread
    assert max(max(d.fog.atmospheric_light) for d in draws if d.fog) <= 1


def test_equal_generators_draw_alike():
    examined = sure(FOGGY, 0.6, {"rain": {"slant": [(-5.0, 15.0)]}})
    first, second = ([drawn(examined, torch.Generator().manual_seed(seed)) for seed in range(8)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 4
