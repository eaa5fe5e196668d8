"""What several looks agree on: means of everything, angles as angles, mirror images turned back."""

import pytest

from rnr.diagnosis import KINDS, Diagnosis, Fog, Rain, Shake
from rnr.diagnosis.consensus import consensus, mirrored
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.mean import mean_of

SURE = dict.fromkeys(KINDS, 0.0)


def shaken(direction, interval, chance=0.9, length=3.0):
    intervals = {"shake": {"direction": [interval], "length": [(length - 1, length + 2)]}}
    return Examination(Diagnosis(shake=Shake(20.0, direction, length, 0.2)), SURE | {"shake": chance}, intervals)


def test_one_look_is_what_it_is():
    look = shaken(170.0, (160.0, 185.0))
    assert consensus([look]) is look


def test_everything_is_the_mean():
    one = Examination(
        Diagnosis(fog=Fog(40.0, (0.8, 0.7, 0.6), 0.5), scene="a cup"),
        SURE | {"fog": 0.9, "rain": 0.3},
        {"fog": {"severity": [(30.0, 45.0)], "atmospheric_light": [(0.7, 0.9), (0.6, 0.8), (0.5, 0.7)]}},
    )
    other = Examination(
        Diagnosis(fog=Fog(50.0, (0.9, 0.7, 0.8), 0.4), scene="a plate"),
        SURE | {"fog": 0.7, "rain": 0.1},
        {"fog": {"severity": [(45.0, 65.0)], "atmospheric_light": [(0.8, 1.0), (0.6, 0.8), (0.7, 0.9)]}},
    )
    found = consensus([one, other])
    assert found.presence == pytest.approx(SURE | {"fog": 0.8, "rain": 0.2})
    assert found.diagnosis == Diagnosis(fog=Fog(45.0, (0.85, 0.7, 0.7), 0.45, chance=0.8), scene="a cup")
    assert found.intervals["fog"]["severity"] == [pytest.approx((37.5, 55.0))]
    assert found.intervals["fog"]["atmospheric_light"][0] == pytest.approx((0.75, 0.95))
    assert set(found.intervals) == {"fog"} and set(found.intervals["fog"]) == {"severity", "atmospheric_light"}


def test_the_mean_chance_says_what_is_there_and_those_who_found_it_how_much():
    nothing = Examination(Diagnosis(), SURE | {"shake": 0.2})
    assert consensus([shaken(30.0, (20.0, 40.0), 0.9), nothing]).diagnosis.shake.direction == 30
    lost = consensus([shaken(30.0, (20.0, 40.0), 0.7), nothing])
    assert lost.diagnosis == Diagnosis() and lost.intervals == {} and lost.presence["shake"] == pytest.approx(0.45)


def test_angles_are_averaged_around_the_circle():
    found = consensus([shaken(175.0, (165.0, 183.0)), shaken(5.0, (-3.0, 15.0))])
    assert found.diagnosis.shake.direction == 0
    assert found.intervals["shake"]["direction"] == [pytest.approx((-9.0, 9.0))]
    # An interval may lie a period away from the angle, which was rounded up to 0.
    found = consensus([shaken(0.0, (170.0, 188.0)), shaken(10.0, (0.0, 20.0))])
    assert found.intervals["shake"]["direction"] == [pytest.approx((-5.0, 14.0))]


def test_intervals_are_means_of_ends_and_hold_what_is_said():
    def foggy(light, interval):
        fog = Fog(40.0, (light, 0.7, 0.6), 0.5)
        return Examination(Diagnosis(fog=fog), SURE | {"fog": 0.9}, {"fog": {"atmospheric_light": [interval] * 3}})

    found = consensus([foggy(0.97, (0.9, 1.0)), foggy(0.98, (0.9, 1.0))])
    assert found.intervals["fog"]["atmospheric_light"][0] == pytest.approx((0.9, 1.0))
    assert found.diagnosis.fog.atmospheric_light[0] in (0.97, 0.98)
    found = consensus([foggy(0.97, (0.97, 0.97)), foggy(0.98, (0.98, 0.98))])
    said, (low, high) = found.diagnosis.fog.atmospheric_light[0], found.intervals["fog"]["atmospheric_light"][0]
    assert low - 1e-9 <= said <= high + 1e-9 and high - low == pytest.approx(0.005)


def test_a_mirror_image_is_turned_back():
    rain = Rain(12.0, 0.002, -12.0, 21.0, 1.5, 0.6, (0.9, 0.9, 0.9))
    intervals = {"rain": {"slant": [(-20.0, -10.0)], "density": [(0.001, 0.003)]}, "shake": {"direction": [(20.0, 60.0)]}}
    seen = Examination(Diagnosis(shake=Shake(20.0, 35.0, 2.8, 0.2), rain=rain), SURE | {"shake": 1.0, "rain": 1.0}, intervals)
    turned = mirrored(seen)
    assert (turned.diagnosis.shake.direction, turned.diagnosis.rain.slant) == (145, 12)
    assert turned.intervals["shake"]["direction"] == [pytest.approx((120.0, 160.0))]
    assert turned.intervals["rain"] == {"slant": [(10.0, 20.0)], "density": [(0.001, 0.003)]}
    assert mirrored(turned).diagnosis == seen.diagnosis and turned.presence == seen.presence
    level = shaken(0.0, (-10.0, 30.0))
    assert mirrored(level).diagnosis.shake.direction == 0
    assert mirrored(level).intervals["shake"]["direction"] == [pytest.approx((-30.0, 10.0))]
    assert mirrored(Examination(Diagnosis(shake=Shake(None, None, None, None)), SURE)).diagnosis.shake.direction is None


def test_the_mean_of_angles_is_that_of_their_vectors():
    assert mean_of([170.0, 20.0], 180) == pytest.approx(5.0)
    assert mean_of([170.0, 20.0]) == pytest.approx(95.0)
    assert mean_of([170.0, 10.0, 90.0], 180, [0.5, 0.5, 0.0]) % 180 == pytest.approx(0, abs=1e-9)
