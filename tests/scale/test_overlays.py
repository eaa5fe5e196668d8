"""What the overlays for clusters make of each stage, all of them on top of each other, as the parser understands it."""

from pathlib import Path

import pytest
import yaml

from rnr.stage_commands import StageCLI

CONFIGS = Path(__file__).parent.parent.parent / "lightning_configs"
STAGES = ("reasoner_sft", "restorer_sft", "grpo")
STRATEGIES = {
    None: "DeepSpeedStrategy",
    "ddp": "DDPStrategy",
    "fsdp2": "FSDP2",
    "offload": "OffloadedZeRO",
}


def trainer_of(stage: str, overlay: str | None, capsys, monkeypatch) -> dict:
    names = [stage, f"scale/{stage}", *([f"scale/{overlay}"] if overlay else []), "scale/nodes"]
    files = [f"--config={CONFIGS / name}.yaml" for name in names]
    monkeypatch.setattr("sys.argv", ["rnr", "fit", *files, "--print_config"])
    with pytest.raises(SystemExit):
        StageCLI()
    out = capsys.readouterr().out
    return yaml.safe_load(out[out.index("seed_everything:") :])["trainer"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("overlay", STRATEGIES)
def test_overlays_stack(stage, overlay, capsys, monkeypatch):
    trainer = trainer_of(stage, overlay, capsys, monkeypatch)
    strategy = trainer["strategy"]
    assert strategy["class_path"].endswith(f".{STRATEGIES[overlay]}")
    assert (trainer["num_nodes"], trainer["devices"]) == (8, 8)
    assert trainer["use_distributed_sampler"] is False, "the data module samples for each process itself"
    kept = [callback["class_path"].rpartition(".")[2] for callback in trainer["callbacks"]]
    weights = "BestWeights" if stage == "grpo" else "SaveWeights"
    assert {weights, "KeepCheckpoint"} <= set(kept) and not any("Average" in name for name in kept)
    if overlay in (None, "offload"):
        assert trainer["precision"] == "bf16-true"
        assert "auto" not in strategy["init_args"].values() and strategy["init_args"]["config"] is None
        assert strategy["init_args"]["stage"] == 3
    else:
        assert trainer["precision"] == "32-true", "adapters would be cast to bfloat16, and have no other copy"
