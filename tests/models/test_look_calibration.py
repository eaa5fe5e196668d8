import math

import pytest
import torch

from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, Rain, Shake
from rnr.models.calibration import Look, _written, chances, crossed, fit, proven, told
from rnr.models.decoding import Answer, Decision
from rnr.models.estimates import Calibration, Reading
from rnr.models.form import Choice, Form, Place
from rnr.models.tokenizer import train_tokenizer, vocabulary

FINDINGS = {
    "fog": Fog(50, (0.8, 0.8, 0.8), 0.5),
    "shake": Shake(20, 35, 2.8, 0.2),
    "rain": Rain(12, 0.002, -12, 21, 1.5, 0.6, (0.9, 0.9, 0.9)),
    "noise": Noise(31, 0.12, 5),
}


@pytest.fixture(scope="module")
def form():
    return Form(train_tokenizer(vocabulary(), 600))


def look(photo, odds, there):
    """A look at a photo of whose degradations the reasoner gives the log-odds ``odds`` and finds none."""
    scores = torch.tensor([0.0, odds]).log_softmax(dim=0)
    flags = [Decision(Choice(Place(kind, "presence"), [], torch.tensor([7, 8])), 7, scores) for kind in KINDS]
    return Look(photo, Reading(Answer([], flags), Diagnosis()), Diagnosis(**(FINDINGS if there else {})))


def test_temperatures_come_from_the_other_half(form):
    odds = 2.0  # a chance of 0.88
    first = [look(photo, odds, photo % 100 < 75) for photo in range(200)]  # where 0.75 was right
    second = [look(photo, odds, photo % 100 < 95) for photo in range(200, 400)]  # and 0.95
    hot, cold = odds / math.log(0.75 / 0.25), odds / math.log(0.95 / 0.05)
    found = crossed([*first, *second], form)
    for kind in KINDS:
        assert [at.presence[kind] for at in found[:200]] == pytest.approx([cold] * 200, rel=0.1)
        assert [at.presence[kind] for at in found[200:]] == pytest.approx([hot] * 200, rel=0.1)
    given, there = chances(first, found[200:], "fog")
    assert given.tolist() == pytest.approx([0.75] * 200, abs=0.02) and there.sum() == 150


def test_what_was_not_found_has_no_numbers(form):
    looks = [look(0, -1.0, True), look(1, 1.0, False)]
    assert fit(looks, form).margins == {}
    assert told(looks, [Calibration()] * 2, form) == {}


def told_of(photo, stated, true):
    """A look at a photo in fog of severity ``true``, where the reasoner is sure of ``stated``."""
    flags = []
    for kind in KINDS:
        odds = 9.0 if kind == "fog" else -9.0
        scores = torch.tensor([0.0, odds]).log_softmax(dim=0)
        flags.append(Decision(Choice(Place(kind, "presence"), [], torch.tensor([7, 8])), 7 + (kind == "fog"), scores))
    said, so = (Diagnosis(fog=Fog(each, (0.8, 0.8, 0.8), 0.5)) for each in (stated, true))
    return Look(photo, Reading(Answer([], flags), said), so)


def test_margins_make_intervals_as_wide_as_errors_are(form):
    looks = [told_of(photo, 50.0, 50.0 + photo % 11 - 5) for photo in range(220)]
    fitted = fit(looks, form)
    assert fitted.margins["fog"]["severity"] == [3.0, 4.0, 5.0], "of 11 errors up to 5 more than half are within 3"
    assert fitted.margins["fog"]["transmission"] == [0.0] * 3, "always right"
    before, after = (told(looks, [at] * 220, form)["fog", "severity"] for at in (Calibration(), fitted))
    assert [before.figures(level).covered for level in before.intervals] == pytest.approx([1 / 11] * 3)
    assert [after.figures(level).covered for level in after.intervals] == pytest.approx([7 / 11, 9 / 11, 1])
    kept = proven(looks, Calibration(), crossed(looks, form), fitted, form)
    assert kept.margins == {"fog": {"severity": [3.0, 4.0, 5.0]}}
    # One half errs by little, the other by far: neither's margins are right elsewhere.
    uneven = [told_of(photo, 50.0, 50.0 + (photo < 110) * 20) for photo in range(220)]
    assert proven(uneven, kept, crossed(uneven, form), fit(uneven, form), form).margins == kept.margins


@pytest.mark.parametrize(
    ("exact", "written"), [(0.12345, 0.1235), (-0.12345, -0.1234), (12.0, 12.0), (0.0, 0.0), (1e-12, 0.0), (9.99991, 10.0)]
)
def test_margins_are_written_no_shorter_than_they_are(exact, written):
    assert _written(exact) == written


def test_only_temperatures_that_help_elsewhere_are_kept(form):
    boast = [look(photo, 2.0, photo % 100 < 60) for photo in range(400)]  # a chance of 0.88 where 0.6 is right
    fitted = fit(boast, form)
    assert proven(boast, Calibration(), crossed(boast, form), fitted, form) == fitted != Calibration()
    # One half would have the chance lower, the other higher, and it is right as it is.
    right = [look(photo, 2.0, photo % 100 < (80 if photo < 200 else 96)) for photo in range(400)]
    assert proven(right, Calibration(), crossed(right, form), fit(right, form), form) == Calibration()
