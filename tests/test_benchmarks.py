"""Benchmarks still run: those that need a large GPU on small models of the same classes. Nothing is said of their figures."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_full_size_is_measured_by_what_the_small_size_runs_through(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--small", "--out", tmp_path / "measured.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "measured.json").read_text())
    timed = [row["what"] for row in rows if row.get("s", 0) > 0]
    for part in (
        "severities",
        "diagnosis",
        "plain generate",
        "encodings made",
        "encodings kept",
        "restored in",
        "GRPO",
    ):
        assert any(part in what for what in timed), part
    assert not any("error" in row for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "contestants"),
    [
        ("reasoner", ["plain generate", "looking alone", "full diagnosis", "severities alone"]),
        ("restorer", ["rnr", "the diagnosis", "NAFNet-32", "12 megapixels"]),
        ("grpo", ["compact, 128 px", "Qwen-Image-Edit"]),
        ("full_scale", ["training step", "restored in 28 steps"]),
    ],
)  # that of degradations needs more packages
def test_a_benchmark_ends_in_its_table(name, contestants):
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for contestant in contestants:
        assert contestant in done.stdout
    assert "nan" not in done.stdout
