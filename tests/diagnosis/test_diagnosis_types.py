import dataclasses
import math

import pytest
from diagnosis_strategies import doubtful as diagnoses
from diagnosis_strategies import subsets
from hypothesis import given

from rnr.diagnosis import FIELDS, KINDS, Diagnosis, Fog, Noise, Rain, Shake
from rnr.diagnosis.types import FINDINGS, MAX_SCENE_WORDS, quantities

MIDDLE = {
    kind: {key: (0.5,) * spec.count if spec.count > 1 else (spec.low + spec.high) / 2 for key, spec in table.items()}
    for kind, table in ((kind, quantities(finding)) for kind, finding in FINDINGS.items())
}
QUANTITIES = [(kind, key, spec) for kind in KINDS for key, spec in quantities(FINDINGS[kind]).items()]
EACH = pytest.mark.parametrize(("kind", "key", "spec"), QUANTITIES, ids=[".".join(names[:2]) for names in QUANTITIES])


def build(kind, key, value, spec):
    return FINDINGS[kind](**{**MIDDLE[kind], key: (value,) * spec.count if spec.count > 1 else value})


@EACH
def test_the_limits_themselves_are_allowed(kind, key, spec):
    for limit in (spec.low, spec.high):
        stored = getattr(build(kind, key, limit, spec), key)
        assert stored == ((limit,) * spec.count if spec.count > 1 else limit)
        assert all(type(v) is float for v in (stored if spec.count > 1 else (stored,)))


@EACH
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_error_names_the_quantity_the_value_and_the_limits(kind, key, spec, sign):
    value = math.nextafter(spec.high, math.inf) if sign > 0 else math.nextafter(spec.low, -math.inf)
    with pytest.raises(ValueError) as error:
        build(kind, key, value, spec)
    message = str(error.value)
    assert f"{kind}.{key}" in message
    assert repr(value) in message  # to the last digit: 'within [1, 100], got 100' would help nobody
    assert f"[{spec.low:g}, {spec.high:g}]" in message


@EACH
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "5", [5], 5j], ids=repr)
def test_what_is_no_finite_number_is_refused(kind, key, spec, value):
    with pytest.raises(ValueError, match=rf"{kind}\.{key} must be"):
        build(kind, key, value, spec)


def test_a_number_too_large_for_a_float_is_refused_with_a_value_error():
    with pytest.raises(ValueError, match=r"fog\.severity must lie within \[1, 100\]"):
        Fog(10**400, (0.5, 0.5, 0.5), 0.5)


@pytest.mark.parametrize("light", [0.5, (0.5, 0.5), (0.5,) * 4, "0.5", {"r": 1, "g": 1, "b": 1}], ids=repr)
def test_a_color_has_three_channels(light):
    with pytest.raises(ValueError, match=r"fog\.atmospheric_light must be 3 numbers"):
        Fog(50, light, 0.5)


def test_a_list_and_integers_become_a_tuple_of_floats():
    assert Fog(50, [0, 1, 0], 1) == Fog(50.0, (0.0, 1.0, 0.0), 1.0)


def test_a_finding_stands_only_in_its_own_place():
    with pytest.raises(ValueError, match="fog must be a Fog or None, got Noise"):
        Diagnosis(fog=Noise(50, 0.1, 5))


@pytest.mark.parametrize("scene", ["", " \n\t", 5, b"trees"], ids=repr)
def test_a_scene_must_be_text(scene):
    with pytest.raises(ValueError, match="scene must be text or None"):
        Diagnosis(scene=scene)


def test_a_scene_has_at_most_thirty_words():
    assert Diagnosis(scene="word " * MAX_SCENE_WORDS).scene == " ".join(["word"] * 30)
    with pytest.raises(ValueError, match="at most 30 words, got 31"):
        Diagnosis(scene="word " * 31)


def test_a_scene_is_one_line():
    assert Diagnosis(scene=" a bus\r\n\nand\u2028 a\ttree ").scene == "a bus and a tree"


def test_severities_in_the_order_of_the_kinds_absence_as_zero():
    diagnosis = Diagnosis(noise=Noise(31, 0.1, 5), fog=Fog(55.9, (0.8, 0.8, 0.8), 0.4))
    assert diagnosis.severities == (55.9, 0.0, 0.0, 31.0)
    assert Diagnosis().severities == (0.0,) * 4


def test_severities_that_are_not_stated_are_not_taken_for_zero():
    with pytest.raises(ValueError, match="does not state its severities"):
        _ = Diagnosis(fog=Fog(None, (0.8, 0.8, 0.8), 0.4)).severities


@given(diagnoses, subsets)
def test_keep_states_just_the_fields(diagnosis, fields):
    kept = diagnosis.keep(fields)
    assert kept.scene == (diagnosis.scene if "scene" in fields else None)
    for kind in KINDS:
        assert (kept[kind] is None) == (diagnosis[kind] is None)
        if kept[kind] is not None:
            for key, value in dataclasses.asdict(kept[kind]).items():
                stated = key == "chance" or ("severity" if key == "severity" else "parameters") in fields
                assert value == (getattr(diagnosis[kind], key) if stated else None)
    assert kept.keep(fields) == kept
    assert diagnosis.keep(iter(FIELDS)) == diagnosis


def test_keep_refuses_unknown_fields_and_the_loss_of_presence():
    with pytest.raises(ValueError, match="unknown field 'severities'; fields are presence, severity"):
        Diagnosis().keep(["presence", "severities"])
    with pytest.raises(ValueError, match="states presence"):
        Diagnosis().keep(["severity", "scene"])


def test_items_by_kind():
    rain, shake = Rain(5, 0.1, 0, 9, 1, 0.5, (1, 1, 1)), Shake(5, 90, 3, 0.5)
    diagnosis = Diagnosis(rain=rain, shake=shake)
    assert [diagnosis[kind] for kind in KINDS] == [None, shake, rain, None]
    with pytest.raises(KeyError, match="'scene' is none of fog, shake, rain, noise"):
        diagnosis["scene"]


def test_diagnoses_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Diagnosis().fog = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        Noise(50, 0.1, 5).k = 0.2
