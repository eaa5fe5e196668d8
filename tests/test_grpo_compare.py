"""``rnr grpo-compare``: who is run how, and what the table says of figures that are known."""

import sys

import pytest
from PIL import Image

from rnr import row_runs
from rnr.grpo_compare import METHODS, main
from rnr.records import Record
from rnr.stages.evaluation import markdown

# In the place of rnr: keeps its command line; awr is better than the rest, and algorithm1 diverges after its best.
FAKE = """
import pathlib, sys
folder = pathlib.Path([a for a in sys.argv if a.startswith("--trainer.default_root_dir=")][0].split("=")[1])
with open("said", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "fit":
    (folder / "weights").mkdir()
    (folder / "weights" / "config.json").write_text("{}")
    if "algorithm1" in str(folder):
        sys.exit("error: the loss is nan at step 3")
else:
    better = folder.name.startswith("awr")
    (folder / "test.csv").write_text("photo,input_psnr,psnr,ssim,reward\\n" + "".join(
        f"{name},10,{psnr + 2 * better},0.5,{50 + 10 * better}\\n" for name, psnr in (("a", 19), ("a", 21), ("b", 10))))
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "grpo.yaml").write_text("{}")
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(row_runs, "RNR", [sys.executable, str(tmp_path / "fake.py")])
    return lambda: (tmp_path / "said").read_text().splitlines()


def test_every_row_is_trained_and_tested_once_and_a_diverged_one_too(said, tmp_path):
    argv = ["--configs", "configs", "-o", "out", "--seeds", "2", "--steps", "8", "--data.batch_size=2"]
    assert main(argv) == 1, "a fit has failed"
    lines = said()
    fits, tests = ([line for line in lines if line.startswith(command)] for command in ("fit", "test"))
    assert len(fits) == 2 * len(METHODS) and len(tests) == 1 + len(fits)
    assert all("max_steps=8" in line and "val_check_interval=2" in line for line in fits)
    assert all("--data.batch_size=2" in line for line in lines)
    trained = [line for line in tests if "restorer.init_args.checkpoint=out/awr_1/fit/weights" in line]
    assert len(trained) == 1 and "--trainer.default_root_dir=out/awr_1" in trained[0]
    table = (tmp_path / "out" / "compare.md").read_text()
    told = Record.read(tmp_path / "out" / "compare.json")
    assert told.command == ["rnr", "grpo-compare", *argv] and all(markdown(rows) in table for rows in told.tables.values())
    to_start, to_control = (part.splitlines() for part in table.split("## ")[1:])
    row = next(line for line in to_control if line.startswith("| awr"))
    for figure in ("17.00", "+2.00 [+2.00, +2.00]", "60.0", "+10.0 [+10.0, +10.0]", "17.00 to 17.00"):
        assert figure in row
    assert any(line.startswith("| algorithm1 | 15.00") for line in to_start)
    assert "the loss is nan at step 3" in table
    assert main(argv) == 1
    again = [line for line in said()[len(lines) :] if line.startswith("fit")]
    assert len(again) == 2 and all("algorithm1" in line for line in again), "what is through is not run again"


def test_a_run_of_other_photos_is_told_and_the_rest_shown(said, tmp_path, capsys):
    argv = ["--configs", "configs", "-o", "out", "--steps", "8", "--only", "awr", "anchored"]
    assert main(argv) == 0
    with (tmp_path / "out/awr_0/test.csv").open("a") as file:
        file.write("c,10,20,0.5,50\n")
    assert main(argv) == 1
    table = (tmp_path / "out" / "compare.md").read_text()
    assert "- out/awr_0: out/awr_0/test.csv: other photos than the rest" in table
    assert "| anchored" in table and "| awr" not in table
    with (tmp_path / "out/control_0/test.csv").open("a") as file:
        file.write("c,10,20,0.5,50\n")
    assert main(argv) == 1
    assert "error: control: out/control_0/test.csv: other photos" in capsys.readouterr().err


def test_each_folder_of_photos_has_tables_of_its_own(said, tmp_path):
    for photos in ("indoors", "out of/doors"):
        (tmp_path / photos).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / photos / "a.png")
    argv = ["--configs", "configs", "-o", "out", "--steps", "8", "--only", "awr", "--test", "indoors", "out of/doors"]
    assert main(argv) == 0
    tests = [line for line in said() if line.startswith("test")]
    for photos in ("indoors", "out of/doors"):
        on_these = [line for line in tests if f"--data.sources.test=[{photos}]" in line]
        assert len(on_these) == 3 and sum("fit/weights" in line for line in on_these) == 2
    assert len({line.split("default_root_dir=")[1] for line in tests}) == 6
    told = Record.read(tmp_path / "out" / "compare.json")
    assert [title.split(": ")[1] for title in told.tables] == [
        f"{photos}, to the {other}" for photos in ("indoors", "out of/doors") for other in ("start", "control")
    ]


def test_too_few_steps_to_be_validated_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--steps", "3"])
    assert stop.value.code == 2
    assert "--steps: must be at least 4" in capsys.readouterr().err


def test_photos_that_are_not_there_are_told_before_anything_is_trained(said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--configs", "configs", "-o", "out", "--test", "elsewhere"])
    assert stop.value.code == 2 and "error: elsewhere" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        said()


@pytest.mark.parametrize("name", METHODS)
def test_each_rows_options_are_understood(name, capsys, monkeypatch):
    from rnr.stage_commands import StageCLI

    options = ["fit", "--config=lightning_configs/grpo.yaml", *METHODS[name], "--print_config"]
    monkeypatch.setattr("sys.argv", ["rnr", *options])
    with pytest.raises(SystemExit) as stop:
        StageCLI()
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    classes = {"control": "Supervised", "algorithm1": "Algorithm1", "awr": "AdvantageWeighted"}
    classes |= {"policy_gradient": "PolicyGradient", "reward_led": "PolicyGradient"}
    assert f"class_path: rnr.grpo.{classes.get(name, 'Anchored')}\n" in printed
    assert ("rnr.stages.aims.Own" in printed) == (name in ("policy_gradient", "reward_led"))
    assert ("sampled: true" in printed) == (name in ("sampled", "reward_led"))
    assert ("figure: reward" in printed) == (name == "reward_led") and printed.count("best.BestAverage") == 1
