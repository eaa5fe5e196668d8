import dataclasses
import json

import pytest
from diagnosis_strategies import doubtful as diagnoses
from hypothesis import given

from rnr.diagnosis import Diagnosis, Fog
from rnr.diagnosis.files import from_dict, load, save, to_dict
from rnr.diagnosis.prompt import EXAMPLE

FOG = {"severity": 50, "atmospheric_light": [0.8, 0.8, 0.9], "transmission": 0.4}
CLEAN = {"fog": None, "shake": None, "rain": None, "noise": None, "scene": None}


@given(diagnoses)
def test_a_diagnosis_survives_json_exactly(diagnosis):
    assert from_dict(json.loads(json.dumps(to_dict(diagnosis)))) == diagnosis


def test_a_diagnosis_survives_a_file_exactly(tmp_path):
    path = tmp_path / "photo.json"
    for diagnosis in (EXAMPLE, Diagnosis(), Diagnosis(scene="Bäume vor 東京 🌲")):
        save(diagnosis, path)
        assert load(path) == diagnosis
    assert "東京" in path.read_text(encoding="utf-8")  # a person may want to edit it


def test_a_chance_is_kept_and_certainty_goes_without_saying():
    unsure = Diagnosis(fog=Fog(50.0, (0.8, 0.8, 0.9), 0.4, chance=0.7))
    assert to_dict(unsure)["fog"]["chance"] == 0.7 and from_dict(to_dict(unsure)) == unsure
    assert "chance" not in to_dict(dataclasses.replace(unsure, fog=dataclasses.replace(unsure.fog, chance=1.0)))["fog"]


def test_integers_are_fine():
    assert from_dict(CLEAN | {"fog": FOG}) == Diagnosis(fog=Fog(50.0, (0.8, 0.8, 0.9), 0.4))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "a diagnosis must be an object with the keys fog, noise, rain, scene, shake, got list"),
        (None, "a diagnosis must be an object"),
        (CLEAN | {"blur": None}, "a diagnosis has no key 'blur'; its keys are fog, noise, rain, scene, shake"),
        ({"fog": None, "shake": None, "rain": None, "noise": None}, "a diagnosis lacks the key 'scene'"),
        (CLEAN | {"fog": 50}, "fog must be an object with the keys atmospheric_light, severity, transmission, got int"),
        (CLEAN | {"fog": []}, "fog must be an object"),
        (CLEAN | {"fog": FOG | {"beta": 1}}, "fog has no key 'beta'"),
        (CLEAN | {"fog": {"severity": 50}}, "fog lacks the key 'atmospheric_light'"),
        (CLEAN | {"fog": FOG | {"severity": 900}}, "fog.severity must lie within [1, 100], got 900"),
        (CLEAN | {"fog": FOG | {"severity": 0}}, "fog.severity must lie within [1, 100], got 0"),
        (CLEAN | {"fog": FOG | {"severity": None}}, "fog.severity must be a number, got null"),
        (CLEAN | {"fog": FOG | {"severity": "50"}}, "fog.severity must be a finite number, got '50'"),
        (CLEAN | {"fog": FOG | {"severity": True}}, "fog.severity must be a finite number, got True"),
        (CLEAN | {"fog": FOG | {"atmospheric_light": 0.8}}, "fog.atmospheric_light must be 3 numbers, got 0.8"),
        (CLEAN | {"fog": FOG | {"atmospheric_light": [0.8, None, 0.8]}}, "must be a finite number, got None"),
        *(
            (CLEAN | {"fog": FOG | {"chance": chance}}, "fog.chance must be a number within (0, 1], got")
            for chance in (0, 1.1, "0.5", True, [], float("nan"))
        ),
        ([{"photo": "a.png", "diagnosis": CLEAN}] * 2, "holds the diagnoses of 2 photos; one is wanted"),
        (CLEAN | {"scene": 7}, "scene must be text or None, got 7"),
        (CLEAN | {"scene": ""}, "scene must be text or None, got ''"),
        (CLEAN | {"scene": "word " * 31}, "at most 30 words, got 31"),
    ],
)
def test_a_file_that_is_no_diagnosis_is_refused_by_name(tmp_path, data, reason):
    path = tmp_path / "photo.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        load(path)
    assert reason in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"fog: null",
        '{"scene": "Bäume"}'.encode("latin-1"),
        b"\xff\xfe{\x00}\x00",
        b"[" * 200_000,
        b'{"fog":' * 200_000,
        json.dumps(CLEAN | {"fog": FOG}).replace("50", "NaN").encode(),
        json.dumps(CLEAN | {"fog": FOG}).replace("50", "1e999").encode(),
        json.dumps(CLEAN | {"fog": FOG}).replace("50", "9" * 400).encode(),
        json.dumps(CLEAN | {"fog": FOG}).replace("50", "9" * 5000).encode(),
        json.dumps(CLEAN | {"fog": FOG}).replace("50", "[" * 800 + "]" * 800).encode(),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_whatever_a_file_holds_the_error_is_a_value_error_that_names_it(tmp_path, content):
    path = tmp_path / "photo.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.json: "):
        load(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.json")
