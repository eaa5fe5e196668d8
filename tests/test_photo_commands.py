"""The commands for photos, as a person uses them: right results, and one clear line for each file that cannot be used."""

import json
import os
import pty
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rnr import photo_commands
from rnr.cli import FUNCTIONS, STAGE_COMMANDS, main
from rnr.data.photos import open_photo, shipped_photos
from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, ParseFailure, Shake, files, parse
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.text import NAMES
from rnr.models.compact import CompactRestorer
from rnr.models.qwen3vl import Qwen3VLReasoner

STEPS = ["1_fog.png", "2_shake.png", "3_rain.png", "4_noise.png"]


@pytest.fixture
def photo(tmp_path):
    """A real photo, small."""
    path = tmp_path / "in" / "cup.png"
    path.parent.mkdir()
    Image.open(shipped_photos("train")[2].path).crop((150, 60, 310, 180)).save(path)
    return path


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_degrade_writes_every_step_and_what_was_applied(photo, tmp_path):
    assert photo_commands.degrade([str(photo), "-o", str(tmp_path / "out"), "--seed", "3"]) == 0
    folder = tmp_path / "out" / "cup"
    assert sorted(p.name for p in folder.iterdir()) == [*STEPS, "degraded.png", "diagnosis.json"]
    assert (pixels(folder / "degraded.png") == pixels(folder / "4_noise.png")).all()
    files.load(folder / "diagnosis.json")


def test_degrade_is_the_same_for_a_seed_and_another_for_another(photo, tmp_path):
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        photo_commands.degrade([str(photo), "-o", str(tmp_path / out), "--seed", seed])
    a, b, c = (pixels(tmp_path / out / "cup" / "degraded.png") for out in "abc")
    assert (a == b).all() and (a != c).any()


def test_degrade_applies_exactly_a_given_diagnosis(photo, tmp_path):
    given = Diagnosis(fog=Fog(50, (0.8, 0.85, 0.9), 0.6), noise=Noise(20, 0.05, 8))
    files.save(given, tmp_path / "given.json")
    photo_commands.degrade([str(photo), "-o", str(tmp_path), "--diagnosis", str(tmp_path / "given.json")])
    applied = files.load(tmp_path / "cup" / "diagnosis.json")
    assert applied.fog.atmospheric_light == pytest.approx(given.fog.atmospheric_light, abs=1e-6)
    assert applied.fog.transmission == pytest.approx(0.6, abs=1e-4)
    assert (applied.noise.k, applied.noise.b) == pytest.approx((0.05, 8), abs=1e-6)
    assert applied.shake is None and applied.rain is None
    fog, shake, rain = (pixels(tmp_path / "cup" / step) for step in STEPS[:3])
    assert (fog == shake).all() and (shake == rain).all()


def test_degrade_tells_what_cannot_be_had_as_asked_for(photo, tmp_path, capsys):
    """A kernel has 33 pixels, in which a Gaussian's standard deviation cannot be 30; a severity is not read."""
    files.save(Diagnosis(fog=Fog(1, (0.8, 0.85, 0.9), 0.6), shake=Shake(40, 0, 30, 0.2)), tmp_path / "given.json")
    photo_commands.degrade([str(photo), "-o", str(tmp_path / "out"), "--diagnosis", str(tmp_path / "given.json")])
    (line,) = capsys.readouterr().err.splitlines()
    applied = files.load(tmp_path / "out" / "cup" / "diagnosis.json").shake
    assert line.startswith(f"{photo}: not exactly as asked for: shake length {applied.length:.4g} instead of 30")
    assert "fog" not in line and "severity" not in line
    files.save(Diagnosis(noise=Noise(1, 0, 0)), tmp_path / "given.json")
    photo_commands.degrade([str(photo), "-o", str(tmp_path / "out"), "--diagnosis", str(tmp_path / "given.json")])
    replaced, line = capsys.readouterr().err.splitlines()
    assert replaced == f"{tmp_path / 'out' / 'cup'}: replaces what was made there before"
    assert line == f"{photo}: not exactly as asked for: no noise to be seen"


def test_diagnose_prints_text_that_parses_and_how_sure_it_is(photo, capsys):
    assert photo_commands.diagnose([str(photo)]) == 0
    name, *lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert name == str(photo)
    told = parse("\n".join(line for line in lines if not line.startswith("  ")))
    assert isinstance(told, Diagnosis)
    assert [line.startswith("  no ") for line in lines[-4:]] == [told[kind] is None for kind in KINDS]


def test_diagnose_says_how_sure_in_words_that_fit_the_numbers(photo, capsys, monkeypatch):
    found = Diagnosis(fog=Fog(55.9, (0.8, 0.85, 0.9), 0.6), noise=Noise(20, 0.05, 8))
    chances = {"fog": 0.98, "shake": 0.03, "rain": 0.0004, "noise": 0.9996}
    intervals = {"fog": {"severity": [(48.2, 63.4)]}, "noise": {"severity": [(19.6, 20.4)]}}
    examined = Examination(found, chances, intervals)
    monkeypatch.setattr(Qwen3VLReasoner, "examine", lambda self, images: [examined])
    assert photo_commands.diagnose([str(photo)]) == 0
    assert capsys.readouterr().out.rstrip("\n").split("\n")[-4:] == [
        "  fog 98 % sure, severity 55.9 (48 to 63)",
        "  no motion blur, 97 % sure",
        "  no rain streaks, over 99 % sure",
        "  sensor noise over 99 % sure, severity 20.0 (20 to 20)",
    ]


def test_a_reasoner_without_severities_says_the_rest(photo, monkeypatch, capsys):
    examined = Qwen3VLReasoner.examine
    fields = ["presence", "parameters"]
    monkeypatch.setattr(Qwen3VLReasoner, "examine", lambda self, images: examined(self, images, fields))
    folder = photo.parent / "noise"
    folder.mkdir()
    Image.effect_noise((120, 90), 80).save(folder / "grain.png")
    assert photo_commands.diagnose([str(folder)]) == 0
    said = capsys.readouterr().out
    assert "sensor noise" in said and "% sure" in said and "everity" not in said
    assert photo_commands.diagnose([str(folder), "--folders"]) == 1
    assert "grain.png: this diagnosis does not state its severities" in capsys.readouterr().err


def test_what_diagnose_prints_as_json_of_a_photo_is_a_diagnosis_to_restore_by(photo, tmp_path, capsys):
    photo_commands.diagnose([str(photo), "--json"])
    (tmp_path / "my.json").write_text(capsys.readouterr().out)
    assert photo_commands.restore([str(photo), "-o", str(tmp_path / "out"), "--diagnosis", str(tmp_path / "my.json")]) == 0
    assert files.load(tmp_path / "out" / "cup" / "diagnosis.json") == files.load(tmp_path / "my.json")


def test_diagnose_json_is_one_list_with_the_documented_keys(photo, capsys):
    other = photo.with_name("other.png")
    other.write_bytes(photo.read_bytes())
    assert photo_commands.diagnose([str(photo), str(other), str(photo), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [a["photo"] for a in answers] == [str(photo), str(other)], "no file twice"
    assert set(answers[0]) == {"photo", "diagnosis", "examination"}
    assert set(answers[0]["diagnosis"]) == {*KINDS, "scene"}
    told, examined = files.from_dict(answers[0]["diagnosis"]), answers[0]["examination"]
    assert {kind for kind in KINDS if examined["presence"][kind] > 0.5} == {k for k in KINDS if told[k] is not None}
    stated = {kind: set(files.to_dict(told)[kind]) - {"chance"} for kind in KINDS if told[kind] is not None}
    assert {kind: set(found) for kind, found in examined["intervals"].items()} == stated
    assert all(told[kind].chance == round(examined["presence"][kind], 4) for kind in stated)
    assert all(low <= high for found in examined["intervals"].values() for ends in found.values() for low, high in ends)


def test_folders_named_after_what_is_wrong_are_compared_with_what_leads(photo, tmp_path, capsys, monkeypatch):
    (tmp_path / "real/blur").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.open(photo).save(tmp_path / "real/blur" / name)
    said = iter((Diagnosis(shake=Shake(20, 0, 2, 0.2)), Diagnosis(Fog(50, (1, 1, 1), 0.6), Shake(20, 0, 2, 0.2))))
    monkeypatch.setattr(
        Qwen3VLReasoner, "examine", lambda *_: [Examination(next(said), dict.fromkeys(KINDS, 0.5))], raising=True
    )
    assert photo_commands.diagnose([str(tmp_path / "real"), "--folders"]) == 0
    out = capsys.readouterr().out
    assert " ".join(out.split()) == "blur 2 photos: found in 100%, leads 50% (the usual leader, whatever the photo: 100%)"


def test_an_answer_that_is_no_diagnosis_leads_nothing(photo, capsys, monkeypatch):
    folder = photo.parent / "fog"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.open(photo).save(folder / name)
    said = iter((Examination(Diagnosis(Fog(50, (1, 1, 1), 0.6)), dict.fromkeys(KINDS, 0.5)), ParseFailure("?", "no words")))
    monkeypatch.setattr(Qwen3VLReasoner, "examine", lambda *_: [next(said)])
    assert photo_commands.diagnose([str(folder), "--folders"]) == 1
    assert "fog             2 photos: found in 50%, leads 50%" in capsys.readouterr().out


def test_photos_in_no_such_folder_are_told(photo, tmp_path, capsys):
    assert photo_commands.diagnose([str(photo), "--folders"]) == 1
    said = capsys.readouterr()
    assert "no photo lies in a folder named blur" in said.err and not said.out


def test_a_list_for_programs_and_figures_for_people_are_not_printed_together(photo, capsys):
    with pytest.raises(SystemExit):
        photo_commands.diagnose([str(photo), "--folders", "--json"])
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["diagnose"], ["restore", "-o", "out"]])
def test_a_name_that_no_file_can_have_costs_one_line(photo, tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    name, *options = command
    assert getattr(photo_commands, name)([*options, 300 * "a" + ".png", str(photo)]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "File name too long" in said.err and str(photo) in said.out


@pytest.mark.parametrize("seed", ["99999999999999999999", "one"])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, capsys, seed):
    with pytest.raises(SystemExit) as exit:
        photo_commands.demo(["-o", str(tmp_path / "demo"), "--seed", seed])
    assert exit.value.code == 2 and "must be a whole number between" in capsys.readouterr().err


def test_the_case_of_such_a_folder_does_not_matter(photo, tmp_path, capsys):
    (tmp_path / "real/Fog").mkdir(parents=True)
    photo.rename(tmp_path / "real/Fog/a.png")
    assert photo_commands.diagnose([str(tmp_path / "real"), "--folders"]) == 0
    assert capsys.readouterr().out.startswith("fog")


def test_of_an_earlier_run_nothing_stays_that_is_not_true_any_more(photo, tmp_path, capsys):
    out = ["-o", str(tmp_path / "out")]
    assert photo_commands.degrade([str(photo), *out, "--sheet"]) == 0
    (tmp_path / "out/cup/notes.txt").write_text("mine")
    assert photo_commands.degrade([str(photo), *out, "--seed", "1"]) == 0
    assert "replaces what was made there before" in capsys.readouterr().err
    there = {path.name for path in (tmp_path / "out/cup").iterdir()}
    assert there == {*STEPS, "degraded.png", "diagnosis.json", "notes.txt"}, "no sheet.png"
    assert photo_commands.restore([str(photo), *out]) == 0
    assert {path.name for path in (tmp_path / "out/cup").iterdir()} == there | {"restored.png", "figure.png"}


def test_photos_of_one_name_in_two_folders_are_degraded_otherwise(photo, tmp_path):
    (tmp_path / "two/a").mkdir(parents=True)
    (tmp_path / "two/b").mkdir()
    for folder in "ab":
        shutil.copy(photo, tmp_path / "two" / folder)
    assert photo_commands.degrade([str(tmp_path / "two"), "-o", str(tmp_path / "out")]) == 0
    first, second = (pixels(path) for path in sorted((tmp_path / "out").rglob("degraded.png")))
    assert (first != second).any()


def test_scenes_that_are_nonsense_do_not_keep_a_photo_from_being_restored(photo, tmp_path):
    (tmp_path / "scenes.jsonl").write_text("nonsense")
    assert photo_commands.restore([str(photo.parent), "-o", str(tmp_path / "out")]) == 0


def test_restore_keeps_the_size_and_writes_what_it_went_by(photo, tmp_path):
    assert photo_commands.restore([str(photo), "-o", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out" / "cup"
    assert sorted(p.name for p in folder.iterdir()) == ["diagnosis.json", "figure.png", "restored.png"]
    assert Image.open(folder / "restored.png").size == (160, 120)


def test_where_a_photo_went_is_told(photo, tmp_path, capsys):
    (tmp_path / "in" / "more").mkdir()
    photo.rename(tmp_path / "in" / "more" / "cup.png")
    Image.new("RGB", (20, 20)).save(photo)
    assert photo_commands.restore([str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    told = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert sorted(told) == [str(photo), str(tmp_path / "in" / "more" / "cup.png")]
    for source, said in told.items():
        folder, found = said.removesuffix(")").split(" (")
        assert pixels(f"{folder}/restored.png").shape == pixels(source).shape
        diagnosis = files.load(Path(folder) / "diagnosis.json")
        parts = [f"{NAMES[kind]} {diagnosis[kind].severity:.1f}" for kind in KINDS if diagnosis[kind]]
        assert found == (", ".join(parts) or "nothing found")


def test_photos_of_formats_that_are_not_read_are_told_of(photo, tmp_path, capsys):
    for name in ("a.HEIC", "b.gif", "c.gif", "notes.txt"):
        photo.with_name(name).write_bytes(b"")
    assert photo_commands.restore([str(photo.parent), "-o", str(tmp_path / "out")]) == 0
    said = "3 photos are passed over, of formats that are not read (.gif, .heic)"
    assert capsys.readouterr().err == f"{photo.parent}: {said}\n"


def test_what_was_restored_into_the_folder_of_photos_is_no_photo_the_next_time(photo, tmp_path, capsys):
    for _ in range(2):
        assert photo_commands.restore([str(photo.parent), "-o", str(photo.parent / "out")]) == 0
    assert [path.name for path in (photo.parent / "out").iterdir()] == ["cup"]
    assert photo_commands.restore([str(photo.parent), "-o", str(photo.parent)]) == 2
    replaced, line = capsys.readouterr().err.splitlines()
    assert replaced == f"{photo.parent / 'out' / 'cup'}: replaces what was made there before"
    assert line.startswith(f"error: {photo.parent}: is the folder of photos; name another one")


def test_a_file_that_is_named_is_restored_wherever_it_lies(photo, tmp_path, capsys):
    (photo.parent / "out" / "old").mkdir(parents=True)
    mine = photo.rename(photo.parent / "out" / "old" / "mine.png")
    assert photo_commands.restore([str(photo.parent), "-o", str(photo.parent / "out")]) == 1
    assert capsys.readouterr().err == f"error: {photo.parent}: no photos found but those in {photo.parent / 'out'}\n"
    assert photo_commands.restore([str(photo.parent), str(mine), "-o", str(photo.parent / "out")]) == 1
    assert (photo.parent / "out" / "mine" / "restored.png").is_file()


@pytest.mark.parametrize("beside", [False, True])
def test_a_photo_is_not_replaced_by_what_is_made_of_it_or_of_another(photo, tmp_path, capsys, beside):
    lost = tmp_path / "out" / (photo.stem if beside else "restored") / "restored.png"
    lost.parent.mkdir(parents=True)
    shutil.copy(photo, lost)
    sources = [str(photo), str(lost)] if beside else [str(lost)]
    assert photo_commands.restore([*sources, "-o", str(tmp_path / "out")]) == 1
    assert lost.read_bytes() == photo.read_bytes()
    assert f"{lost}: would be replaced by what is made of {photo if beside else lost}" in capsys.readouterr().err


def test_a_folder_of_photos_is_no_place_to_write_to(photo, tmp_path):
    photo.rename(photo.with_name("in.png"))
    assert photo_commands.restore([str(photo.parent), "-o", str(tmp_path)]) == 0
    assert [path.name for path in photo.parent.iterdir()] == ["in.png"] and (tmp_path / "in_2" / "restored.png").is_file()


def test_an_output_that_is_no_folder_is_told_once(photo, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert photo_commands.restore([str(photo), str(photo), "-o", str(tmp_path / "file")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line and "cup" not in line


def test_what_fails_leaves_no_empty_folder(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_commands, "_depth", lambda *given: (_ for _ in ()).throw(ValueError("no depth")))
    assert photo_commands.degrade([str(photo), "-o", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


def test_grey_photos_stay_grey(photo, tmp_path):
    Image.open(photo).convert("L").save(photo)
    assert photo_commands.restore([str(photo), "-o", str(tmp_path), "--set", "fog=60", "--set", "noise=40"]) == 0
    restored = pixels(tmp_path / "cup" / "restored.png")
    assert (restored == restored[..., :1]).all()
    assert (restored[..., 0] != pixels(photo)).mean() > 0.5


def test_what_a_person_sets_is_what_the_restorer_gets(photo, tmp_path, monkeypatch):
    given = []
    plain = CompactRestorer.restore
    monkeypatch.setattr(CompactRestorer, "restore", lambda self, x, d, s: given.append(d[0]) or plain(self, x, d, s))
    assert photo_commands.restore([str(photo), "-o", str(tmp_path), "--set", "Haze=0", "--set", "noise=40"]) == 0
    assert given[0].fog is None and given[0].noise.severity == 40
    assert files.load(tmp_path / "cup" / "diagnosis.json").noise.severity == 40


def test_what_the_reasoner_doubts_is_left_alone_if_one_asks_for_it(photo, tmp_path, monkeypatch):
    said = Diagnosis(fog=Fog(50, (0.9, 0.9, 0.9), 0.5, chance=0.7), noise=Noise(30, 0.1, 5, chance=0.95))
    monkeypatch.setattr(Qwen3VLReasoner, "diagnose", lambda *_: [said])
    for options, fog, noise in (([], True, True), (["--sure", "0.8"], False, True), (["--sure", "1"], False, False)):
        assert photo_commands.restore([str(photo), "-o", str(tmp_path), *options]) == 0
        used = files.load(tmp_path / "cup" / "diagnosis.json")
        assert (used.fog is not None, used.noise is not None) == (fog, noise)
    before, after = (open_photo(path) for path in (photo, tmp_path / "cup" / "restored.png"))
    assert (before == after).all(), "nothing is left, so nothing is changed"
    assert photo_commands.restore([str(photo), "-o", str(tmp_path), "--sure", "0.8", "--set", "fog=20"]) == 0
    assert files.load(tmp_path / "cup" / "diagnosis.json").fog.severity == 20, "a person is sure"
    files.save(said, tmp_path / "said.json")
    given = ["--diagnosis", str(tmp_path / "said.json"), "--sure", "0.8"]
    assert photo_commands.restore([str(photo), "-o", str(tmp_path), *given]) == 0
    assert files.load(tmp_path / "cup" / "diagnosis.json").fog is None, "of a file too"


def test_a_part_of_the_change_is_made(photo, tmp_path):
    def restored(*options):
        assert photo_commands.restore([str(photo), "-o", str(tmp_path), "--set", "fog=60", *options]) == 0
        return open_photo(tmp_path / "cup" / "restored.png").astype(int)

    before, whole = open_photo(photo).astype(int), restored()
    assert abs(whole - before).mean() > 5
    assert (restored("--strength", "0") == before).all()
    assert abs(restored("--strength", "0.5") - (before + whole) / 2).max() <= 1


def test_a_diagnosis_file_replaces_the_reasoner(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("rnr.models.load.load_reasoner", lambda name: pytest.fail("the reasoner is not needed"))
    given = Diagnosis(fog=Fog(50, (0.8, 0.85, 0.9), 0.6))
    files.save(given, tmp_path / "given.json")
    argv = [str(photo), "-o", str(tmp_path / "out"), "--diagnosis", str(tmp_path / "given.json")]
    assert photo_commands.restore(argv) == 0
    assert files.load(tmp_path / "out" / "cup" / "diagnosis.json") == given


@pytest.mark.parametrize("severity, told", [(63, ""), (20, "fog of severity 20 with the parameters of 64; both count")])
def test_a_severity_that_was_edited_alone_is_told_of_once(severity, told, photo, tmp_path, capsys):
    (other := photo.with_name("other.png")).write_bytes(photo.read_bytes())
    files.save(Diagnosis(fog=Fog(severity, (0.8, 0.85, 0.9), 0.4)), tmp_path / "given.json")
    argv = [str(photo), str(other), "-o", str(tmp_path / "out"), "--diagnosis", str(tmp_path / "given.json")]
    assert photo_commands.restore(argv) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "given.json" in line]
    assert [told in line for line in said] == ([True] if told else [])


def bad_files(folder):
    folder.mkdir(exist_ok=True)
    (folder / "text.png").write_text("not an image")
    (folder / "empty.jpg").write_bytes(b"")
    good = shipped_photos("train")[2].path.read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "none").mkdir(exist_ok=True)
    return {
        folder / "text.png": "not an image",
        folder / "empty.jpg": "not an image",
        folder / "cut.png": "cannot be read",
        folder / "missing.png": "no such file",
        folder / "none": "no photos found",
    }


@pytest.mark.parametrize("command", ["degrade", "diagnose", "restore"])
def test_a_batch_goes_on_past_files_that_cannot_be_used(command, photo, tmp_path, capsys):
    bad = bad_files(tmp_path / "bad")
    names = [*map(str, bad), str(photo)]
    output = [] if command == "diagnose" else ["-o", str(tmp_path / "out")]
    assert getattr(photo_commands, command)([*names, *output]) == 1
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(bad)
    for path, reason in bad.items():
        assert any(str(path) in line and reason in line for line in lines), f"{path} is not explained in {lines}"
    if output:
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["cup"], "a file that failed leaves nothing behind"
    else:
        assert str(photo) in printed.out


@pytest.mark.parametrize(
    ("mode", "size"),
    [("L", (40, 30)), ("RGBA", (40, 30)), ("LA", (40, 30)), ("P", (40, 30)), ("I;16", (40, 30)), ("RGB", (1, 1))],
)
def test_odd_modes_and_the_smallest_photo_are_restored(mode, size, tmp_path):
    noise = np.random.default_rng(0).integers(0, 65535, size[::-1], dtype=np.uint16)
    image = Image.fromarray(noise) if mode == "I;16" else Image.fromarray((noise >> 8).astype(np.uint8)).convert(mode)
    image.save(tmp_path / "odd.png")
    assert photo_commands.restore([str(tmp_path / "odd.png"), "-o", str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out" / "odd" / "restored.png").size == size


def test_a_photo_turned_by_exif_comes_out_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    photo_commands.degrade([str(tmp_path / "turned.jpg"), "-o", str(tmp_path)])
    assert Image.open(tmp_path / "turned" / "degraded.png").size == (20, 40)


@pytest.mark.parametrize("name", ["...png", ". .png", "a b.png", "ü.png", "-x.png"])
def test_no_name_writes_outside_the_output_folder(name, photo, tmp_path):
    hostile = tmp_path / "names" / name
    hostile.parent.mkdir()
    hostile.write_bytes(photo.read_bytes())
    out = tmp_path / "x" / "out"
    assert photo_commands.degrade(["-o", str(out), "--", str(hostile)]) == 0
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["out"]
    assert len(list(out.iterdir())) == 1


def test_equal_stems_do_not_overwrite_each_other(photo, tmp_path):
    other = tmp_path / "cup.jpg"
    Image.new("RGB", (20, 20)).save(other)
    photo_commands.degrade([str(photo), str(other), "-o", str(tmp_path / "out")])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cup", "cup_2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "diagnosis.json"),
        ('{"fogg": null}', "fogg"),
        (
            '{"fog": null, "shake": null, "rain": null, "noise": {"severity": 900, "k": 0.1, "b": 1}, "scene": null}',
            "900",
        ),
    ],
)
def test_a_wrong_diagnosis_file_is_explained(content, said, photo, tmp_path, capsys):
    (tmp_path / "diagnosis.json").write_text(content)
    for command in (photo_commands.degrade, photo_commands.restore):
        with pytest.raises(SystemExit) as stop:
            command([str(photo), "-o", str(tmp_path), "--diagnosis", str(tmp_path / "diagnosis.json")])
        assert stop.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and said in lines[0] and "diagnosis.json" in lines[0]


@pytest.mark.parametrize("setting", ["fog", "fog=900", "fog=-1", "fog=lots", "mist=20", "fog=nan"])
def test_a_wrong_setting_is_explained(setting, photo, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        photo_commands.restore([str(photo), "-o", str(tmp_path), "--set", setting])
    assert stop.value.code == 2
    assert setting in capsys.readouterr().err


@pytest.mark.parametrize(("role", "name"), [("reasoner", "shipped/restorer"), ("restorer", "shipped/reasoner")])
def test_weights_of_the_other_model_are_refused(role, name, photo, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        photo_commands.restore([str(photo), "-o", str(tmp_path), f"--{role}", name])
    assert stop.value.code == 2
    assert "holds weights of" in capsys.readouterr().err


def test_missing_weights_are_named(photo, capsys):
    with pytest.raises(SystemExit) as stop:
        photo_commands.diagnose([str(photo), "--reasoner", "runs/nowhere/weights"])
    assert stop.value.code == 2
    assert "no weights in runs/nowhere/weights" in capsys.readouterr().err


def test_demo_restores_a_real_photo(tmp_path, capsys):
    assert photo_commands.demo(["-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Degradations:" in out and "gain" in out
    assert {p.name for p in tmp_path.iterdir()} == {"clean.png", "degraded.png", "restored.png", "figure.png"}


def test_help_lists_every_command():
    said = subprocess.run([sys.executable, "-c", "from rnr.cli import main; main()"], capture_output=True, text=True)
    assert {"fit", "test", "restore", "worth"} < {*STAGE_COMMANDS, *FUNCTIONS}
    for name in (*STAGE_COMMANDS, *FUNCTIONS):
        assert f"\n  {name} " in said.stdout


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_of_openmp_soon_sleep_unless_the_user_has_it_otherwise(given, spins):
    code = "import os, sys; from rnr.cli import main; main(); print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    said = subprocess.run([sys.executable, "-c", code], env=env | given, capture_output=True, text=True)
    assert said.stdout.splitlines()[-1] == f"{spins} False", "set before torch reads it"


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(photo_commands, "diagnose", interrupted)
    monkeypatch.setattr(sys, "argv", ["rnr", "diagnose"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "rnr: interrupted; what was finished is whole\n"


def test_who_has_read_enough_ends_the_command(photo):
    command = [sys.executable, "-m", "rnr", "diagnose", str(photo.parent)]
    for copy in range(3):
        photo.with_name(f"{copy}.png").write_bytes(photo.read_bytes())
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert "Broken pipe" not in process.communicate()[1] and process.returncode == 1


def test_the_version_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rnr", "--version"])
    main()
    assert capsys.readouterr().out == f"rnr {version('rnr')}\n"


def test_an_unknown_command_is_refused():
    code = "import sys; sys.argv[1:] = ['repair']; from rnr.cli import main; main()"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 2 and "no command 'repair'" in said.stderr


def test_the_best_of_several_is_kept(photo, tmp_path, capsys, monkeypatch):
    made = []
    plain = CompactRestorer.rollout
    monkeypatch.setattr(CompactRestorer, "rollout", lambda self, *given: made.append(plain(self, *given)) or made[-1])
    monkeypatch.setattr(Qwen3VLReasoner, "severities", lambda self, x: 100 * x.mean(dim=(1, 2, 3))[:, None].repeat(1, 4))
    given = Diagnosis(fog=Fog(50, (0.8, 0.85, 0.9), 0.6), noise=Noise(20, 0.05, 8))
    files.save(given, tmp_path / "given.json")
    argv = [str(photo), "-o", str(tmp_path), "--diagnosis", str(tmp_path / "given.json"), "--best-of", "3"]
    assert photo_commands.restore(argv) == 0
    candidates = made[0][0].clamp(0, 1)
    darkest = int(candidates.mean(dim=(1, 2, 3)).argmin())
    saved = pixels(tmp_path / "cup" / "restored.png")
    assert abs(saved - 255 * candidates[darkest].permute(1, 2, 0).numpy()).max() <= 0.51
    assert f"candidate {darkest + 1} of 3, reward " in capsys.readouterr().out
    assert photo_commands.restore([*argv, "--cycle", "2"]) == 0


def test_where_all_candidates_are_alike_the_first_is_kept(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Qwen3VLReasoner, "severities", lambda self, x: x.new_full((len(x), 4), 5.0))
    assert photo_commands.restore([str(photo), "-o", str(tmp_path / "many"), "--best-of", "2"]) == 0
    assert "candidate 1 of 2" in capsys.readouterr().out
    assert photo_commands.restore([str(photo), "-o", str(tmp_path / "one")]) == 0
    one, many = (pixels(tmp_path / name / "cup" / "restored.png") for name in ("one", "many"))
    assert abs(one - many).max() <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--best-of", "0"], "--best-of: must be a whole number of at least 1, got '0'"),
        (["--best-of", "2.5"], "--best-of: must be a whole number of at least 1, got '2.5'"),
        (["--cycle", "-1"], "--cycle: must be a finite number of at least 0, got '-1'"),
        (["--cycle", "2"], "--cycle: picks among candidates, so --best-of must be at least 2"),
        (["--sure", "-1"], "--sure: must be a number from 0 to 1, got '-1'"),
        (["--strength", "1.5"], "--strength: must be a number from 0 to 1, got '1.5'"),
        (["--strength", "half"], "--strength: must be a number from 0 to 1, got 'half'"),
    ],
)
def test_nonsense_is_refused(photo, tmp_path, options, said, capsys):
    with pytest.raises(SystemExit) as stop:
        photo_commands.restore([str(photo), "-o", str(tmp_path), *options])
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_what_is_printed_goes_to_its_file_though_a_bar_is_on_the_terminal(photo, tmp_path):
    """Bars take a terminal's standard output over, but not another one."""
    for name in ("b", "c"):
        photo.with_name(f"{name}.png").write_bytes(photo.read_bytes())
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "rnr", "degrade", str(photo.parent), "-o", str(tmp_path / "out")]
    with (tmp_path / "said").open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # there is no more
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert process.wait(60) == 0 and b"3/3" in shown
    said = (tmp_path / "said").read_text().splitlines()
    assert len(said) == 3 and all(str(tmp_path / "out") in line for line in said)
