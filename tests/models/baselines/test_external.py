"""Outsiders' models: a script that works, one that crashes, one that writes wrong sizes, one that hangs."""

import subprocess
import sys
import time

import pytest
import torch

from rnr.models.baselines.external import CommandError, External

WORKS = """
import pathlib, sys
from PIL import Image, ImageOps
for path in pathlib.Path(sys.argv[1]).glob("*.png"):
    pathlib.Path(sys.argv[2], "deep").mkdir(exist_ok=True)
    ImageOps.invert(Image.open(path)).save(pathlib.Path(sys.argv[2], "deep", path.name))
"""
CRASHES = "print('loading'); raise RuntimeError('CUDA out of memory')"
WRONG_SIZES = WORKS.replace("Image.open(path)", "Image.open(path).resize((8, 8))")
CROPS = WORKS.replace(
    "Image.open(path)", "(lambda i: i.crop((0, 0, i.width // 16 * 16, i.height // 16 * 16)))(Image.open(path))"
)
FORGETS = WORKS.replace('glob("*.png")', 'glob("0000.png")')
TWICE = WORKS + "    ImageOps.invert(Image.open(path)).save(pathlib.Path(sys.argv[2], path.name))\n"
TEXT = WORKS + "    pathlib.Path(sys.argv[2], 'deep', path.name).write_text('no photo')\n"
# The child would outlive a parent that is killed alone.
HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def photos():
    """(3, 3, 20, 35) at 8-bit levels."""
    return (torch.rand(3, 3, 20, 35, generator=torch.Generator().manual_seed(0)) * 255).round() / 255


@pytest.fixture
def external(tmp_path):
    def make(script, **settings):
        path = tmp_path / "model.py"
        path.write_text(script)
        return External([sys.executable, str(path), "{input}", "{output}"], tmp_path / "kept", **settings)

    return make


def restore(restorer, photos):
    return restorer.restore(photos, [None] * len(photos), list(range(len(photos))))


def test_what_the_command_writes_is_the_restoration(external, photos):
    torch.testing.assert_close(restore(external(WORKS), photos), 1 - photos, rtol=0, atol=1e-6)


def test_a_model_that_crops_gets_photos_that_need_none(external, photos):
    with pytest.raises(CommandError, match="16 x 32 pixels, not 20 x 35"):
        restore(external(CROPS), photos)
    torch.testing.assert_close(restore(external(CROPS, multiple=16), photos), 1 - photos, rtol=0, atol=1e-6)


def test_a_crash_is_told_with_the_last_words(external, photos):
    with pytest.raises(CommandError, match=r"(?s)failed with status 1.*CUDA out of memory"):
        restore(external(CRASHES), photos)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (WRONG_SIZES, r"(?s)3 of 3 photos.*8 x 8 pixels, not 20 x 35"),
        (FORGETS, r"(?s)2 of 3 photos.*0001.png: no photo .*0002.png"),
        (TWICE, "both fit"),
        (TEXT, "not an image"),
    ],
)
def test_bad_results_are_named_photo_by_photo(script, said, external, photos):
    with pytest.raises(CommandError, match=said):
        restore(external(script), photos)


def test_several_processes_would_write_over_each_other(external, photos, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with pytest.raises(CommandError, match=r"is for one process: --trainer\.devices 1"):
        restore(external(WORKS), photos)


def test_a_command_that_hangs_is_ended_with_its_children(external, photos, tmp_path):
    start = time.monotonic()
    with pytest.raises(CommandError, match="did not end within 2 seconds"):
        restore(external(HANGS, timeout=2), photos)
    assert time.monotonic() - start < 30
    (log,) = tmp_path.glob("kept/*/log.txt")
    child = log.read_text().split()[1]
    for _ in range(50):  # whoever inherits a killed process takes a moment to bury it
        state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.1)
    pytest.fail(f"the child {child} still runs ({state})")


def test_what_is_done_is_not_done_again_and_what_failed_is(external, photos, capsys):
    with pytest.raises(CommandError):
        restore(external(FORGETS), photos)
    done = restore(external(WORKS), photos)
    capsys.readouterr()
    assert torch.equal(restore(external(CRASHES), photos), done)  # same command, same photos: not run
    assert "3 photos taken from" in capsys.readouterr().err
    with pytest.raises(CommandError, match="status 1"):
        restore(external(CRASHES), photos.flip(0))


def test_a_program_that_is_not_there(tmp_path, photos):
    with pytest.raises(CommandError, match="'no-such-program' cannot be started"):
        restore(External(["no-such-program", "{input}", "{output}"], tmp_path), photos)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"command": ["model", "{input}"]}, ValueError, "where {output} goes"),
        ({"cwd": "no/such/checkout"}, FileNotFoundError, "no/such/checkout: no such folder"),
        ({"result": "*.png"}, ValueError, "where {name} goes"),
        ({"multiple": 0}, ValueError, "multiple must be at least 1"),
        ({"timeout": 0}, ValueError, "timeout above 0"),
    ],
)
def test_nonsense_is_refused(settings, error, said, tmp_path):
    with pytest.raises(error, match=said):
        External(**{"command": ["model", "{input}", "{output}"], "folder": tmp_path, **settings})
