"""``rnr worth``, as a person uses it, on a restorer that does what it is told."""

import csv

import numpy as np
import pytest
import torch
from fakes import Watcher, brighter_and_brighter
from PIL import Image

from rnr import worth_command
from rnr.diagnosis import Diagnosis, Fog, Noise
from rnr.models.interfaces import Restorer
from rnr.records import Record
from rnr.worth_command import ANOTHER, INPUT, NONE, OWN, TRUE, worth


class Teller(Restorer):
    """Leaves photos as they are, and remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def restore(self, images, diagnoses, seeds):
        self.told.append((images.clone(), list(diagnoses)))
        return images


@pytest.fixture
def photos(tmp_path):
    return brighter_and_brighter(tmp_path / "photos")


@pytest.fixture
def teller(monkeypatch):
    restorer = Teller()
    monkeypatch.setattr(worth_command, "load_reasoner", lambda name: Watcher())
    monkeypatch.setattr(worth_command, "load_restorer", lambda name: restorer)
    return restorer


def test_each_way_gets_its_diagnosis(photos, teller, tmp_path, capsys):
    (photos / "x.png").write_text("no image")
    file = tmp_path / "out" / "worth.md"
    assert worth([str(photos), "--preset", "half", "--draws", "2", "-o", str(file)]) == 1, "a photo could not be used"
    printed = capsys.readouterr()
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "x.png" in error
    assert "3 photos" in printed.out and all(way in printed.out for way in (INPUT, NONE, ANOTHER, OWN, TRUE))
    images = [seen for seen, _ in teller.told[::4]]
    said = [Watcher().diagnose(each) for each in images]
    for i in range(3):
        none, another, own, true = (told for _, told in teller.told[4 * i : 4 * i + 4])
        assert none == [None, None]
        assert own == said[i]
        assert another == said[i - 1]
        assert all(isinstance(each, Diagnosis) for each in true) and true != own
    rows = [line for line in file.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 5
    assert len({row.split("|")[2] for row in rows[2:]}) == 1, "untouched, all ways have the input's PSNR"
    assert rows[-1].endswith("| 0.0% | 0.0% |"), "no better than the input, and not unharmed"
    worst = [float(row.split("|")[3]) for row in rows[2:]]
    assert len(set(worst)) == 1 and worst[0] < float(rows[2].split("|")[2]), "the worst draw, not the mean"
    (table,) = Record.read(file.with_suffix(".json")).tables.values()
    assert [f"| {' | '.join(row.values())} |" for row in table] == rows[2:]
    by_photo = list(csv.DictReader(file.with_suffix(".csv").open()))
    assert len(by_photo) == 5 * 3 and len({row["photo"] for row in by_photo}) == 3
    assert f"{min(float(row['worst_psnr']) for row in by_photo if row['diagnosis'] == OWN):.2f}" == f"{worst[-2]:.2f}"


@pytest.mark.parametrize("broken", [False, True])
def test_one_photo_has_no_other_and_a_photo_named_twice_is_one(photos, teller, capsys, broken):
    photo = str(sorted(photos.glob("*.png"))[0])
    (photos / "broken.png").write_text("no image")
    assert worth([photo, photo, *[str(photos / "broken.png")] * broken]) == broken
    printed = capsys.readouterr().out
    assert "1 photos" in printed and ANOTHER not in printed and OWN in printed and len(teller.told) == 3


def test_a_clean_photo_counts_as_100_db(photos, teller, capsys):
    assert worth([str(photos), "--preset", "clean"]) == 0
    printed = capsys.readouterr().out
    assert "100.00" in printed and printed.count("100.0%") == 5, "unharmed, all ways"
    stored = torch.from_numpy(np.array(Image.open(photos / "0.png"))).permute(2, 0, 1)
    assert teller.told[0][0].equal(stored[None] / 255)


def test_what_the_reasoner_doubts_can_be_left_out(photos, teller, monkeypatch, capsys):
    class Doubter(Watcher):
        def diagnose(self, images, fields=()):
            return [Diagnosis(fog=Fog(50, None, None, chance=0.7), noise=Noise(9, None, None, chance=0.9)) for _ in images]

    monkeypatch.setattr(worth_command, "load_reasoner", lambda name: Doubter())
    assert worth([str(photos), "--preset", "light", "--sure", "0.8"]) == 0
    assert "Preset light, sure to 0.8, 3 photos" in " ".join(capsys.readouterr().out.split())
    (own,) = teller.told[2][1]
    assert own.fog is None and own.noise.chance == 0.9


def test_only_what_a_training_holds_out(photos, teller, capsys):
    assert worth([str(photos), "--held-out", "0.4", "--preset", "clean"]) == 0
    assert "1 photos" in capsys.readouterr().out
    seen, _ = teller.told[0]
    stored = [torch.from_numpy(np.array(Image.open(photos / f"{i}.png"))).permute(2, 0, 1)[None] / 255 for i in range(3)]
    apart = [(seen - each).abs().mean().item() for each in stored]
    assert len(teller.told) == 3 and apart.index(min(apart)) == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--held-out", "1.5"], "--held-out must lie within (0, 1], got 1.5"),
        (["--draws", "0"], "must be a whole number of at least 1, got '0'"),
        (["-o", "table.csv"], "argument -o: table.csv is for Markdown; JSON and CSV go beside it"),
        (["--sure", "2"], "--sure: must be a number from 0 to 1, got '2'"),
        (["--preset", "mist"], "'mist' is neither a file nor a preset"),
    ],
)
def test_a_wrong_command_line_is_told(photos, teller, argv, said, capsys):
    with pytest.raises(SystemExit) as stop:
        worth([str(photos), *argv])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
