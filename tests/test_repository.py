"""What holds of the repository as a whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnr.models.weights import SHIPPED

ROOT = Path(__file__).parent.parent


def test_ruff_finds_nothing():
    said = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stdout


def test_every_file_imports_only_from_below():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_a_repair_imports_neither_torchmetrics_nor_matplotlib():
    """Memory and seconds that it has no use for."""
    asked = "import sys, rnr.pipeline; print({'torchmetrics', 'matplotlib', 'lightning'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_shipped_weights_are_safetensors_under_forty_megabytes():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files if path.suffix == ".safetensors"} == {
        "reasoner", "restorer", "noise", "rain", "shake"
    }  # fmt: skip
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    assert sum(path.stat().st_size for path in files) < 40e6


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_documents_name_files_that_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:rnr|tests|docs|notebooks|lightning_configs|data|benchmarks)/[\w./-]*)`", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_readme_starts_with_the_two_commands():
    commands = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]
    assert [line.split("#")[0].strip() for line in commands.strip().splitlines()] == ["make demo", "make test"]
