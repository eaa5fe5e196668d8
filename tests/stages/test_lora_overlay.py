"""The overlay for a cluster, on a small checkpoint and a CPU: an adapter is trained, and read by others."""

import pytest
import torch
from peft import PeftModel
from transformers import Qwen3VLForConditionalGeneration

from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.small_reasoner import SmallReasoner
from rnr.stage_commands import run

SMALL = SmallReasoner(vision_depth=1, vision_width=64, patch=16, text_depth=1, text_width=64, vocab_size=400)


@pytest.mark.slow
def test_an_adapter_trained_by_the_scale_overlay_is_read_by_peft_and_by_transformers(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rnr"])
    base = tmp_path / "base"  # as a public checkpoint is: transformers' files and nothing of ours
    tokenizer = Qwen3VLReasoner(small=SMALL).tokenizer
    config = SMALL.config(tokenizer, view_size=64)
    config.vision_config.temporal_patch_size = 2
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    reasoner = "--model.init_args.reasoner.init_args"
    stage = run(
        [
            "fit", "--config=lightning_configs/reasoner_sft.yaml", "--config=lightning_configs/scale/reasoner_sft.yaml",
            f"{reasoner}.checkpoint={base}", f"{reasoner}.lora_rank=4",
            "--data.batch_size=2", "--data.crops=[64]", "--data.num_workers=0", "--data.visits=4",
            "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.precision=32-true",
            "--trainer.max_steps=3", "--trainer.limit_val_batches=0", f"--trainer.default_root_dir={tmp_path / 'run'}",
        ]
    )  # fmt: skip
    weights = tmp_path / "run/weights"
    prompt = stage.reasoner._prompt(torch.rand(1, 3, 64, 64))
    plain, onto, again = (Qwen3VLForConditionalGeneration.from_pretrained(base).eval() for _ in range(3))
    adapted = PeftModel.from_pretrained(onto, weights / "adapter").eval()
    again.load_adapter(str(weights / "adapter"))
    whole = Qwen3VLForConditionalGeneration.from_pretrained(weights).eval()
    with torch.no_grad():
        before, *after = (model(**prompt).logits for model in (plain, adapted, again, whole))
    assert not torch.equal(before, after[0]), "nothing was learned"
    torch.testing.assert_close(after[1], after[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(after[2], after[0], atol=1e-4, rtol=0)
