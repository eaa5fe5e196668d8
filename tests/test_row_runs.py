"""Runs that make up a table: none twice, a failure told, and everything redone whose cause has changed."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from rnr import row_runs
from rnr.row_runs import Run, run_all

# In the place of rnr: counts its runs, and fails if a file says so.
FAKE = """
import pathlib, sys
folder = pathlib.Path([a for a in sys.argv if a.startswith("--trainer.default_root_dir=")][0].split("=")[1])
with (folder / "ran").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
print("loading\\nerror: the disk is full\\nTip: buy another") if pathlib.Path("fail").exists() else print("fine")
sys.exit(pathlib.Path("fail").exists())
"""

# Two of these end only if they run at the same time.
MEETING = """
import os, pathlib, sys, time
folder = pathlib.Path([a for a in sys.argv if a.startswith("--trainer.default_root_dir=")][0].split("=")[1])
there = [folder.parents[1] / name / "1" / "test.log" for name in "ab"]
begin = time.time()
while not all(path.exists() for path in there):
    assert time.time() < begin + 60
    time.sleep(0.01)
print(os.environ["OMP_NUM_THREADS"], begin, time.time())
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(row_runs, "RNR", [sys.executable, str(tmp_path / "fake.py")])
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text('{"class": "x"}')
    (tmp_path / "row.yaml").write_text("model: {restorer: {checkpoint: [nowhere, weights]}}")
    return Run("test", tmp_path / "out", (tmp_path / "row.yaml",), ("--data.limit_eval=1",))


def times(run):
    return len((run.folder / "ran").read_text().splitlines())


def test_what_is_done_is_not_done_again(run):
    assert not run.done() and run.once() is None and run.done()
    assert run.once() is None and times(run) == 1
    assert (run.folder / "ran").read_text() == (
        f"test --config={run.configs[0]} --data.limit_eval=1 --trainer.default_root_dir={run.folder}\n"
    )
    assert run.log.read_text() == "fine\n"


def test_a_mistyped_option_costs_no_trained_weights(run, capsys):
    fit = dataclasses.replace(run, command="fit")
    assert fit.once() is None
    (fit.folder / "weights").mkdir()
    (fit.folder / "weights" / "model.safetensors").write_text("trained for days")
    Path("fail").touch()
    assert dataclasses.replace(fit, options=("--data.limit_evil=1",)).once() is not None
    assert "replaces a run of another command, configuration or weights" in capsys.readouterr().err
    assert (fit.folder / "weights" / "model.safetensors").read_text() == "trained for days" and fit.done()
    assert not (fit.folder / "replaced").exists()


def test_what_a_run_that_was_cut_off_has_put_aside_comes_back(run):
    fit = dataclasses.replace(run, command="fit")
    assert fit.once() is None
    (fit.folder / "replaced" / "weights").mkdir(parents=True)
    (fit.folder / "replaced" / "weights" / "model.safetensors").write_text("its own")
    (fit.folder / "done.json").replace(fit.folder / "replaced" / "done.json")
    (fit.folder / "weights").mkdir()
    (fit.folder / "weights" / "model.safetensors").write_text("of what was cut off")
    Path("fail").touch()
    assert dataclasses.replace(fit, options=("--data.limit_eval=2",)).once() is not None
    assert fit.done() and (fit.folder / "weights" / "model.safetensors").read_text() == "its own"


def test_weights_that_were_being_put_aside_come_back(run):
    """Killed between the weights and the stamp."""
    fit = dataclasses.replace(run, command="fit")
    weights = fit.folder / "weights"
    assert fit.once() is None
    weights.mkdir()
    (weights / "config.json").write_text("trained")
    (fit.folder / "replaced").mkdir()
    weights.rename(fit.folder / "replaced/weights")
    assert not fit.done(), "a stamp without weights"
    Path("fail").touch()
    assert fit.once() is not None
    assert (weights / "config.json").read_text() == "trained" and (fit.folder / "done.json").exists()


@pytest.mark.parametrize("cause", ["configuration", "options", "weights", "files", "a run that was cut off"])
def test_it_is_done_again_when_its_cause_changes(cause, run):
    Path("mine.yaml").write_text("rain: 0.1")
    run = dataclasses.replace(run, options=(*run.options, "--data.eval_degrader", "[paper, mine.yaml]"))
    run.once()
    assert run.done()
    if cause == "configuration":
        run.configs[0].write_text("model: {restorer: {checkpoint: weights}}")
    elif cause == "options":
        run = Run(run.command, run.folder, run.configs, ("--data.limit_eval=2",))
    elif cause == "weights":
        (run.folder.parent / "weights" / "model.safetensors").write_text("new")
    elif cause == "files":
        Path("mine.yaml").write_text("rain: 0.2")
    else:
        (run.folder / "done.json").unlink()
    assert not run.done() and run.once() is None
    assert times(run) == 2


def test_a_failure_is_told_in_a_line_and_tried_again(run, capsys):
    (run.folder.parent / "fail").touch()
    assert run_all([[run]]) == {run.folder: "the disk is full"}
    assert not run.done()
    (run.folder.parent / "fail").unlink()
    assert run_all([[run]]) == {} and run.done()


def test_chains_run_side_by_side_and_each_in_its_order(run, monkeypatch):
    """Each of two runs waits until both have begun; those after them in their chains wait for nobody."""
    (run.folder.parent / "fake.py").write_text(MEETING)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    chains = two_chains(run)
    assert run_all(chains, jobs=2) == {}
    for first, second in chains:
        told = [each.log.read_text().split() for each in (first, second)]
        assert told[0][0] == told[1][0] == "3"
        assert float(told[0][2]) < float(told[1][1]), "the second began before the first had ended"


def two_chains(run):
    return [[dataclasses.replace(run, folder=run.folder / name / part) for part in "12"] for name in "ab"]


def test_a_failure_does_not_keep_the_rest_from_running(run):
    (run.folder.parent / "fail").touch()
    chains = two_chains(run)
    assert list(run_all(chains, jobs=2)) == [each.folder for chain in chains for each in chain]


def heeding_ctrl_c():
    """What a shell starts in the background ignores it, and so does whatever that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_what_runs_and_begins_nothing_else(run, tmp_path):
    (tmp_path / "fake.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)")
    script = (
        "import dataclasses, pathlib, sys\n"
        "from rnr import row_runs\n"
        f"row_runs.RNR = [sys.executable, {str(tmp_path / 'fake.py')!r}]\n"
        f"runs = [row_runs.Run('test', pathlib.Path({str(tmp_path)!r}) / name, ()) for name in 'abc']\n"
        "row_runs.run_all([runs[:2], runs[2:]], jobs=int(sys.argv[1]))\n"
    )
    for jobs, begun in (("1", "a"), ("2", "ac")):
        process = subprocess.Popen(
            [sys.executable, "-c", script, jobs], stderr=subprocess.PIPE, text=True, preexec_fn=heeding_ctrl_c
        )
        logs = {name: tmp_path / name / "test.log" for name in "abc"}
        until = time.monotonic() + 60
        while not all(logs[name].exists() and logs[name].read_text() for name in begun):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # to it alone: a terminal tells the others as well
        _, said = process.communicate(timeout=60)
        assert process.returncode != 0 and "KeyboardInterrupt" in said
        assert [name for name in "abc" if logs[name].exists()] == list(begun)
        for name in begun:
            logs[name].unlink()


EXTERNAL = """
import pathlib, sys
from rnr.models.baselines.external import External
from rnr.row_runs import RNR
import torch
child = "import os, pathlib, time; pathlib.Path('child').write_text(str(os.getpid())); time.sleep(600)"
inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[3]])"
command = [sys.executable, "-c", inner, "{input}", "{output}", child]
External(command, pathlib.Path("kept")).restore(torch.zeros(1, 3, 8, 8), [None], [0])
"""


def test_sigterm_ends_what_runs_down_to_the_children_of_a_foreign_command(run, tmp_path):
    (tmp_path / "fake.py").write_text(EXTERNAL)
    script = (
        "import pathlib, sys\n"
        "from rnr import row_runs\n"
        f"row_runs.RNR = [sys.executable, {str(tmp_path / 'fake.py')!r}]\n"
        f"row_runs.run_all([[row_runs.Run('test', pathlib.Path({str(tmp_path)!r}) / 'a', ())]])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    child, until = tmp_path / "child", time.monotonic() + 60
    while not (child.exists() and child.read_text()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    while Path(f"/proc/{child.read_text()}").exists():
        assert time.monotonic() < until, "the command's child goes on"
        time.sleep(0.05)


def test_what_is_launched_in_the_moment_of_the_end_is_ended_too(run, tmp_path, monkeypatch):
    """As the end begins, the first run is being launched, and the second waits for its turn."""
    (tmp_path / "fake.py").write_text("import time; time.sleep(600)")
    plain, launching = subprocess.Popen, threading.Event()

    def slow(*arguments, **named):
        process = plain(*arguments, **named)
        launching.set()
        time.sleep(0.5)
        return process

    monkeypatch.setattr(subprocess, "Popen", slow)
    faults = []
    with pytest.raises(KeyError), row_runs.ending_together(2, 30) as pool:
        pool.submit(lambda: faults.append(run.once()))
        launching.wait(60)
        pool.submit(lambda: faults.append(dataclasses.replace(run, folder=tmp_path / "b").once()))
        raise KeyError
    assert sorted(faults) == ["it said nothing", "told to end before it began"]
    (tmp_path / "fake.py").write_text(FAKE)
    assert run.once() is None, "what ended then keeps nothing from running now"


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(600)"
TABLE = """
import pathlib, sys
from rnr import row_runs
row_runs.RNR, row_runs.PATIENCE = [sys.executable, "stubborn.py"], 1.0
row_runs.run_all([[row_runs.Run("test", pathlib.Path("a"), ())]])
"""


def alive(name):
    """Processes whose command names it."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [place] * (name in place.read_text())
    return found


@pytest.mark.parametrize("signals", [1, 2])
def test_a_run_that_will_not_end_is_killed_also_by_a_table_within_a_document(signals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "table.py").write_text(TABLE)
    (tmp_path / "in.md").write_text("```bash\nrnr ablations\n```\n")
    script = (
        "import sys\n"
        "from rnr import results, row_runs\n"
        "row_runs.RNR, results.PATIENCE = [sys.executable, 'table.py'], 2.0\n"
        "results.results(['in.md', '-o', 'out.md'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    log, until = tmp_path / "a" / "test.log", time.monotonic() + 60
    while not (log.exists() and "begun" in log.read_text()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    for _ in range(signals):
        process.terminate()
        time.sleep(0.2)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not alive("stubborn.py")


def test_options_may_have_their_value_behind_a_space(run):
    spaced = dataclasses.replace(run, options=("--model.checkpoint", "runs/nowhere", "--data.x=1"))
    assert spaced.lacking().startswith("no weights in runs/nowhere")
    assert dataclasses.replace(run, options=("--model.checkpoint",)).lacking() is not None


@pytest.mark.parametrize("value", ["[runs/nowhere,weights]", "null"])
def test_options_may_name_several_places_or_none(run, value):
    assert dataclasses.replace(run, options=(f"--model.checkpoint={value}",)).lacking() is None


def test_runs_of_rnr_are_started_in_a_way_that_lightning_can_start_again():
    """For each further GPU it runs ``python -m`` and the name of the module, and has no way to run a ``-c``."""
    code = "import sys, rnr.cli; rnr.cli.main = lambda: print(__import__('__main__').__spec__.name)"
    script = f"{code}; import runpy; runpy.run_module('rnr', run_name='__main__', alter_sys=True)"
    assert [sys.executable, "-m", "rnr"] == row_runs.RNR
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "rnr.__main__\n"


@pytest.mark.slow
def test_a_row_runs_on_two_devices(tmp_path):
    config = Path(__file__).parent.parent / "lightning_configs" / "baselines" / "identity.yaml"
    options = ("--trainer.devices=2", "--trainer.accelerator=cpu", "--data.limit_eval=2")
    assert Run("test", tmp_path / "out", (config,), options).once() is None


def test_a_configuration_that_is_no_yaml_fails_its_own_run(run):
    run.once()
    run.configs[0].write_text("model: [")
    (run.folder.parent / "fail").touch()
    assert not run.done() and run_all([[run]]) == {run.folder: "the disk is full"}


def test_a_failure_is_told_with_the_lines_that_belong_to_it(run):
    fake = run.folder.parent / "fake.py"
    said = r"error: 1 of 2 photos unrestored:\n  0000.png has 8 x 8 pixels\n  | killed\nTip"
    fake.write_text(f"print('{said}'); raise SystemExit(1)")
    assert run.once() == "1 of 2 photos unrestored: 0000.png has 8 x 8 pixels | killed"


def test_a_failure_after_success_leaves_nothing_done(run):
    run.once()
    run.configs[0].write_text("model: {restorer: {checkpoint: weights}}")
    (run.folder.parent / "fail").touch()
    assert run.once() == "the disk is full" and not run.done()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("model: {restorer: {checkpoint: runs/nowhere}}", "no weights in runs/nowhere"),
        ("model: {restorer: {checkpoint: owner/no-such-model}}", "owner/no-such-model is not on this machine: hf download"),
        ("model: {restorer: {cwd: checkouts/Nobody}}", "checkouts/Nobody: no such folder"),
    ],
)
def test_what_is_not_there_is_told_without_a_run(config, said, run):
    run.configs[0].write_text(config)
    assert run.once().startswith(said)
    assert not (run.folder / "ran").exists()
