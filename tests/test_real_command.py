"""``rnr real``, as a person uses it, on a reasoner and a restorer that are easily seen through."""

import csv

import numpy as np
import pytest
import torch
from fakes import Untrained
from PIL import Image

from rnr import real_command
from rnr.diagnosis import Diagnosis, Fog, Noise, ParseFailure
from rnr.metrics.judge import look
from rnr.metrics.no_reference import no_reference
from rnr.models.interfaces import Restorer
from rnr.real_command import real
from rnr.records import Record


class Watcher(Untrained):
    """Sees fog as dense as the photo is bright, and a little noise everywhere."""

    def diagnose(self, images, fields=()):
        found = self.severities(images).tolist()
        return [Diagnosis(fog=Fog(fog, None, None), noise=Noise(noise, None, None)) for fog, _, _, noise in found]

    def severities(self, images):
        fog = 1 + 99 * images.mean(dim=(1, 2, 3))
        return torch.stack([fog, torch.zeros_like(fog), torch.zeros_like(fog), torch.full_like(fog, 2.0)], dim=1)


class Darkener(Restorer):
    def restore(self, images, diagnoses, seeds):
        assert all(each.fog is not None for each in diagnoses)
        return images / 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for scene, level in (("fog", 200), ("rain", 100)):
        (tmp_path / "real" / scene).mkdir(parents=True)
        for i in range(2):
            levels = np.random.default_rng(i).integers(level - 40, level + 40, (40, 48, 3))
            Image.fromarray(levels.astype(np.uint8)).save(tmp_path / "real" / scene / f"{i}.png")
    monkeypatch.setattr(real_command, "load_reasoner", lambda name: Watcher())
    monkeypatch.setattr(real_command, "load_restorer", lambda name: Darkener())
    return tmp_path / "real"


def test_photos_that_would_be_written_to_one_file_are_told_of(folder, tmp_path, capsys):
    Image.new("RGB", (40, 40)).save(folder / "fog" / "1.jpg")
    with pytest.raises(SystemExit):
        real([str(folder), "-o", str(tmp_path / "out")])
    assert "would both be written as fog/1.png; rename one" in capsys.readouterr().err


def test_what_was_made_within_the_folder_is_no_photo_the_next_time(folder, capsys):
    for _ in range(2):
        assert real([str(folder), "-o", str(folder / "out")]) == 0
    assert [row[""] for row in next(iter(Record.read(folder / "out/real.json").tables.values()))] == ["fog", "rain", "all"]
    with pytest.raises(SystemExit):
        real([str(folder), "-o", str(folder)])
    assert "is the folder of photos" in capsys.readouterr().err


def test_a_folder_of_photos_is_no_place_to_write_to(folder, capsys):
    with pytest.raises(SystemExit):
        real([str(folder), "-o", str(folder / "fog")])
    assert "fog: has photos of a scene in it" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "fog").iterdir()) == ["0.png", "1.png"]


def test_scenes_whose_sheets_would_have_one_name_have_two(folder, tmp_path):
    for scene in ("a/b", "a_b"):
        (folder / scene).mkdir(parents=True)
        Image.new("RGB", (40, 48), "grey").save(folder / scene / "0.png")
    assert real([str(folder), "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").glob("a_b*.png")} == {"a_b.png", "a_b_2.png"}


def test_the_case_of_a_scene_does_not_matter(folder, tmp_path):
    (folder / "fog").rename(folder / "Fog")
    assert real([str(folder), "-o", str(tmp_path / "out")]) == 0
    told = Record.read(tmp_path / "out/real.json").tables
    rows = next(rows for title, rows in told.items() if title.startswith("The folder's name"))
    assert [row[""] for row in rows][:2] == ["fog", "rain"]


def test_a_scene_may_be_called_all(folder, tmp_path):
    (folder / "rain").rename(folder / "all")
    assert real([str(folder), "-o", str(tmp_path / "out")]) == 0
    rows = next(iter(Record.read(tmp_path / "out/real.json").tables.values()))
    assert [(row[""], row["photos"]) for row in rows] == [("all", 2), ("fog", 2), ("all", 4)]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"fog.png", "all.png"}


def test_grey_photos_stay_grey(folder, tmp_path, monkeypatch):
    class Painter(Darkener):
        def restore(self, images, diagnoses, seeds):
            return super().restore(images, diagnoses, seeds) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)

    monkeypatch.setattr(real_command, "load_restorer", lambda name: Painter())
    Image.open(folder / "fog/0.png").convert("L").save(folder / "fog/0.png")
    assert real([str(folder), "-o", str(tmp_path / "out")]) == 0
    grey, colored = (opened(tmp_path / "out/restored/fog" / name)[0] for name in ("0.png", "1.png"))
    assert grey.eq(grey[:1]).all() and not colored.eq(colored[:1]).all()


def opened(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255


def test_each_scene_is_told_before_and_after(folder, tmp_path, capsys):
    (folder / "rain" / "x.png").write_text("no image")
    out = tmp_path / "out"
    assert real([str(folder), "-o", str(out)]) == 1, "a photo could not be used"
    printed = capsys.readouterr()
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "x.png" in error
    told = Record.read(out / "real.json")
    severities, figures, labels = told.tables.values()
    assert [row[""] for row in severities] == ["fog", "rain", "all"]
    before = [1 + 99 * opened(folder / "fog" / f"{i}.png").mean().item() for i in range(2)]
    after = [1 + 99 * opened(out / "restored" / "fog" / f"{i}.png").mean().item() for i in range(2)]
    assert severities[0]["fog"] == f"{sum(before) / 2:.1f} → {sum(after) / 2:.1f}"
    assert severities[0]["sensor noise"] == "2.0 → 2.0" and severities[0]["motion blur"] == "0.0 → 0.0"
    assert severities[0]["fall of the sum, 95 %"].startswith(f"{sum(before) / 2 - sum(after) / 2:+.1f} [")
    pair = [torch.cat([opened(root / "rain" / f"{i}.png") for i in range(2)]) for root in (folder, out / "restored")]
    assert figures[1]["mean brightness"] == " → ".join(f"{each.mean().item():.3f}" for each in pair)
    assert figures[1]["haze"] == " → ".join(f"{look(each).haze.mean().item():.3f}" for each in pair)
    assert figures[1]["blur effect"] == " → ".join(f"{no_reference(each).blur.mean().item():.3f}" for each in pair)
    assert [(row[""], row["found"], row["leads"], row["always naming fog"]) for row in labels] == [
        ("fog", "100%", "100%", "100%"),
        ("rain", "0%", "0%", "0%"),
    ]
    assert f"| fog | 2 | {severities[0]['fog']} |" in (out / "real.md").read_text()
    rows = list(csv.DictReader((out / "real.csv").open(newline="")))
    assert [row["photo"] for row in rows] == ["fog/0.png", "fog/1.png", "rain/0.png", "rain/1.png"]
    assert float(rows[0]["fog_before"]) == pytest.approx(before[0], abs=1e-3)
    assert {path.name for path in out.glob("*.png")} == {"fog.png", "rain.png"}
    assert Image.open(out / "fog.png").width > 500


def test_what_another_restorer_made_is_looked_at(folder, tmp_path, capsys):
    assert real([str(folder), "-o", str(tmp_path / "a")]) == 0
    assert real([str(folder), "-o", str(tmp_path / "b"), "--restored", str(tmp_path / "a" / "restored")]) == 0
    first, second = (Record.read(tmp_path / name / "real.json") for name in "ab")
    assert first.tables == second.tables
    assert set(second.weights) == {"shipped/reasoner"} and not (tmp_path / "b" / "restored").exists()
    Image.new("RGB", (20, 20)).save(tmp_path / "a" / "restored" / "fog" / "0.png")
    capsys.readouterr()
    assert real([str(folder), "-o", str(tmp_path / "c"), "--restored", str(tmp_path / "a" / "restored")]) == 1
    assert "is 48 x 40 pixels, but 20 x 20 in" in capsys.readouterr().err


def test_an_answer_that_is_no_diagnosis_finds_nothing(folder, tmp_path, monkeypatch):
    class Mute(Watcher):
        def diagnose(self, images, fields=()):
            bright = images.mean().item() > 0.6
            return super().diagnose(images, fields) if bright else [ParseFailure("", "said nothing")]

    class Idle(Restorer):
        def restore(self, images, diagnoses, seeds):
            return images

    monkeypatch.setattr(real_command, "load_reasoner", lambda name: Mute())
    monkeypatch.setattr(real_command, "load_restorer", lambda name: Idle())
    assert real([str(folder), "-o", str(tmp_path / "out")]) == 0
    (title, rows), = list(Record.read(tmp_path / "out/real.json").tables.items())[2:]
    assert title.endswith(": 50% of answers parse")
    assert [(row["photos"], row["found"]) for row in rows] == [(2, "100%"), (2, "0%")]
    assert [row["always naming fog"] for row in rows] == ["100%", "0%"], "what names nothing is no rival"
    monkeypatch.setattr(Watcher, "diagnose", lambda *_: [Diagnosis(fog=Fog(None, None, None))])
    assert real([str(folder), "-o", str(tmp_path / "out")]) == 0
    assert len(Record.read(tmp_path / "out/real.json").tables) == 2, "of severities that are not stated none leads"


def test_photos_in_no_scene_are_told(folder, tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(folder / "loose.png")
    with pytest.raises(SystemExit) as stop:
        real([str(folder), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "expected a folder a scene, found photos outside of one: loose.png" in capsys.readouterr().err
