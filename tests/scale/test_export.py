"""Adapters of the real classes, small, trained by two processes under DeepSpeed's ZeRO-3, cut off, resumed, exported, and
read by diffusers, transformers and peft as they are."""

from functools import partial

import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageTransformer2DModel
from peft import PeftModel
from safetensors.torch import load_file
from tiny_stages import tiny_data, tiny_trainer
from together import PROCESSES, Losses, StopAfter, Task, together, zero
from transformers import Qwen3VLForConditionalGeneration

from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.small_reasoner import SmallReasoner
from rnr.models.small_restorer import SmallRestorer
from rnr.models.views import Views
from rnr.stages import ReasonerSFT, RestorerSFT
from rnr.stages.callbacks import KeepCheckpoint, SaveWeights
from rnr.stages.optimizer import Schedule

pytestmark = pytest.mark.slow
STEPS = 4


def stage_of(name: str):
    torch.manual_seed(0)
    schedule = Schedule(1e-2, warmup=1)
    if name == "restorer_sft":
        small = SmallRestorer(depth=2, width=32, text_width=32)
        restorer = QwenImageEditRestorer(small=small, steps=2, lora_rank=4, gradient_checkpointing=True)
        return RestorerSFT(restorer, None, schedule=schedule)
    small = SmallReasoner(vision_depth=1, vision_width=64, patch=8, text_depth=1, text_width=64, vocab_size=400)
    reasoner = Qwen3VLReasoner(small=small, views=Views(size=32, tiles=1), lora_rank=4, gradient_checkpointing=True)
    return ReasonerSFT(reasoner, schedule)


def train(task: Task) -> list[float]:
    torch.set_num_threads(1)
    losses = Losses()
    cut = [] if task.stop_after is None else [StopAfter(task.stop_after)]
    strategy = zero(3)
    strategy.exclude_frozen_parameters = True
    trainer = tiny_trainer(
        task.folder, task.steps, callbacks=[losses, SaveWeights(), KeepCheckpoint(minutes=0), *cut], devices=PROCESSES,
        strategy=strategy, use_distributed_sampler=False,
    )  # fmt: skip
    stage = stage_of(task.stage)
    started = {name: p.detach().clone() for name, p in stage.named_parameters() if ".lora_B" in name}
    assert started and not any(p.any() for p in started.values()), "adapters do not begin as nothing"
    try:
        trainer.fit(stage, tiny_data(crops=(32,)), ckpt_path=task.folder / "checkpoints/last.ckpt" if task.resume else None)
    except RuntimeError as error:
        if str(error) != "cut off":
            raise
    return losses.of


@pytest.mark.parametrize("stage", ["restorer_sft", "reasoner_sft"])
def test_an_adapter_is_trained_cut_off_resumed_and_exported(stage, tmp_path):
    task = partial(Task, stage, photos=tmp_path, strategy="ZeRO-3", steps=STEPS)
    whole = together(train, task(folder=tmp_path / "whole"))
    before = together(train, task(folder=tmp_path / "cut", stop_after=2))
    after = together(train, task(folder=tmp_path / "cut", resume=True))
    for all_, first, last in zip(whole, before, after, strict=True):
        assert first + last == pytest.approx(all_, rel=1e-6)
    folders = [tmp_path / name / "weights" for name in ("whole", "cut")]
    adapter = "adapter/adapter_model.safetensors" if stage == "reasoner_sft" else "pytorch_lora_weights.safetensors"
    expected, found = (load_file(folder / adapter) for folder in folders)
    assert expected.keys() == found.keys() and any(t.any() for name, t in found.items() if "lora_B" in name)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)
    read_by_others(stage, folders[1])


def read_by_others(stage: str, folder) -> None:
    """By libraries that know nothing of rnr; what they make of it is what rnr makes of it."""
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    if stage == "reasoner_sft":
        ours = Qwen3VLReasoner(checkpoint=str(folder))
        prompt = ours._prompt(photo)
        plain = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
        base = stage_of(stage).reasoner.model  # the weights that the adapter was trained on
        bare = Qwen3VLForConditionalGeneration(base.config)
        bare.load_state_dict({n.replace(".base_layer", ""): t for n, t in base.state_dict().items() if ".lora_" not in n})
        adapted = PeftModel.from_pretrained(bare, folder / "adapter").eval()
        with torch.no_grad():
            expected, *others = (model(**prompt).logits for model in (ours.model.eval(), plain, adapted))
        for other in others:
            torch.testing.assert_close(other, expected, rtol=0, atol=1e-4)
        return
    ours = QwenImageEditRestorer(checkpoint=str(folder)).transformer.eval()
    plain = QwenImageTransformer2DModel.from_pretrained(folder, subfolder="transformer").eval()
    inputs = {
        "hidden_states": torch.randn(1, 8, 64), "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn(1, 5, 32), "encoder_hidden_states_mask": None,
        "img_shapes": [[(1, 2, 2)] * 2],
    }  # fmt: skip
    with torch.no_grad():
        without, expected = plain(**inputs).sample, ours(**inputs).sample
        state, metadata = QwenImageEditPipeline.lora_state_dict(folder, return_lora_metadata=True)
        plain.load_lora_adapter(state, metadata=metadata, prefix="transformer")
        found = plain(**inputs).sample
    assert not torch.allclose(without, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
