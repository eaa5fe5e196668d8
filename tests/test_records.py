"""What a command printed, kept for machines: the same tables, the weights' hashes, the command as it was typed."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rnr.models.weights import SHIPPED
from rnr.records import Record, digest, named_weights, record, write_whole
from rnr.stage_commands import run


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"123")
    return tmp_path


def test_a_digest_is_of_the_content(weights):
    assert digest("a") == digest("b") and re.fullmatch("[0-9a-f]{64}", digest("a"))
    (weights / "b" / "model.safetensors").write_bytes(b"124")
    assert digest("a") != digest("b")
    (weights / "b" / "model.safetensors").write_bytes(b"123")
    (weights / "b" / "model.safetensors").rename(weights / "b" / "other.safetensors")
    assert digest("a") != digest("b")
    assert digest("runs/nowhere") == "" and digest("owner/no-such-model") == ""


def test_the_weights_of_a_configuration_are_those_that_are_there(weights):
    config = {"model": {"restorer": {"checkpoint": ["runs/nowhere", "a"]}, "reasoner": [{"x": {"checkpoint": "b"}}]}}
    assert named_weights(config) == ["a", "b"]
    assert named_weights({"checkpoint": None}) == []


def test_it_comes_back_as_it_was_written(weights):
    tables = {"Title": [{"": "é → 1", "PSNR (dB)": "12.30", "photos": 3}]}
    told = record(["worth", "photos with spaces"], tables, 7, ["b", "a", "a"])
    told.write(weights / "out" / "worth.json")
    assert Record.read(weights / "out" / "worth.json") == told
    assert told.command == ["rnr", "worth", "photos with spaces"] and list(told.weights) == ["a", "b"]
    assert {"python", "torch", "torchmetrics"} <= set(told.versions) and re.fullmatch(r"20\d\d-\d\d-\d\d", told.date)
    (weights / "other.json").write_text('{"command": []}')
    with pytest.raises(ValueError, match=r"other\.json: is no record of a command"):
        Record.read(weights / "other.json")


def test_names_that_are_no_utf8_come_back_too(weights):
    told = record(["worth", os.fsdecode(b"od\xffd dir")], {"Title": [{"photo": "\udcff.png"}]}, 7, [])
    told.write(weights / "worth.json")
    assert Record.read(weights / "worth.json") == told
    write_whole("# \udcff", weights / "worth.md")
    assert (weights / "worth.md").read_text() == "# \\udcff"


@pytest.mark.parametrize("command", ["test", "validate"])
def test_an_evaluation_leaves_what_it_printed_and_its_cost(command, tmp_path, monkeypatch, capsys):
    """The shipped models on three small photos, the third of which is not of the first batch."""
    (tmp_path / "photos").mkdir()
    for i in range(3):
        levels = np.random.default_rng(i).integers(0, 255, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(levels).resize((64, 48)).save(tmp_path / "photos" / f"{i}.png")
    split = command.replace("idate", "")
    options = [f"--data.sources.{split}=[{tmp_path / 'photos'}]", "--data.eval_batch_size=2", "--data.eval_seed=5"]
    typed = [command, *options, f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
    run(typed)
    told = Record.read(tmp_path / f"{command}.json")
    assert told.command == ["rnr", *typed] and told.seed == 5
    assert told.weights == {f"shipped/{name}": digest(str(SHIPPED / name)) for name in ("reasoner", "restorer")}
    (cost,) = next(rows for title, rows in told.tables.items() if title.startswith("Cost of a photo"))
    assert cost["photos"] == 1 and float(cost["s a photo"]) > 0 and "cpu" in cost[""]
    if command == "test":
        rows = list(csv.DictReader((tmp_path / "test.csv").open(newline="")))
        assert sorted(row["seconds"] == "nan" for row in rows) == [False, True, True], "the first batch warms up"
        markdown = (tmp_path / "test.md").read_text()
        assert all(f"## {title}\n" in markdown for title in told.tables)
        cells = [str(value) for rows in told.tables.values() for row in rows for value in row.values()]
        assert all(f"| {cell} " in markdown for cell in cells)


def test_lpips_is_off_and_says_what_it_lacks(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["test", "--lpips=runs/nowhere", f"--trainer.default_root_dir={tmp_path}"])
    assert "runs/nowhere: no weights of LPIPS's network there" in str(stop.value)
    assert not list(Path(tmp_path).glob("test.*"))
