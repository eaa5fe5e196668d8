"""``rnr figure``, as a person uses it: which photos, which systems, and the figures of ``rnr test``."""

import csv
import math
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import Watcher, brighter_and_brighter
from PIL import Image

from rnr import paper_figures
from rnr.cli import FUNCTIONS
from rnr.command_line import Failures
from rnr.data.photos import find_photos
from rnr.diagnosis import Diagnosis, Fog
from rnr.figure_cases import RULES, Draws, Rule, seen, stated
from rnr.figure_command import figure
from rnr.figure_rows import SHIPPED, TRAINED, System, named, of_table_2, of_table_3
from rnr.paper_figures import FIGURES, of_paper
from rnr.stage_commands import run

CONFIGS = Path(__file__).parent.parent / "lightning_configs"
BROKEN = """
model:
  class_path: rnr.stages.RestorerSFT
  init_args:
    restorer:
      class_path: rnr.models.baselines.external.External
      init_args: {folder: work, command: ["false", "{input}", "{output}"]}
    reasoner: null
"""


@pytest.fixture
def photos(tmp_path):
    return brighter_and_brighter(tmp_path / "photos")


@pytest.fixture
def configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONFIGS, tmp_path / "lightning_configs")
    (tmp_path / "lightning_configs" / "baselines" / "broken.yaml").write_text(BROKEN)
    return tmp_path / "lightning_configs"


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(paper_figures, "load_reasoner", lambda name: Watcher())


def picked(draws, rule, count):
    return [case.name for case in draws.picked(rule, count, None, Watcher(), Failures())]


# Which photos


def test_draws_are_spread_evenly(photos):
    draws = Draws(find_photos(photos), "half", each=2)
    assert picked(draws, RULES["spread"], 3) == ["0.png, draw 1", "1.png, draw 1", "2.png, draw 1"]
    assert picked(draws, RULES["spread"], 9) == [f"{i}.png, draw {draw}" for i in range(3) for draw in (1, 2)]


def test_a_rule_shows_the_highest_draw_of_the_highest_photos(photos):
    scores = dict(zip([f"{i}.png, draw {draw}" for i in range(3) for draw in (1, 2)], [1, 5, 4, 3, 0, 2], strict=True))
    rule = Rule("by the test", lambda case, stage, reasoner: scores[case.name])
    draws = Draws(find_photos(photos), "half", each=2)
    assert picked(draws, rule, 2) == ["0.png, draw 2", "1.png, draw 1"]
    assert picked(draws, rule, 9) == ["0.png, draw 2", "1.png, draw 1", "2.png, draw 2"]


def test_the_severity_that_counts_is_the_true_one_or_the_one_that_is_seen(photos):
    draws = Draws(find_photos(photos), "paper", each=4)
    cases = [draws.case(photo, draw) for photo in draws.photos for draw in range(4)]
    totals = {case.name: sum(stated(case.known.truth[0])) for case in cases}
    assert picked(draws, RULES["severity"], 1) == [max(totals, key=totals.get)]
    assert picked(replace(draws, preset=None), RULES["severity"], 2) == ["2.png", "1.png"]


def test_the_gain_is_that_of_the_last_system(photos, configs):
    draws, stage = Draws(find_photos(photos), "paper"), named(["classic_blind"], configs)[0].load()
    cases = [draws.case(photo, draw) for photo in draws.photos for draw in range(3)]
    gains = {case.name: paper_psnr(case.restored(stage)[1], case) - paper_psnr(case.image, case) for case in cases}
    (worst,) = draws.picked(RULES["gain"], 1, stage, Watcher(), Failures())
    assert worst.name == min(gains, key=gains.get)


def paper_psnr(image, case):
    return -10 * math.log10(((image.clamp(0, 1) * 255).round() / 255 - case.known.clean).square().mean())


def test_photos_that_cannot_be_used_are_passed_over(photos, capsys):
    (photos / "1.png").write_text("no image")
    failures = Failures()
    for rule in (RULES["severity"], RULES["spread"]):
        cases = Draws(find_photos(photos), None).picked(rule, 3, None, Watcher(), failures)
        assert {case.name for case in cases} == {"0.png", "2.png"}
    assert failures.count == 2 and capsys.readouterr().err.count("1.png") == 2


@pytest.mark.parametrize("crop", [(40, 0, 9, 5), (0, 36, 5, 5), (-1, 0, 5, 5), (0, 0, 0, 5)])
def test_a_crop_outside_the_photo_is_refused(crop, photos):
    with pytest.raises(ValueError, match=r"do not lie within 48 x 40"):
        Draws(find_photos(photos), None, crop=crop).case(find_photos(photos)[0], 0)


def test_what_is_not_stated_is_not_absent():
    half = Diagnosis(fog=Fog(None, None, 0.5))
    assert math.isnan(stated(half)[0]) and stated(half)[1:] == [0, 0, 0]
    assert all(map(math.isnan, stated(None)))
    assert seen(Watcher(), torch.full((1, 3, 4, 4), 0.5019))[0] == pytest.approx(100 * 128 / 255)


# Which systems


def test_rows_are_named_by_their_file(configs, tmp_path):
    (tmp_path / "mine.yaml").write_text((configs / "baselines" / "identity.yaml").read_text())
    given = ["classic", "classic_blind", "three_d=3D of mine", str(tmp_path / "mine.yaml"), "rnr"]
    labels = ["classic, told", "classic, blind", "3D of mine", "mine", "rnr"]
    assert [system.label for system in named(given, configs)] == labels
    with pytest.raises(ValueError, match=r"nobody\.yaml: no such row; .* has broken, classic"):
        named(["nobody"], configs)


def test_rows_of_table_2_are_those_that_can_run(configs):
    systems, left_out = of_table_2(configs, told=True)
    assert [system.label for system in systems] == [
        "broken", "classic, told", "classic, blind", "3D, told", "3D, blind", "rnr"
    ]  # fmt: skip
    assert "foundir: checkouts/FoundIR: no such folder" in left_out
    assert [system.label for system in of_table_2(configs, told=False)[0]] == [
        "broken", "classic, blind", "3D, blind", "rnr"
    ]  # fmt: skip


def test_rows_of_table_3_without_training_are_the_shipped_model_with_less(configs):
    systems, remark = of_table_3(configs, Path("runs/ablations"))
    labels = ["w/o Reasoner SFT", "w/o Score", "w/o Parameters", "w/o Semantics", "Full Model"]
    assert [system.label for system in systems] == labels and remark == SHIPPED
    score, *untrained = (systems[i].load() for i in (1, 0, 0))
    assert set(score.conditioning.fields) == {"presence", "parameters", "scene"}
    one, other, trained = (next(stage.reasoner.parameters()) for stage in (*untrained, score))
    assert (one == other).all() and (one != trained).any(), "the untrained reasoner is the same each time"


def test_rows_of_table_3_that_were_trained_have_weights_of_their_own(configs, tmp_path):
    runs = tmp_path / "runs" / "ablations"
    for place in ("full/sft", "full/grpo", "without_score/grpo"):
        shutil.copytree(Path(paper_figures.__file__).parent / "weights" / "restorer", runs / place / "weights")
    systems, remark = of_table_3(configs, runs)
    assert remark == TRAINED
    assert {system.label: system.checkpoint for system in systems} == {
        "w/o Score": runs / "without_score" / "grpo" / "weights",
        "w/o RL": runs / "full" / "sft" / "weights",
        "Full Model": runs / "full" / "grpo" / "weights",
    }
    assert set(systems[0].load().conditioning.fields) == {"presence", "parameters", "scene"}
    (runs / "full" / "grpo" / "weights" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"full\.yaml: No such file or directory: .*full/grpo/weights/model"):
        systems[-1].load()


@pytest.mark.parametrize("text", ["data: {}", "model: [", "model: {class_path: rnr.stages.Nothing}", "model: {a: 1}"])
def test_a_file_that_is_no_stage_is_named(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml: "):
        System("mine", (tmp_path / "mine.yaml",)).load()


# The figure


def tables(text):
    """The rows of all tables in a figure's text, without their heads."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("", "---")]


@pytest.mark.parametrize("row", ["classic", pytest.param("rnr", marks=pytest.mark.slow)])
def test_the_figures_are_those_of_rnr_test(row, photos, configs, monkeypatch):
    """The same draws, the same truth or diagnosis, the same PSNR and SSIM."""
    monkeypatch.setattr("sys.argv", ["rnr"])
    config = configs / "baselines" / f"{row}.yaml"
    run(["test", f"--config={config}", f"--data.sources.test=[{photos}]", "--data.eval_draws=2"])
    with Path(f"runs/baselines/{row}/test.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = {
        (f"{float(row['input_psnr']):.2f}", f"{float(row['psnr']):.2f}", f"{float(row['ssim']):.4f}") for row in rows
    }
    drawn = of_paper("indoor", find_photos(photos), named([row], configs), configs)
    text = replace(drawn, draws=replace(drawn.draws, each=2), count=6).draw().text
    assert len(rows) == 6
    inputs, restored = (tables(text)[start::2] for start in (0, 1))
    assert {(a[1], b[1], b[2]) for a, b in zip(inputs, restored, strict=True)} == told


def test_a_synthetic_figure(photos, configs, watched, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["hard", str(photos), "-o", str(out), "--rows", "broken", "classic_blind", "--draws", "2", "--count", "2"]
    assert figure(argv) == 1, "a row did not run"
    said = capsys.readouterr()
    assert "error: broken: 'false' failed with status 1" in said.err
    assert "gain the least PSNR by classic, blind, of 3 photos in 2 draws each, by the preset paper, seed 0" in said.out
    text = (out / "hard.md").read_text()
    assert text.startswith("# Figure 7") and [row[0] for row in tables(text)] == 2 * ["input", "classic, blind"]
    assert text.count("true:") == 2 and "says" not in text, "the last row has no reasoner"
    Image.open(out / "hard.png").verify()


def test_a_figure_of_real_photos(photos, configs, watched, tmp_path, capsys):
    path = tmp_path / "deep" / "figure5.pdf"
    assert figure(["real", str(photos), "-o", str(path), "--rows", "classic_blind=filters", "--width", "7"]) == 0
    text = path.with_suffix(".md").read_text()
    (_, before, *_), (label, *_) = tables(text)[:2]
    levels = np.asarray(Image.open(photos / "0.png")) / 255
    assert label == "filters" and float(before) == pytest.approx(100 * levels.mean(), abs=0.06)
    assert "PSNR" not in text and "as they are" in capsys.readouterr().out and path.read_bytes()[:4] == b"%PDF"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["indoor", "--rows", "nobody"], "nobody.yaml: no such row"),
        (["indoor", "--rows", "foundir"], "checkouts/FoundIR"),
        (["indoor", "--rows", "identity", "broken"], "'false' failed with status 1"),
        (["indoor", "--rows", "classic=a", "identity=a"], "two columns are called 'a'"),
        (["indoor", "--rows", "identity=input"], "two columns are called 'input'"),
        (["indoor", "--preset", "drizzle", "--rows", "identity"], "'drizzle'"),
        (["real", "--pick", "gain", "--rows", "identity"], "PSNR is not known"),
        (["real", "--draws", "2", "--seed", "1"], "--draws, --seed: nothing in this figure goes by that"),
        (["indoor", "--reasoner", "mine", "--runs", "elsewhere"], "--reasoner, --runs: nothing in this figure"),
        (["real", "--crop", "0", "0", "999", "2", "--rows", "identity"], "none of the photos could be used"),
    ],
)
def test_no_figure(argv, said, photos, configs, watched, tmp_path, capsys):
    name, *options = argv
    with pytest.raises(SystemExit) as stop:
        figure([name, str(photos), "-o", str(tmp_path / "out"), *options])
    assert stop.value.code == 2
    assert f"error: {said}" in (err := capsys.readouterr().err) or said in err.split("error: ")[-1]
    assert not list(tmp_path.glob("out/*"))


def test_a_fresh_clone_has_photos_for_every_figure():
    for kind in FIGURES.values():
        assert kind.photos() and all(photo.path.is_file() for photo in kind.photos())
        assert kind.rule in RULES.values() and not (kind.rule.needs_clean and kind.preset is None)


def test_every_command_is_a_function():
    for place, _ in FUNCTIONS.values():
        module, name = place.split(".")
        assert callable(getattr(import_module(f"rnr.{module}"), name)), place
