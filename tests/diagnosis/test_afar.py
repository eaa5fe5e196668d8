import pytest
import torch

from rnr.degradation import shake as physics
from rnr.diagnosis import KINDS, Diagnosis, Fog, Shake
from rnr.diagnosis.afar import LEAST, agree, completed
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.types import quantities

FOG = Fog(40.0, (0.8, 0.8, 0.8), 0.6)
CHANCES = dict.fromkeys(KINDS, 0.2) | {"fog": 1.0}
PHOTO = Examination(Diagnosis(fog=FOG, scene="A dog."), CHANCES, {"fog": {"severity": [(35, 45)]}})


def copy(shake, chance=0.9, intervals=None):
    return Examination(Diagnosis(shake=shake, fog=Fog(10.0, (1, 1, 1), 0.9)), dict.fromkeys(KINDS, chance), intervals or {})


def test_a_shake_grows_with_the_photo():
    spans = {"severity": [(15.0, 30.0)], "length": [(1.5, 3.0)], "energy": [(0.1, 0.3)], "direction": [(-5.0, 20.0)]}
    found = completed(PHOTO, copy(Shake(21.0, 8.0, 2.0, 0.2), intervals={"shake": spans}))
    assert found.diagnosis == Diagnosis(fog=FOG, scene="A dog.", shake=Shake(41.0, 8.0, 4.0, 0.141, chance=0.9))
    assert found.presence == PHOTO.presence | {"shake": 0.9}
    grown = {"severity": [(29.0, 59.0)], "length": [(3.0, 6.0)], "energy": [(0.071, 0.212)], "direction": [(-5.0, 20.0)]}
    assert found.intervals == {"fog": {"severity": [(35, 45)]}, "shake": grown}


def test_it_grows_as_a_path_does():
    """The same walks in steps twice as long."""
    u = torch.rand(300, physics.ShakePrior.draws, generator=torch.Generator().manual_seed(0))
    near, photo = (
        physics.moments(physics.ShakePrior(stride=(stride, stride), turn=(2, 10)).sample(u).kernel) for stride in (0.2, 0.4)
    )
    severities = [physics.severity(walk.rms_radius) for walk in (near, photo)]
    errors = []
    for i in range(len(u)):
        seen = Shake(*(each[i].item() for each in (severities[0], near.direction, near.length, near.energy)))
        found = completed(PHOTO, copy(seen)).diagnosis.shake
        true = severities[1][i], photo.length[i], photo.energy[i]
        values = zip((found.severity, found.length, found.energy), true, strict=True)
        errors.append([value / each.item() - 1 for value, each in values])
    errors = torch.tensor(errors)
    assert (errors.mean(dim=0).abs() < 0.08).all()
    assert (errors.abs().quantile(0.9, dim=0) < 0.15).all()


def test_it_stays_within_bounds():
    found = completed(PHOTO, copy(Shake(60.0, 0.0, 40.0, 0.3), intervals={"shake": {"length": [(20.0, 50.0)]}}))
    assert (found.diagnosis.shake.severity, found.diagnosis.shake.length) == (100, 64)
    assert found.intervals["shake"] == {"length": [(40, 64)]}


def test_only_what_is_asked_for_is_taken_over():
    seen = copy(Shake(21.0, 8.0, 2.0, 0.2), intervals={"shake": {"severity": [(15.0, 30.0)], "length": [(1.5, 3.0)]}})
    bare = completed(PHOTO, seen, ["presence"])
    assert bare.diagnosis.shake == Shake(None, None, None, None, chance=0.9)
    assert bare.intervals["shake"] == {}
    scored = completed(PHOTO, seen, ["presence", "severity"])
    assert scored.diagnosis.shake == Shake(41.0, None, None, None, chance=0.9)
    assert list(scored.intervals["shake"]) == ["severity"]


def shaken(severity, direction):
    return copy(Shake(severity, direction, 1.5, 0.4))


@pytest.mark.parametrize(("near", "far"), [((12, 10), (7, 25)), ((LEAST, 5), (5, 170)), ((30, 90), (90, 90))])
def test_copies_that_show_the_same_shake_agree(near, far):
    assert agree(shaken(*near), shaken(*far))


@pytest.mark.parametrize(("near", "far"), [((12, 10), (7, 40)), ((LEAST - 0.1, 10), (7, 10)), ((12, 5), (7, 160))])
def test_softness_does_not_count_nor_another_direction(near, far):
    assert not agree(shaken(*near), shaken(*far))


@pytest.mark.parametrize(("near", "far"), [(0.79, 1.0), (1.0, 0.79)])
def test_both_must_be_sure(near, far):
    same = Shake(12, 10, 1.5, 0.4)
    assert not agree(copy(same, near), copy(same, far))
    assert agree(copy(same, 0.8), copy(same, 0.8))


def test_what_is_not_seen_or_not_stated_does_not_agree():
    silent = copy(Shake(*[None] * len(quantities(Shake))))
    for other in (copy(None), silent):
        assert not agree(shaken(12, 10), other)
        assert not agree(other, shaken(12, 10))
