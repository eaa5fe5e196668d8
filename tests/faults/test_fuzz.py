"""Whatever a text, a JSON file, a photo's bytes or a file's name may be: an answer or the one error that is promised.

``FUZZ`` inputs of each, 100,000 for ``make faults``: half from hypothesis' grammar or valid examples with mutations, and
none may raise anything else, nor write anywhere but where it was told to.
"""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inputs import FULL, JSON, PHOTOS, TEXTS, check_json, check_photo, check_text

from rnr.data.photos import PhotoError, inside
from rnr.diagnosis import files
from rnr.photo_batch import _folder_name

FUZZ = int(os.environ.get("FUZZ", "500"))
fuzzed = settings(max_examples=FUZZ // 10, suppress_health_check=list(HealthCheck), database=None, derandomize=True)


def mutated(example: bytes, chance: random.Random) -> bytes:
    """``example`` with some bytes changed, cut out, doubled or put in."""
    content = bytearray(example)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at, length = chance.randrange(len(content) + 1), chance.choice((1, 1, 2, 4, 32))
        kind = chance.randrange(4)
        if kind == 0:
            content[at : at + length] = chance.randbytes(length)
        elif kind == 1:
            del content[at : at + length]
        elif kind == 2:
            content[at:at] = content[at : at + length]
        else:
            content[at:at] = chance.choice((b"\n", b"\0", b"yes", b"-", b"9" * 40, b"\xff\xff\xff\xff", b"1e999", b"nan"))
    return bytes(content)


def test_texts():
    chance = random.Random(0)
    for _ in range(FUZZ):
        check_text(mutated(chance.choice(TEXTS).encode(), chance).decode(errors="replace"))


@given(st.text() | st.lists(st.sampled_from([*"\n.,: 019+-", "yes", "Severity", "Scene: ", *TEXTS])).map("".join))
@fuzzed
def test_any_text(text):
    check_text(text)


def test_json_files(tmp_path):
    chance, path = random.Random(1), tmp_path / "diagnosis.json"
    for _ in range(FUZZ):
        path.write_bytes(mutated(JSON, chance))
        check_json(path)
    assert os.listdir(tmp_path) == [path.name]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
trees = leaves | st.lists(leaves, max_size=4) | st.dictionaries(st.text(max_size=4), leaves, max_size=3)
PATHS = [("scene",), *((kind, *key) for kind in ("fog", "shake", "rain", "noise") for key in ((), ("severity",)))]


@given(st.dictionaries(st.sampled_from([*PATHS, ("fog", "atmospheric_light"), ("noise", "b"), ("mood",)]), trees), trees)
@fuzzed
def test_any_json(tmp_path_factory, changes, tree):
    """Trees of any shape, and diagnoses with anything in the place of their values."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    whole = files.to_dict(FULL)
    for keys, value in changes.items():
        if len(keys) == 1 or not isinstance(whole[keys[0]], dict):
            whole[keys[0]] = value
        else:
            whole[keys[0]][keys[1]] = value
    for content in (whole, tree):
        path.write_text(json.dumps(content))
        check_json(path)


@pytest.mark.parametrize("form", PHOTOS)
def test_photos(form, tmp_path):
    chance, path = random.Random(form), tmp_path / "photo"
    examples, opened = PHOTOS[form], 0
    for _ in range(FUZZ // 6):
        path.write_bytes(mutated(chance.choice(examples), chance))
        opened += check_photo(path)
    assert opened, "mutations that leave nothing to open"
    assert os.listdir(tmp_path) == ["photo"]


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(names | st.sampled_from(["..", ".", "...png", " .png", "..\\..\\x.png", "~.png", "-rf.png", "a\nb.png", "$(id).png"]))
@fuzzed
def test_the_folder_of_a_photo_lies_in_the_output_folder(name):
    folder = _folder_name(Path("photos") / name, set())
    assert folder and folder not in (".", "..") and "/" not in folder
    assert Path(os.path.normpath(Path("/out") / folder)).parent == Path("/out")


@given(st.lists(names | st.sampled_from(["..", ".", "", "/", "/etc"]), min_size=1, max_size=6).map("/".join))
@fuzzed
def test_a_name_that_leads_out_of_its_folder_is_refused(name):
    try:
        path = inside(Path("/out"), name)
    except PhotoError:
        assert ".." in name or name.startswith("/")
    else:
        assert os.path.normpath(path).startswith("/out")
