"""``rnr calibrate``, as a person uses it, on a reasoner that is very sure of what it makes up."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from rnr.calibrate_command import calibrate
from rnr.diagnosis import KINDS, render
from rnr.diagnosis.text import NAMES
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.small_reasoner import SmallReasoner
from rnr.models.views import Views
from rnr.records import Record


@pytest.fixture(scope="module")
def boaster(tmp_path_factory):
    """The folder of a reasoner whose opinions, all of them firm, have nothing to do with the photo."""
    torch.manual_seed(0)
    small = SmallReasoner(vision_depth=1, vision_width=64, patch=8, text_depth=1, text_width=64, vocab_size=600)
    reasoner = Qwen3VLReasoner(small=small, views=Views(size=32, tiles=1))
    with torch.no_grad():
        reasoner.model.get_input_embeddings().weight.mul_(6)  # tied to the head
    folder = tmp_path_factory.mktemp("boaster") / "reasoner"
    reasoner.save(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rows, columns = np.mgrid[:40, :48]
    for i in range(6):
        wave = 120 + 60 * np.sin(rows / (3 + i)) + 60 * np.cos(columns / 4)
        Image.fromarray(np.stack([wave, wave[::-1], 255 - wave], axis=-1).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def calibration(folder):
    return json.loads((folder / "reasoner.json").read_text())["calibration"]


def test_a_boaster_is_cooled_and_his_answers_stay(boaster, photos, tmp_path, capsys):
    (photos / "broken.png").write_text("no image")
    output, figure = tmp_path / "out" / "calibrated", tmp_path / "reliability.png"
    argv = [str(photos), "--draws", "3", "--reasoner", str(boaster), "-o", str(output), "--figure", str(figure)]
    assert calibrate(argv) == 1, "a photo could not be used"
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "broken.png" in errors[0]
    assert "18 photos degraded" in printed.out
    for said in ("Brier", "of the base rate", "ECE", "90% covers", "of the rival", *NAMES.values()):
        assert said in printed.out
    assert Image.open(figure).width > 500
    presence, _, temperatures, margins = Record.read(figure.with_suffix(".json")).tables.values()
    assert [row[""] for row in presence] == list(NAMES.values())
    assert temperatures[0]["presence"].startswith("1.00 → ")
    assert [path.name for path in output.parent.iterdir()] == ["calibrated"]
    found = calibration(output)
    assert calibration(boaster) == {"presence": dict.fromkeys(KINDS, 1.0), "margins": {}}
    cooled = {kind: float(row["presence"].partition(" → ")[2]) for kind, row in zip(KINDS, temperatures, strict=True)}
    assert all(1 < cooled[kind] <= 10 for kind in KINDS)
    kept = [kind for kind in KINDS if found["presence"][kind] != 1]  # six photos do not prove it of every kind
    assert kept and all(found["presence"][kind] == pytest.approx(cooled[kind], abs=0.006) for kind in kept)
    assert [float(row["written"]) for row in temperatures] == pytest.approx(list(found["presence"].values()), abs=0.006)
    stated = {row[""]: row for row in margins}
    by_key = ((f"{kind} {key}", values) for kind, each in found["margins"].items() for key, values in each.items())
    wider = {name.replace("_", " "): values for name, values in by_key}
    assert wider and set(wider) <= set(stated)
    for name, values in wider.items():
        assert [float(each) for each in stated[name]["written"].split(",")] == pytest.approx(values, rel=0.01)
        assert float(stated[name]["90%"].partition(" → ")[2]) == pytest.approx(values[-1], rel=0.01)
    image = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    before, after = (Qwen3VLReasoner(str(folder)).examine(image)[0] for folder in (boaster, output))
    assert render(before.diagnosis) == render(after.diagnosis) and before.presence != after.presence


def test_what_was_fitted_before_changes_nothing(boaster, photos, tmp_path):
    """A calibration is fitted on what was weighed, not on what an earlier one made of it."""
    first, second = tmp_path / "first", tmp_path / "second"
    rest = ["--figure", str(tmp_path / "a.png"), "--limit", "3"]
    assert calibrate([str(photos), "--reasoner", str(boaster), "-o", str(first), *rest]) == 0
    assert calibrate([str(photos), "--reasoner", str(first), "-o", str(second), *rest]) == 0
    assert calibration(first) == calibration(second)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--draws", "0"], "--draws: must be a whole number of at least 1, got '0'"),
        (["--limit", "0"], "--limit: must be a whole number of at least 1, got '0'"),
        (["--preset", "fogg"], "'fogg' is neither a file nor a preset"),
        (["--reasoner", "runs/nowhere"], "no weights in runs/nowhere"),
        (["-o", "."], "is there already"),
        (["--figure", "reliability"], "must end in one of"),
    ],
)
def test_a_wrong_command_line_is_explained_before_any_work(argv, said, photos, capsys):
    with pytest.raises(SystemExit) as stop:
        calibrate([str(photos), *argv])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_photos_that_cannot_be_used_are_all_there_is(boaster, tmp_path, capsys):
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(SystemExit) as stop:
        calibrate([str(tmp_path), "--reasoner", str(boaster)])
    assert stop.value.code == 1
    assert "none of the photos could be examined" in capsys.readouterr().err


def test_help_says_which_photos_may_be_used(capsys):
    with pytest.raises(SystemExit):
        calibrate(["--help"])
    assert "none that it was trained on" in " ".join(capsys.readouterr().out.split())
