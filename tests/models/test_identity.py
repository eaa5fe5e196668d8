import pytest
import torch

from rnr.models.identity import Identity
from rnr.stage_commands import run


def test_it_changes_nothing():
    photos = torch.rand(2, 3, 7, 9)
    assert Identity().restore(photos, [None, None], [0, 1]) is photos


def test_its_gain_is_zero_and_it_cannot_be_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rnr"])
    config = ["--config=lightning_configs/baselines/identity.yaml", f"--trainer.default_root_dir={tmp_path}"]
    run(["test", *config, "--data.limit_eval=1", "--data.eval_draws=2", "--trainer.logger=false"])
    table = (tmp_path / "test.md").read_text()
    assert "1 photos degraded 2 times each" in table
    assert "| gain | +0.00 [-inf, +inf] | +0.0000 [-inf, +inf] |" in table
    with pytest.raises(SystemExit) as stop:
        run(["fit", *config])
    assert "Identity can be evaluated, but has nothing to train" in str(stop.value.code)
