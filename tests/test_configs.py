"""Every configuration in the repository parses and validates against the code that it configures."""

import sys
from pathlib import Path

import pytest
import yaml

from rnr.stage_commands import StageCLI, run

CONFIGS = Path(__file__).parent.parent / "lightning_configs"
BASES = ("reasoner_sft", "restorer_sft", "grpo")
PAIRS = [
    *((base, None) for base in BASES),
    *((base, f"scale/{base}") for base in BASES),
    *(("reasoner_sft", f"scale/{name}") for name in ("ddp", "fsdp2", "nodes", "offload")),
    *((f"baselines/{path.stem}", None) for path in sorted((CONFIGS / "baselines").glob("*.yaml"))),
    *(
        ("restorer_sft", path.relative_to(CONFIGS).with_suffix("").as_posix())
        for path in sorted((CONFIGS / "baselines").glob("*/*.yaml"))
    ),
    ("reasoner_sft", "models/reasoner_look"),
    ("reasoner_sft", "models/reasoner_write"),
    ("restorer_sft", "models/qwen_image_edit_small"),
    ("grpo", "models/qwen_image_edit_small_grpo"),
    *(
        (base, f"ablations/{path.stem}")
        for base in BASES[1:]
        for path in sorted((CONFIGS / "ablations").glob("*.yaml"))
    ),
    *(("restorer_sft", f"parts/{path.stem}") for path in sorted((CONFIGS / "parts").glob("*.yaml"))),
]


def printed(capsys, monkeypatch, *arguments: str) -> dict:
    """The configuration as the parser has understood it; nothing is built."""
    monkeypatch.setattr("sys.argv", ["rnr", "fit", *arguments, "--print_config"])
    with pytest.raises(SystemExit) as stop:
        StageCLI()
    assert stop.value.code in (0, None)
    out = capsys.readouterr().out
    return yaml.safe_load(out[out.index("seed_everything:") :])  # libraries may chat before


@pytest.mark.parametrize(("base", "overlay"), PAIRS)
def test_config_is_valid(base, overlay, capsys, monkeypatch):
    names = [base] if overlay is None else [base, overlay]
    config = printed(capsys, monkeypatch, *(f"--config={CONFIGS / name}.yaml" for name in names))
    given = yaml.safe_load((CONFIGS / f"{names[-1]}.yaml").read_text())
    for path, value in leaves(given):
        assert found(config, path) == value, f"{'.'.join(path)} is not what the file says"


def test_every_file_is_covered():
    covered = {name for pair in PAIRS for name in pair if name}
    assert covered == {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--data.bach_size=3", "bach_size"),
        ("--data.batch_size=many", "batch_size"),
        ("--data.degrader.fog.beta=[3,0.8]", "ordered range"),
        ("--model.init_args.loss=rnr.grpo.Nonsense", "Nonsense"),
        ("--config=nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_a_wrong_value_is_named(argument, said, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rnr"])
    with pytest.raises(SystemExit) as stop:
        run(["fit", f"--config={CONFIGS / 'grpo.yaml'}", argument])
    assert stop.value.code not in (0, None)
    assert said in capsys.readouterr().err + str(stop.value.code)


def test_an_unknown_key_in_a_file_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rnr"])
    (tmp_path / "mine.yaml").write_text("data:\n  degrader:\n    fogg: {beta: [1, 2]}\n")
    with pytest.raises(SystemExit) as stop:
        run(["fit", f"--config={CONFIGS / 'grpo.yaml'}", f"--config={tmp_path / 'mine.yaml'}", "--trainer.fast_dev_run=1"])
    assert stop.value.code == 2
    assert "fogg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("restorer: {class_path: CompactRestorer, init_args: {tyle: 3}}", "CompactRestorer): Option 'tyle' is not accepted"),
        ("restorer: {class_path: CompactRestorr}", "model.restorer (rnr.models.compact.CompactRestorr): module"),
        ("restorers: null", "error: model (rnr.stages.RestorerSFT): Option 'restorers' is not accepted"),
        ("restorer: [", "mine.yaml: is no YAML, line 6: "),
    ],
)
def test_a_mistake_deep_in_a_file_is_one_line_that_names_its_place(text, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rnr"])
    text = text.replace("class_path: ", "class_path: rnr.models.compact.")
    path = tmp_path / "mine.yaml"
    path.write_text(f"model:\n  class_path: rnr.stages.RestorerSFT\n  init_args:\n    reasoner: null\n    {text}\n")
    with pytest.raises(SystemExit) as stop:
        run(["test", f"--config={path}"])
    (error,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and error.startswith("error: ") and said in error and len(error) < 250


@pytest.mark.parametrize(
    ("name", "said"), [("/tmp/nowhere", "no weights in /tmp/nowhere"), ("shipped/restorer", "not of a reasoner")]
)
def test_what_is_wrong_with_weights_that_may_be_left_out_is_said(name, said, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rnr"])
    wrong = f"--model.init_args.reasoner.init_args.checkpoint={name}"
    with pytest.raises(SystemExit) as stop:
        run(["test", f"--config={CONFIGS / 'restorer_sft.yaml'}", wrong])
    assert stop.value.code.startswith("error: ") and said in stop.value.code and "\n" not in stop.value.code


def test_weights_of_another_stage_are_refused(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rnr"])
    wrong = "--model.init_args.restorer.init_args.checkpoint=shipped/reasoner"
    with pytest.raises(SystemExit) as stop:
        run(["fit", f"--config={CONFIGS / 'grpo.yaml'}", wrong])
    assert stop.value.code.startswith("error: ") and "\n" not in stop.value.code
    assert "holds weights of qwen3_vl, not of a compact restorer" in stop.value.code


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_the_last_checkpoint_of_no_run_cannot_be_evaluated(command, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rnr"])
    with pytest.raises(SystemExit, match=rf"error: {tmp_path}/checkpoints: no checkpoint is there to {command}"):
        run([command, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last"])


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_zero_3_evaluates_no_checkpoint(command, tmp_path, monkeypatch):
    """Lightning would end in an error of DeepSpeed's, after the models are dealt out."""
    monkeypatch.setattr("sys.argv", ["rnr"])
    options = ["--trainer.strategy=deepspeed_stage_3", f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=some.ckpt"]
    with pytest.raises(SystemExit, match=f"ZeRO-3 can {command} by no checkpoint; name the weights: {tmp_path}/weights"):
        run([command, *options])


def test_a_class_of_ones_own_is_found_in_the_current_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine_alone.py").write_text("from rnr.models.identity import Identity\n\n\nclass Mine(Identity):\n    pass\n")
    (tmp_path / "mine.yaml").write_text(
        "model: {class_path: rnr.stages.RestorerSFT, init_args: {restorer: {class_path: mine_alone.Mine}, reasoner: null}}\n"
        "trainer: {use_distributed_sampler: false, limit_test_batches: 1, devices: 1}"
    )
    monkeypatch.setattr("sys.argv", ["rnr"])
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    assert type(run(["test", "--config=mine.yaml"]).restorer).__name__ == "Mine"


def leaves(node, path=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif not (isinstance(node, list) and any(isinstance(each, dict) for each in node)):  # callbacks, which come with defaults
        yield path, node


def found(node, path):
    for key in path:
        node = node[key]
    return node


def test_a_run_that_replaces_an_earlier_one_says_so(tmp_path, capsys, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"an earlier run's")
    monkeypatch.setattr("sys.argv", ["rnr"])
    root = f"--trainer.default_root_dir={tmp_path}"
    with pytest.raises(SystemExit, match="no such folder"):
        run(["fit", f"--config={CONFIGS / 'restorer_sft.yaml'}", "--data.sources.train", "/nowhere", root])  # or [/nowhere]
    said = capsys.readouterr().err
    assert f"{tmp_path}: an earlier run is there, which this one replaces; --ckpt_path last would go on from it" in said
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == b"an earlier run's"
