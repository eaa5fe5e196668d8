import pytest
import torch

from rnr.diagnosis import Diagnosis, Fog, Noise, Rain
from rnr.models.baselines.blind import Blind
from rnr.models.baselines.chain import Chain
from rnr.models.interfaces import Restorer

RAINY_NOISE = Diagnosis(rain=Rain(5, 0.001, 0, 20, 2, 0.5, (1, 1, 1)), noise=Noise(5, 0.1, 2))
FOGGY = Diagnosis(fog=Fog(50, (0.9, 0.9, 0.9), 0.5))


class Digit(Restorer):
    """Appends a digit to the number that each pixel is, so that the result tells who was there, and when."""

    def __init__(self, digit: int) -> None:
        super().__init__()
        self.digit, self.calls = digit, []

    def restore(self, images, diagnoses, seeds):
        self.calls.append((list(diagnoses), list(seeds)))
        return images * 10 + self.digit


@pytest.fixture
def steps():
    return {kind: Digit(i) for i, kind in enumerate(("noise", "rain", "shake", "fog"), start=1)}


def numbers(restorer, diagnoses):
    photos = torch.zeros(len(diagnoses), 3, 2, 2)
    out = restorer.restore(photos, diagnoses, list(range(len(diagnoses))))
    assert not photos.any()
    return out[:, 0, 0, 0].tolist()


def test_steps_run_in_reverse_order_on_the_photos_that_need_them(steps):
    assert numbers(Chain(**steps), [RAINY_NOISE, None, FOGGY, Diagnosis()]) == [12, 1234, 4, 0]
    assert steps["rain"].calls == [([RAINY_NOISE, None], [0, 1])]
    assert steps["fog"].calls == [([None, FOGGY], [1, 2])]


def test_a_step_may_be_left_out(steps):
    assert numbers(Chain(**{**steps, "fog": None}), [None, FOGGY]) == [123, 0]


def test_a_step_without_photos_does_not_run(steps):
    numbers(Chain(**steps), [FOGGY])
    assert not steps["noise"].calls


def test_blind_is_told_nothing(steps):
    assert numbers(Blind(Chain(**steps)), [RAINY_NOISE, Diagnosis()]) == [1234, 1234]
