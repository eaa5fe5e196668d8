import pytest

from rnr.diagnosis import Diagnosis, Fog, Noise, Shake
from rnr.metrics.leading import leading, leading_figures

FOG, SHAKE, NOISE = Fog(30, (1, 1, 1), 0.7), Shake(20, 0, 2, 0.2), Noise(60, 0.2, 0)


def test_the_most_severe_leads():
    assert leading(Diagnosis(FOG, SHAKE)) == "fog"
    assert leading(Diagnosis(FOG, SHAKE, noise=NOISE)) == "noise"
    assert leading(Diagnosis()) is None


def test_folders_beside_a_rival_that_does_not_look():
    said = [Diagnosis(FOG), Diagnosis(FOG, noise=NOISE), Diagnosis(FOG, SHAKE), Diagnosis(shake=SHAKE), Diagnosis(FOG)]
    fog, blur = leading_figures(["fog", "fog", "blur", "blur", "blur"], said)
    assert fog == ("fog", 2, 1.0, 0.5, 1.0)
    assert blur == ("blur", 3, pytest.approx(2 / 3), pytest.approx(1 / 3), 0.0)
    assert leading_figures([], []) == []
