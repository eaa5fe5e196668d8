"""Table 2 by one command: rows of one file each, over the same photos."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from skimage import data, io

from rnr import baselines, row_runs
from rnr.records import Record
from rnr.stages.evaluation import markdown

CONFIGS = Path(__file__).parent.parent / "lightning_configs"
# In the place of rnr: an input of 10 dB, restored to 20 by rnr and to 15 by the others; `broken` cannot.
FAKE = """
import pathlib, sys
from rnr.records import record
folder = pathlib.Path([a for a in sys.argv if a.startswith("--trainer.default_root_dir=")][0].split("=")[1])
if folder.name == "broken":
    sys.exit("error: no luck")
psnr = {"rnr": 20, "identity": 10}.get(folder.name, 15)
before = 30 if folder.name == "otherwise" else 10
if sys.argv[1] == "test":
    (folder / "test.csv").write_text("photo,input_psnr,input_ssim,psnr,ssim\\n" + "".join(
        f"{name},{before},0.1,{psnr},0.5\\n" for name in "abc"))
    record(sys.argv[1:], {}, 7, []).write(folder / "test.json")
else:
    (folder / "weights").mkdir()
    (folder / "weights" / "config.json").write_text("{}")
"""
MINE = """
model:
  class_path: rnr.stages.RestorerSFT
  init_args:
    restorer:
      class_path: rnr.models.baselines.external.External
      init_args:
        folder: mine
        command: [COMMAND, -c, "import shutil; shutil.copytree('{input}', '{output}', dirs_exist_ok=True)"]
    reasoner: null
"""


@pytest.fixture
def configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONFIGS, tmp_path / "configs")
    return tmp_path / "configs"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(row_runs, "RNR", [sys.executable, str(tmp_path / "fake.py")])


def table():
    return Path("runs/baselines/table2.md").read_text().split("## ")


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_all_rows_run_that_can_and_the_others_are_told(configs, fake, capsys, jobs):
    assert baselines.main(["--configs", str(configs), "--jobs", jobs]) == 0, "what is not at hand is no failure"
    (configs / "baselines" / "broken.yaml").write_text("model: {}")
    (configs / "baselines" / "otherwise.yaml").write_text("data: {eval_degrader: light}")
    assert baselines.main(["--configs", str(configs), "--jobs", jobs]) == 1
    _, measured, printed = table()
    rows = [line.split(" | ")[0].strip("| ") for line in measured.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["identity", "classic", "classic_blind", "three_d", "three_d_blind", "rnr"]
    assert "| classic | 15.00 | -5.00 [-5.00, -5.00] | 0.5000 | +0.0000 [+0.0000, +0.0000] |" in measured
    record = Record.read(Path("runs/baselines/table2.json"))
    (title, told), (paper_title, paper) = record.tables.items()
    assert markdown(told) in measured and title in measured and markdown(paper) in printed and paper_title in printed
    assert record.seed == 7
    assert "- otherwise: no result: runs/baselines/otherwise/test.csv: a is degraded otherwise" in measured
    assert "- broken: no result: no luck" in measured
    assert "- foundir: no result: checkouts/FoundIR: no such folder" in measured
    assert "- stable_diffusion3: no result: no weights in runs/baselines/scale/stable_diffusion3/weights" in measured
    assert "- qwen_image: no result: Qwen/Qwen-Image-Edit is not on this machine" in measured
    assert "as the paper prints it" in printed and "| 3D | 13.0786 |" in printed and "3D" not in measured


def test_only_what_the_chosen_rows_need_is_trained_and_nothing_twice(configs, fake, capsys):
    assert baselines.main(["--configs", str(configs), "--rows", "classic", "--steps", "3"]) == 0
    assert baselines.main(["--configs", str(configs), "--rows", "three_d"]) == 0
    assert not Path("runs/baselines/training").exists(), "those that ship will do"
    assert baselines.main(["--configs", str(configs), "--rows", "classic", "three_d", "--steps", "3"]) == 0
    said = capsys.readouterr().err
    assert said.count("runs/baselines/classic: runs") == said.count("runs/baselines/classic: done before") == 1
    assert {path.parent.name for path in Path("runs/baselines/training").glob("*/done.json")} == {"noise", "rain", "shake"}


def test_a_row_whose_training_failed_is_not_shown_by_what_was_there_before(configs, fake, tmp_path, capsys):
    options = ["--configs", str(configs), "--rows", "classic", "three_d"]
    assert baselines.main([*options, "--steps", "3"]) == 0
    (tmp_path / "fake.py").write_text("import sys\nif sys.argv[1] == 'fit':\n    sys.exit('error: no luck')\n" + FAKE)
    assert baselines.main([*options, "--steps", "4"]) == 1
    _, measured, _ = table()
    assert "| three_d |" not in measured and "| classic |" in measured
    assert "- three_d: no result: runs/baselines/training/noise was not trained" in measured


def test_a_row_that_was_asked_for_and_failed_is_a_failure(configs, fake, capsys):
    assert baselines.main(["--configs", str(configs), "--rows", "foundir"]) == 1


def test_tables_side_by_side_have_folders_of_their_own(configs, fake, capsys):
    for folder in ("light", "heavy"):
        assert baselines.main(["--configs", str(configs), "--rows", "classic", "-o", f"runs/{folder}"]) == 0
        assert Record.read(Path(f"runs/{folder}/table2.json")).command[-1] == f"runs/{folder}"
        assert Path(f"runs/{folder}/classic/test.csv").is_file()
    assert not Path("runs/baselines").exists()


def test_a_row_that_is_not_there(configs, fake, capsys):
    with pytest.raises(SystemExit) as stop:
        baselines.main(["--configs", str(configs), "--rows", "nobody"])
    assert stop.value.code == 2 and "has no nobody.yaml; rows are classic," in capsys.readouterr().err


def test_three_d_knows_where_its_networks_are_trained():
    """The configurations, and the folders into which the command trains, agree."""
    for row in ("three_d", "three_d_blind"):
        said = (CONFIGS / "baselines" / f"{row}.yaml").read_text()
        for path in (CONFIGS / "baselines" / "training").glob("*.yaml"):
            root = yaml.safe_load(path.read_text())["trainer"]["default_root_dir"]
            assert root == str(baselines.FOLDER / "training" / path.stem)
            assert f"[{root}/weights, shipped/three_d/{path.stem}]" in said


@pytest.mark.slow
def test_ones_own_model_is_a_row_of_one_file(configs, tmp_path, capsys):
    """The real commands, on photos small enough to be quick."""
    (tmp_path / "photos").mkdir()
    for i in range(3):
        io.imsave(tmp_path / "photos" / f"{i}.png", data.astronaut()[60 * i : 60 * i + 64, 100:180])
    (configs / "baselines" / "mine.yaml").write_text(MINE.replace("COMMAND", sys.executable))
    options = [f"--data.sources.test=[{tmp_path / 'photos'}]", f"--data.sources.train=[{tmp_path / 'photos'}]"]
    rows = ["identity", "mine", "three_d"]
    assert baselines.main(["--configs", str(configs), "--rows", *rows, "--steps=2", "--data.crops=[32]", *options]) == 0
    measured = table()[1]
    figures = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in measured.splitlines() if "|" in line}
    assert figures["mine"] == figures["identity"]
    assert {"three_d", "rnr"} <= set(figures)
