"""The rows of Table 2 that are trained, by their own overlays and commands, from small checkpoints of the real classes."""

import csv
import subprocess
from pathlib import Path

import pytest
from skimage import data, io
from tiny_diffusion import save_sd_turbo, save_stable_diffusion3

from rnr import baselines
from rnr.row_runs import RNR

CONFIGS = Path(__file__).parents[3] / "lightning_configs"
SMALL = [
    "--trainer.accelerator=cpu", "--trainer.max_steps=2", "--data.num_workers=0", "--data.crops=[32]",
    "--data.batch_size=2", "--data.limit_eval=1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "save"), [("img2img_turbo", save_sd_turbo), ("stable_diffusion3", save_stable_diffusion3)]
)
def test_trained_by_its_overlay_it_is_a_row_of_the_table(row, save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "published")
    (tmp_path / "photos").mkdir()
    for i in range(3):
        io.imsave(tmp_path / "photos" / f"{i}.png", data.astronaut()[60 * i : 60 * i + 64, 100:164])
    photos = [f"--data.sources.{split}=[{tmp_path / 'photos'}]" for split in ("train", "test")]
    configs = [f"--config={CONFIGS / name}" for name in ("restorer_sft.yaml", f"baselines/scale/{row}.yaml")]
    start = "--model.init_args.restorer.init_args.checkpoint=published"
    fit = subprocess.run([*RNR, "fit", *configs, start, *SMALL, *photos], capture_output=True, text=True)
    assert fit.returncode == 0, fit.stderr[-2000:]
    assert Path(f"runs/baselines/scale/{row}/weights").is_dir()

    assert baselines.main(["--configs", str(CONFIGS), "--rows", "identity", row, *photos]) == 0
    with Path(f"runs/baselines/{row}/test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(0 < float(each["psnr"]) < 60 for each in rows)
    assert any(each["psnr"] != each["input_psnr"] for each in rows)
    assert f"| {row} | " in Path("runs/baselines/table2.md").read_text()
