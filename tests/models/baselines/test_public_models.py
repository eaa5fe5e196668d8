"""The configurations of public models drive scripts that take their authors' arguments, and put results where those do."""

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from rnr.diagnosis import Diagnosis, Noise, Rain, Shake

CONFIGS = Path(__file__).parents[3] / "lightning_configs" / "baselines"
SCRIPT = """
import argparse, pathlib
from PIL import Image, ImageOps
parser = argparse.ArgumentParser()
for option in {options}:
    parser.add_argument(option, required=True)
args = parser.parse_args()
assert all(pathlib.Path(path).exists() for path in {needs})
out = pathlib.Path({out})
out.mkdir(parents=True, exist_ok=True)
for path in sorted(pathlib.Path({photos}).glob("*.png")):
    ImageOps.invert(Image.open(path)).save(out / path.name)
"""
MODELS = {
    "foundir": ("FoundIR/test.py", {
        "options": ["--dataroot", "--meta"], "needs": "[args.dataroot + '/GT']", "photos": "args.dataroot + '/LQ'",
        "out": "'results/FoundIR/test'",
    }),
    "onerestore": ("OneRestore/test.py", {
        "options": ["--embedder-model-path", "--restore-model-path", "--input", "--output"], "needs": "[]",
        "photos": "args.input", "out": "args.output",
    }),
    "promptir": ("PromptIR/demo.py", {
        "options": ["--mode", "--test_path", "--output_path"], "needs": "[]",
        "photos": "args.test_path + '.'", "out": "args.output_path + '.'",
    }),
    "restormer": ("Restormer/demo.py", {
        "options": ["--task", "--input_dir", "--result_dir"], "needs": "[]",
        "photos": "args.input_dir", "out": "args.result_dir + '/' + args.task",
    }),
}  # fmt: skip
FOUND = Diagnosis(shake=Shake(20, 0, 2, 0.2), rain=Rain(9, 0.002, -12, 21, 1.5, 0.6, (0.9,) * 3), noise=Noise(20, 0.1, 5))


def built(node):
    """A class_path with its init_args, as the command line would build it."""
    if not isinstance(node, dict) or "class_path" not in node:
        return node
    module, name = node["class_path"].rsplit(".", 1)
    return getattr(import_module(module), name)(**{key: built(value) for key, value in node["init_args"].items()})


@pytest.mark.parametrize("name", MODELS)
def test_the_script_sees_the_photos_and_its_results_are_found(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    place, words = MODELS[name]
    script = tmp_path / "checkouts" / place
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT.format(**words))
    (script.parent / "results").mkdir()
    (script.parent / "results" / "9999.png").write_text("of another day")
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    restorer = built(config["model"]["init_args"]["restorer"])
    photos = (torch.rand(3, 3, 20, 35, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    restored = restorer.restore(photos, [FOUND] * 3, [0] * 3)
    torch.testing.assert_close(restored, 1 - photos, rtol=0, atol=1e-6)  # Restormer's three steps invert three times
