"""``rnr scenes``, as a person uses it; the model's words come from a stand-in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rnr.data.photos import find_photos
from rnr.data_commands import scenes
from rnr.models import captioner

SHADES = {"a.png": 10, "b.png": 20, "sub/c.png": 30, "sub/d.png": 40}


class StandIn:
    """Says how bright a photo is; of one as bright as ``mute`` it says nothing, and it dies after ``lives`` batches."""

    mute, lives, batches = None, 99, []

    def __init__(self, checkpoint, device):
        if checkpoint != "model":
            raise FileNotFoundError(f"no weights in {checkpoint}")

    def describe(self, photos):
        if len(self.batches) == self.lives:
            raise KeyboardInterrupt
        self.batches.append([photo.shape for photo in photos])
        return [None if photo[0, 0, 0] == self.mute else f"A wall of shade {photo[0, 0, 0]}." for photo in photos]


@pytest.fixture
def model(monkeypatch):
    stand_in = type("Model", (StandIn,), {"batches": []})
    monkeypatch.setattr(captioner, "Captioner", stand_in)
    return stand_in


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for name, shade in SHADES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        size = (8, 12, 3) if name == "b.png" else (10, 10, 3)
        Image.fromarray(np.full(size, shade, np.uint8)).save(root / name)
    return root


def run(photos, output, *more):
    return scenes([str(photos), "-o", str(output), "--model", "model", *more])


def described(root):
    return {photo.name: photo.scene for photo in find_photos(root)}


EXPECTED = {name: f"A wall of shade {shade}." for name, shade in SHADES.items()}


@pytest.mark.parametrize("place", ["photos/scenes.jsonl", "scenes.jsonl"])
def test_find_photos_reads_what_was_written(photos, tmp_path, model, place):
    assert run(photos, tmp_path / place, "--batch", "2") == 0
    assert described(photos) == EXPECTED
    assert sorted(model.batches) == [[(8, 12, 3)], [(10, 10, 3)], [(10, 10, 3)] * 2]
    assert scenes(["--check", str(tmp_path / place)]) == 0


def test_a_name_that_is_no_utf8_is_described_and_found_again(photos, model):
    path = Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))
    Image.fromarray(np.full((10, 10, 3), 50, np.uint8)).save(path)
    assert run(photos, photos / "scenes.jsonl") == 0
    assert {photo.path: photo.scene for photo in find_photos(photos)}[path] == "A wall of shade 50."
    batches = len(model.batches)
    assert run(photos, photos / "scenes.jsonl") == 0 and len(model.batches) == batches, "nothing is left to do"


def test_a_photo_that_two_sources_hold_is_described_once(photos, tmp_path, model):
    file = tmp_path / "scenes.jsonl"
    link = tmp_path / "link"
    link.symlink_to(photos)
    assert scenes([str(photos), str(photos / "sub"), str(link), "-o", str(file), "--model", "model"]) == 0
    assert len(file.read_text().splitlines()) == len(SHADES)
    assert scenes(["--check", str(file)]) == 0


@pytest.mark.parametrize(
    "rest", ["", '{"ph', '{"photo": "sub/d.png", "sce', '{"photo": "b.png", "scene": "A wall of shade 20."}']
)
def test_killed_and_run_again_it_goes_on(photos, model, rest):
    file = photos / "scenes.jsonl"
    model.lives = 1
    with pytest.raises(KeyboardInterrupt):
        run(photos, file, "--batch", "2")
    before = file.read_text()
    assert len(before.splitlines()) == 2
    file.write_text(before + rest)
    model.lives = 99
    assert run(photos, file, "--batch", "2") == 0
    assert described(photos) == EXPECTED
    assert file.read_text().startswith(before) and len(file.read_text().splitlines()) == 4
    asked = len(model.batches)
    assert run(photos, file) == 0
    assert len(model.batches) == asked


def test_photos_without_a_scene_are_named_and_the_rest_go_on(photos, model, capsys):
    model.mute = 30
    (photos / "broken.png").write_bytes(b"no photo")
    assert run(photos, photos / "scenes.jsonl") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "broken.png" in errors[0] and "c.png: has no scene" in errors[1]
    assert described(photos) == EXPECTED | {"sub/c.png": None, "broken.png": None}


@pytest.mark.parametrize(
    "content", [b"no scenes", b"no scenes\n", b'{"photo": "a.png", "scene": "A dog."}\n{}\n', b"\x89PNG"]
)
def test_a_file_that_is_no_list_of_scenes_is_left_alone(photos, tmp_path, model, content, capsys):
    file = tmp_path / "precious"
    file.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        run(photos, file)
    assert stop.value.code == 2 and "precious" in capsys.readouterr().err
    assert file.read_bytes() == content


def test_check_names_the_lines_that_break_the_rules(tmp_path, capsys):
    file = tmp_path / "scenes.jsonl"
    rows = [("a.png", "A dog."), ("b.png", "A dog in fog."), ("a.png", "word " * 31), ("c.png", None), ("d.png", "")]
    file.write_text("".join(json.dumps({"photo": p, "scene": s}) + "\n" for p, s in rows) + "{\n")
    assert scenes(["--check", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    expected = [(2, "fog"), (3, "31 words"), (3, "line 1 already"), (4, "None"), (5, "empty"), (6, "expected {")]
    assert len(lines) == len(expected) + 1
    for line, (number, words) in zip(lines, expected, strict=False):
        assert line.startswith(f"{file}, line {number}: ") and words in line
    assert "5 of them" in lines[-1]


@pytest.mark.parametrize(
    "arguments", [[], ["x"], ["x", "-o", "y"], ["--check", "x", "y"], ["x", "-o", "y", "--model", "m", "--batch", "0"]]
)
def test_wrong_command_lines(arguments, model):
    with pytest.raises(SystemExit) as stop:
        scenes(arguments)
    assert stop.value.code == 2


def test_a_model_that_is_not_there(photos, model, capsys):
    with pytest.raises(SystemExit) as stop:
        scenes([str(photos), "-o", str(photos / "scenes.jsonl"), "--model", "nowhere"])
    assert stop.value.code == 2 and "no weights in nowhere" in capsys.readouterr().err


def test_the_command_line_reaches_it(tmp_path):
    file = tmp_path / "scenes.jsonl"
    file.write_text(json.dumps({"photo": "a.png", "scene": "A dog in the rain."}) + "\n")
    code = "from rnr.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, "scenes", "--check", file], capture_output=True, text=True)
    assert result.returncode == 1 and "line 1: the scene speaks of degradation (rain)" in result.stdout
