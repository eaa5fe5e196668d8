"""``rnr grpo-compare``: who is run how, and what the table says of figures that are known."""

import csv

import pytest

from rnr import grpo_compare
from rnr.grpo_compare import CONTROL, METHODS, START, compared, main, read

PHOTOS = ("a", "a", "b", "c")  # the first has two draws


def written(folder, psnr, reward):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "input_psnr", "psnr", "ssim", "reward"])
        writer.writerows([photo, 12.0, value, 0.5, reward] for photo, value in zip(PHOTOS, psnr, strict=True))
    return folder / "test.csv"


def test_differences_are_paired_by_photo_and_a_photo_counts_once(tmp_path):
    start = written(tmp_path / "s", (19, 21, 10, 30), 50)
    control = [written(tmp_path / f"c{i}", (19, 21, 10, 30 + i), 50) for i in range(2)]
    better = [written(tmp_path / f"b{i}", (23, 21, 12, 32), 60 + i) for i in range(2)]
    runs = {START: [start], CONTROL: control, "awr": better}
    means, to_start, to_control = compared({name: [read(path) for path in paths] for name, paths in runs.items()}).values()
    assert [row["PSNR (dB)"] for row in means] == ["20.00", "20.17", "22.00"]
    assert means[1]["PSNR by seed"] == "20.00 to 20.33"
    assert [row[""] for row in to_start] == [CONTROL, "awr"] and [row[""] for row in to_control] == ["awr"]
    assert to_start[1]["PSNR (dB)"] == "+2.00 [+2.00, +2.00]"
    assert to_control[0]["PSNR (dB)"].startswith("+1.83 [")
    assert to_control[0]["reward"] == "+10.5 [+10.5, +10.5]"


@pytest.fixture
def runs(monkeypatch):
    """What would have been run; a test leaves its table."""
    done = []

    def run(args):
        folder = next(arg.split("=", 1)[1] for arg in reversed(args) if arg.startswith("--trainer.default_root_dir="))
        done.append((args[0], folder.rsplit("/", 1)[1], args))
        if args[0] == "test":
            written(grpo_compare.Path(folder), (20, 20, 20, 20), 50)
        else:
            (grpo_compare.Path(folder) / "weights").mkdir(parents=True)
            if "algorithm1" in folder:
                raise SystemExit("error: the loss is nan at step 3")

    monkeypatch.setattr(grpo_compare, "run", run)
    return done


def test_every_row_is_trained_and_tested_once_and_a_diverged_one_too(runs, tmp_path, capsys):
    argv = ["-o", str(tmp_path), "--seeds", "2", "--steps", "7", "--data.batch_size=2"]
    assert main(argv) == 0
    fits = [(folder, args) for command, folder, args in runs if command == "fit"]
    assert {folder for folder, _ in fits} == {f"{name}_{seed}" for name in METHODS for seed in (0, 1)}
    assert all("--trainer.max_steps=7" in args and "--data.batch_size=2" in args for _, args in fits)
    schedules = {tuple(arg for arg in args if "schedule" in arg or "max_steps" in arg) for _, args in fits}
    assert len(schedules) == 1, "the control takes the same steps under the same schedule"
    tests = {folder: args for command, folder, args in runs if command == "test"}
    checkpoint = "--model.init_args.restorer.init_args.checkpoint="
    assert tests["awr_1"][-1] == f"{checkpoint}{tmp_path / 'awr_1' / 'weights'}"
    assert not any(arg.startswith(checkpoint) for arg in tests[START])
    assert "tested as it was before" in capsys.readouterr().err
    assert "Differences to the control" in (tmp_path / "compare.md").read_text()
    runs.clear()
    assert main(argv) == 0 and not runs, "what was finished before is not done again"
    with pytest.raises(SystemExit):
        main([*argv, "--data.crops=[64]"])
    assert "holds runs of other settings" in capsys.readouterr().err


def test_a_wrong_configuration_is_not_passed_over(monkeypatch, tmp_path):
    def run(args):
        raise SystemExit(2)

    monkeypatch.setattr(grpo_compare, "run", run)
    with pytest.raises(SystemExit) as stop:
        main(["-o", str(tmp_path)])
    assert stop.value.code == 2


@pytest.mark.parametrize("name", METHODS)
def test_each_rows_options_are_understood(name, capsys, monkeypatch):
    from rnr.stage_commands import StageCLI

    options = ["fit", "--config=lightning_configs/grpo.yaml", *METHODS[name], "--print_config"]
    monkeypatch.setattr("sys.argv", ["rnr", *options])
    with pytest.raises(SystemExit) as stop:
        StageCLI()
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    classes = {"control": "Supervised", "algorithm1": "Algorithm1", "anchored": "Anchored", "awr": "AdvantageWeighted"}
    assert f"class_path: rnr.grpo.{classes.get(name, 'PolicyGradient')}\n" in printed
    assert ("rnr.stages.aims.Own" in printed) == (name == "policy_gradient")
