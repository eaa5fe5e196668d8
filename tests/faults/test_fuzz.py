"""Whatever a text, a JSON file, a photo's bytes or a file's name may be: an answer or the one error that is promised.

``FUZZ`` inputs of each, 100,000 for ``make faults``: half from hypothesis' grammar or valid examples with mutations, and
none may raise anything else, nor write anywhere but where it was told to.
"""

import io
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rnr.data.photos import FORMATS, PhotoError, inside, open_photo, photo_size
from rnr.diagnosis import Diagnosis, Fog, Noise, ParseFailure, Rain, Shake, files, parse, render
from rnr.photo_commands import _folder_name

FUZZ = int(os.environ.get("FUZZ", "500"))
FULL = Diagnosis(
    Fog(55.9, (0.86, 0.91, 0.79), 0.43), Shake(20, 45, 7.5, 0.2), Rain(8, 0.002, -10, 20, 2, 0.5, (0.8, 0.8, 0.9)),
    Noise(12.4, 0.12, 5), "A red bus before a brick building.",
)  # fmt: skip
TEXTS = [render(FULL), render(Diagnosis()), render(Diagnosis(fog=FULL.fog, scene="Überall 雨."))]
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


def check_text(text: str) -> None:
    answer = parse(text)
    if isinstance(answer, Diagnosis):
        assert render(answer) == text.strip()
    else:
        assert isinstance(answer, ParseFailure) and answer.text == text and answer.reason


def test_texts():
    chance = random.Random(0)
    for _ in range(FUZZ):
        check_text(mutated(chance.choice(TEXTS).encode(), chance).decode(errors="replace"))


@given(st.text() | st.lists(st.sampled_from([*"\n.,: 019+-", "yes", "Severity", "Scene: ", *TEXTS])).map("".join))
@fuzzed
def test_any_text(text):
    check_text(text)


def check_json(path: Path) -> None:
    try:
        diagnosis = files.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        return
    files.save(diagnosis, path)
    assert files.load(path) == diagnosis
    assert isinstance(parse(render(diagnosis)), Diagnosis)


def test_json_files(tmp_path):
    chance, path = random.Random(1), tmp_path / "diagnosis.json"
    example = json.dumps(files.to_dict(FULL)).encode()
    for _ in range(FUZZ):
        path.write_bytes(mutated(example, chance))
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


@pytest.mark.parametrize("form", FORMATS)
def test_photos(form, tmp_path):
    chance, path = random.Random(form), tmp_path / "photo"
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8))
    examples = []
    for image in (pixels, pixels.convert("L"), pixels.convert("P") if form in ("PNG", "BMP", "TIFF") else pixels):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, form, **({"exif": exif} if form in ("JPEG", "PNG", "TIFF", "WEBP") else {}))
        examples.append(file.getvalue())
    opened = 0
    for _ in range(FUZZ // 6):
        path.write_bytes(mutated(chance.choice(examples), chance))
        try:
            photo = open_photo(path, max_pixels=100_000)
        except PhotoError as error:
            assert str(path) in str(error)
            continue
        opened += 1
        assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3 and photo[..., 0].size <= 100_000
        assert photo.shape[:2] == photo_size(path)
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
