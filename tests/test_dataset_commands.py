"""``rnr dataset``, as a person uses it; above all: killed at any moment and run again, it ends with the same bytes."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rnr.dataset_commands import dataset
from rnr.diagnosis import files

FORMS = ([], ["--shards", "0.1"])


def write_photos(folder, count):
    folder.mkdir()
    rows, columns = np.mgrid[:48, :64]
    for i in range(count):
        wave = 120 + 60 * np.sin(rows / (3 + i % 7)) + 60 * np.cos(columns / (4 + i // 7))
        Image.fromarray(np.stack([wave, wave[::-1], 255 - wave], axis=-1).astype(np.uint8)).save(
            folder / f"{i:03d}.png"
        )
    return folder


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "in", 3)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def written(root):
    return len(list(root.glob("*-*"))) if root.is_dir() else 0


def alive(pid):
    """False also for a process that has ended and whom nobody has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_midway(start, root, count):
    """Kills what ``start`` starts, without warning, as soon as ``count`` samples or shards are there."""
    process = start()
    while written(root) < count:
        assert process.exitcode is None if hasattr(process, "exitcode") else process.poll() is None
        time.sleep(0.001)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    orphans = workers.read_text().split() if workers.exists() else []  # to be seen on Linux alone
    os.kill(process.pid, signal.SIGKILL)
    process.join() if hasattr(process, "join") else process.wait()
    deadline = time.monotonic() + 30
    while any(map(alive, orphans)):
        assert time.monotonic() < deadline, "the workers outlive a build that was killed"
        time.sleep(0.05)
    assert json.loads((root / "dataset.json").read_text())["samples"] is None, "it was whole before it could be killed"


@pytest.mark.parametrize(("form", "counts"), zip(FORMS, [(3, 9), (2, 5)], strict=True))
def test_a_build_killed_twice_ends_with_the_same_bytes(tmp_path, form, counts):
    photos = write_photos(tmp_path / "in", 8)
    (photos / "004.png").write_bytes(b"broken")
    options = [str(photos), "--looks", "6", *form]

    def start():
        # A fork, since importing everything anew would take longer than the test.
        argv = ["build", *options, "-o", str(tmp_path / "killed"), "--workers", "2"]
        process = multiprocessing.get_context("fork").Process(target=dataset, args=(argv,))
        process.start()
        return process

    for count in counts:
        kill_midway(start, tmp_path / "killed", count)
    assert dataset(["build", *options, "-o", str(tmp_path / "killed"), "--workers", "2"]) == 1
    assert dataset(["build", *options, "-o", str(tmp_path / "whole"), "--workers", "0"]) == 1
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert json.loads((tmp_path / "whole/dataset.json").read_text())["samples"] == 42


@pytest.mark.slow
@pytest.mark.parametrize(("form", "counts"), zip(FORMS, [(20, 90), (5, 20)], strict=True))
def test_so_does_one_of_200_photos(tmp_path, form, counts):
    command = [
        sys.executable,
        "-c",
        "import sys; from rnr.dataset_commands import dataset; sys.exit(dataset(sys.argv[1:]))",
    ]
    options = ["build", str(write_photos(tmp_path / "in", 200)), *form, "-o"]
    for count in counts:
        kill_midway(
            lambda: subprocess.Popen([*command, *options, str(tmp_path / "killed")]), tmp_path / "killed", count
        )
    for root in ("killed", "whole"):
        subprocess.run([*command, *options, str(tmp_path / root)], check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_build_writes_every_step_and_what_was_drawn(photos, tmp_path, capsys):
    assert dataset(["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0", "--crop", "32"]) == 0
    assert "3 samples of 3 photos" in capsys.readouterr().out.replace("of 3 samples", "samples")
    folder = tmp_path / "set/000001-000"
    assert sorted(path.name for path in folder.iterdir()) == [
        "clean.png", "degraded.png", "depth.png", "fog.png", "kernel.npy", "rain.png", "sample.json", "shake.png",
    ]  # fmt: skip
    assert Image.open(folder / "degraded.png").size == (32, 32)
    files.from_dict(json.loads((folder / "sample.json").read_text())["diagnosis"])
    header = json.loads((tmp_path / "set/dataset.json").read_text())
    assert (header["samples"], header["recipe"]["preset"], header["recipe"]["crop"]) == (3, "paper", 32)


def test_a_photo_that_two_sources_name_is_in_the_set_once(photos, tmp_path, capsys):
    """Else it could be held out by one name and trained on by the other."""
    argv = ["build", str(photos), str(photos / "001.png"), "-o", str(tmp_path / "set"), "--workers", "0"]
    assert dataset(argv) == 0
    assert "3 of 3 samples of 3 photos" in capsys.readouterr().out


@pytest.mark.parametrize("rain", [{}, 5, None])
def test_check_goes_on_past_a_sample_that_does_not_say_enough(photos, tmp_path, capsys, rain):
    dataset(["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0"])
    path = tmp_path / "set/000001-000/sample.json"
    record = json.loads(path.read_text())
    record["parameters"]["rain"] = rain
    path.write_text(json.dumps(record))
    assert dataset(["check", str(tmp_path / "set"), "--workers", "0"]) == 1
    said = capsys.readouterr()
    assert "sample 000001-000: sample.json does not tell what it should" in said.err
    assert "2 samples of 2 photos" in said.out


def test_another_preset_gives_other_degradations(photos, tmp_path):
    assert dataset(["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0", "--preset", "noise"]) == 0
    present = [json.loads(path.read_text())["present"] for path in (tmp_path / "set").glob("*/sample.json")]
    assert present == [{"fog": False, "shake": False, "rain": False, "noise": True}] * 3


def test_a_photo_that_cannot_be_used_costs_one_line(photos, tmp_path, capsys):
    (photos / "001.png").write_bytes(b"broken")
    assert dataset(["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0", "--looks", "2"]) == 1
    said = capsys.readouterr()
    assert said.err == f"error: {photos / '001.png'}: not an image that can be read (BMP, JPEG, PNG, PPM, TIFF, WEBP can)\n"
    assert "4 of 6 samples of 3 photos" in said.out


def failure(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        dataset(argv)
    return exit.value.code, capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_refused(photos, tmp_path, capsys):
    argv = ["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0"]
    dataset(argv)
    assert dataset(argv) == 0
    code, said = failure([*argv, "--seed", "7"], capsys)
    assert code == 2 and "seed 0 there, 7 here" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "sunny"], "'sunny' is neither a file nor a preset"),
        (["--looks", "0"], "looks must lie within"),
        (["--shards", "-1"], "shards must be at least 0"),
        (["--workers", "-1"], "workers: must be at least 0"),
    ],
)
def test_wrong_options_cost_one_line(photos, tmp_path, capsys, options, message):
    code, said = failure(["build", str(photos), "-o", str(tmp_path / "set"), *options], capsys)
    assert code == 2 and message in said.splitlines()[-1]
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("form", FORMS)
def test_check_sums_up_a_good_set(photos, tmp_path, capsys, form):
    dataset(["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0", "--looks", "3", *form])
    capsys.readouterr()
    assert dataset(["check", str(tmp_path / "set"), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert "9 samples of 3 photos" in said and "PSNR" in said
    records = [
        json.loads(sample) for name, sample in contents(tmp_path / "set").items() if name.endswith("sample.json")
    ]
    if records:  # of folders, which are easily read
        share = sum(record["present"]["fog"] for record in records) / 9
        assert f"{share:.1%}" in next(line for line in said.splitlines() if " fog " in line)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("degraded.png", b"\x89PNG\r\n", "degraded.png cannot be read"),
        ("degraded.png", "clean.png", "its parameters do not make degraded.png of clean.png"),
        ("fog.png", None, "fog.png"),
        ("kernel.npy", b"", "No data left in file"),
        ("sample.json", b"{}", "no record of a sample"),
    ],
)
def test_check_finds_what_is_broken(photos, tmp_path, capsys, name, content, message):
    dataset(["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0"])
    path = tmp_path / "set/000001-000" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else (path.parent / content).read_bytes())
    assert dataset(["check", str(tmp_path / "set"), "--workers", "0"]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "sample 000001-000" in said.err and message in said.err
    assert "2 samples of 2 photos" in said.out


def test_check_finds_an_image_of_another_size(photos, tmp_path, capsys):
    dataset(["build", str(photos), "-o", str(tmp_path / "set"), "--workers", "0"])
    Image.new("RGB", (64, 47)).save(tmp_path / "set/000000-000/rain.png")
    assert dataset(["check", str(tmp_path / "set"), "--workers", "0"]) == 1
    assert "rain.png is (3, 47, 64), expected (3, 48, 64)" in capsys.readouterr().err


def test_check_of_anything_else_says_what_it_is_not(tmp_path, capsys):
    code, said = failure(["check", str(tmp_path)], capsys)
    assert code == 1 and "not the description of a built set" in said
