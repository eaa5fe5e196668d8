"""Table 3 by one command: what each row is trained from and tested on."""

import shutil
import sys
from pathlib import Path

import pytest

from rnr import ablations, row_runs
from rnr.records import Record
from rnr.stages.evaluation import markdown

CONFIGS = Path(__file__).parent.parent / "lightning_configs"
# In the place of rnr: keeps its command line, and finds each row some decibels below the full model.
FAKE = """
import pathlib, sys
folder = pathlib.Path([a for a in sys.argv if a.startswith("--trainer.default_root_dir=")][0].split("=")[1])
with open("said", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if folder.parent.name == "without_score":
    sys.exit("error: no luck")
if sys.argv[1] == "fit":
    (folder / "weights").mkdir()
    (folder / "weights" / "config.json").write_text("{}")
else:
    psnr = {"full": 20, "without_rl": 19.5}.get(folder.name, 18)
    (folder / "test.csv").write_text("photo,input_psnr,input_ssim,psnr,ssim\\n" + "".join(
        f"{name},10,0.1,{psnr},0.5\\n" for name in "abc"))
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(row_runs, "RNR", [sys.executable, str(tmp_path / "fake.py")])
    return tmp_path / "said"


def test_rows(said, capsys):
    options = ["--configs", str(CONFIGS), "--sft-steps=5", "--data.eval_draws=2"]
    assert ablations.main(options) == 1  # one row has failed
    _, measured, printed = Path("runs/ablations/ablations.md").read_text().split("## ")
    rows = [line.split(" | ")[0].strip("| ") for line in measured.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["without_reasoner_sft", "without_parameters", "without_semantics", "without_rl", "full"]
    assert measured.startswith("Table 3 at 5 + 4 steps") and "| without_rl | 19.50 | -0.50 [-0.50, -0.50] |" in measured
    assert "- runs/ablations/without_score: no result: runs/ablations/without_score/grpo was not trained" in measured
    table, paper = Record.read(Path("runs/ablations/ablations.json")).tables.values()
    assert markdown(table) in measured and markdown(paper) in printed
    assert "as the paper prints it" in printed and "| w/o RL | 18.9478 |" in printed

    commands = said.read_text().splitlines()
    full = [line for line in commands if "ablations/full.yaml" in line]
    assert [line.split()[0] for line in full] == ["fit", "fit", "test", "test"]
    start = "--model.init_args.restorer.init_args.checkpoint=runs/ablations/full"
    assert "restorer_sft.yaml" in full[0] and "max_steps=5" in full[0] and ".checkpoint" not in full[0]
    assert all("grpo.yaml" in line for line in full[1:]) and "max_steps=4" in full[1]
    assert f"{start}/sft/weights" in full[1] and f"{start}/grpo/weights" in full[2] and f"{start}/sft/weights" in full[3]
    assert all("--data.eval_draws=2" in line for line in commands)

    assert ablations.main(options) == 1
    assert said.read_text().splitlines()[len(commands) :] == [line for line in commands if "without_score" in line]


def test_a_row_whose_training_fails_is_not_shown_by_weights_of_another_budget(said, monkeypatch):
    options = ["--configs", str(CONFIGS)]
    Path("fake.py").write_text(FAKE.replace("without_score", "no such row"))
    assert ablations.main([*options, "--sft-steps=5"]) == 0
    for steps, row in ((6, "without_score"), (7, "full")):  # full is what the others are compared with
        Path("fake.py").write_text(FAKE.replace('== "without_score":', f'== "{row}" and sys.argv[1] == "fit":'))
        assert ablations.main([*options, f"--sft-steps={steps}"]) == 1
        if row == "without_score":
            table, _ = Record.read(Path("runs/ablations/ablations.json")).tables.values()
            assert [line[""] for line in table][-2:] == ["without_rl", "full"] and "without_score" not in str(table)
            assert "without_score: no result: " in Path("runs/ablations/ablations.md").read_text()
    assert Path("runs/ablations/without_score/sft/weights").is_dir(), "what was trained before is kept"


def test_another_overlay_is_another_row(said, tmp_path, capsys):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs" / "ablations" / "without_score.yaml").unlink()
    (tmp_path / "configs" / "ablations" / "mine.yaml").write_text("model: {init_args: {conditioning: {jitter: 0.5}}}")
    assert ablations.main(["--configs", str(tmp_path / "configs")]) == 0
    table, _ = Record.read(Path("runs/ablations/ablations.json")).tables.values()
    paper = ["without_reasoner_sft", "without_parameters", "without_semantics", "without_rl"]
    assert [row[""] for row in table] == [*paper, "mine", "full"]
    (tmp_path / "configs" / "ablations" / "full.yaml").unlink()
    with pytest.raises(SystemExit):
        ablations.main(["--configs", str(tmp_path / "configs")])
    assert "has no full.yaml to compare with" in capsys.readouterr().err


def test_other_rows_without_a_third_stage(said):
    assert ablations.main(["--configs", str(CONFIGS), "--overlays=parts", "--grpo-steps=0", "--sft-steps=5"]) == 0
    (title,), (table,) = zip(*Record.read(Path("runs/parts/ablations.json")).tables.items(), strict=True)
    assert title.startswith(f"{CONFIGS / 'parts'} at 5 steps, measured")
    parts = {path.stem for path in (CONFIGS / "parts").glob("*.yaml")}
    assert [row[""] for row in table] == [*sorted(parts - {"full"}), "full"]
    assert "Table 3" not in Path("runs/parts/ablations.md").read_text()
    commands = [line.split() for line in said.read_text().splitlines() if "parts/full.yaml" in line]
    assert [line[0] for line in commands] == ["fit", "test"]
    assert all(f"--config={CONFIGS / 'restorer_sft.yaml'}" in line for line in commands)
