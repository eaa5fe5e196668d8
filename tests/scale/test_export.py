"""Each stage on the real classes of Qwen3-VL and Qwen-Image-Edit, small, by two processes under DeepSpeed's ZeRO-3: killed,
resumed, exported, and read by diffusers, transformers and peft as they are."""

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageTransformer2DModel
from peft import PeftModel
from tiny_stages import tiny_data, tiny_reasoner, tiny_trainer
from together import PROCESSES, STRATEGIES, Hold, Losses, Task, edit_restorer, ends, start, together, trained, until
from transformers import Qwen3VLForConditionalGeneration

from rnr.grpo import Anchored
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.small_reasoner import SmallReasoner
from rnr.models.views import Views
from rnr.stages import ReasonerSFT, RestorerGRPO, RestorerSFT
from rnr.stages.callbacks import KeepCheckpoint, SaveWeights
from rnr.stages.checkpoints import resumed_from
from rnr.stages.conditioning import Conditioning
from rnr.stages.optimizer import Schedule

pytestmark = pytest.mark.slow
STEPS = 4
KILLED = {"reasoner_sft": (1,), "reasoner_lora": (0,), "restorer_sft": (1,), "grpo": (0, 1)}
"""Which of the processes, by stage."""


def stage_of(name: str):
    torch.manual_seed(0)
    schedule = Schedule(1e-2 if name == "reasoner_lora" else 1e-3, warmup=1)
    if name.startswith("reasoner"):
        small = SmallReasoner(vision_depth=1, vision_width=64, patch=8, text_depth=1, text_width=64, vocab_size=400)
        rank = 4 if name == "reasoner_lora" else None
        reasoner = Qwen3VLReasoner(
            small=small, views=Views(size=32, tiles=1), lora_rank=rank, gradient_checkpointing=True
        )
        return ReasonerSFT(reasoner, schedule)
    restorer, judge = edit_restorer(), tiny_reasoner()
    if name == "restorer_sft":  # one process asks the reasoner in a step in which the other does not
        return RestorerSFT(restorer, judge, Conditioning(predicted=0.5), schedule, deal_reasoner=True)
    loss = Anchored(tau=0.01, weight=175)
    return RestorerGRPO(restorer, judge, loss, group=2, floor=1e-9, schedule=schedule, deal_reasoner=True)


def train(task: Task) -> list[float]:
    torch.set_num_threads(1)
    losses = Losses()
    trainer = tiny_trainer(
        task.folder, task.steps, callbacks=[losses, SaveWeights(), KeepCheckpoint(minutes=0), *[Hold()] * task.hold],
        devices=PROCESSES, strategy=STRATEGIES[task.strategy](), use_distributed_sampler=False,
    )  # fmt: skip
    stage = stage_of(task.stage)
    adapters = [p for name, p in stage.named_parameters() if ".lora_B" in name]
    assert not any(p.any() for p in adapters), "adapters do not begin as nothing"
    start = resumed_from("last" if task.resume else None, task.folder)
    trainer.fit(stage, tiny_data(batch_size=1, crops=(32,)), ckpt_path=start)
    return losses.of


@pytest.mark.parametrize("stage", KILLED)
def test_a_stage_is_trained_killed_resumed_and_exported(stage, tmp_path):
    whole = Task(stage, tmp_path / "whole", tmp_path, "ZeRO-3", STEPS)
    cut = replace(whole, folder=tmp_path / "cut")
    undisturbed = together(train, whole)
    processes = start(train, replace(cut, hold=True))
    until((cut.folder / "checkpoints/last.ckpt").exists)
    time.sleep(random.Random(stage).uniform(0, 2))
    for victim in KILLED[stage]:
        processes[victim].kill()
    codes = ends(processes)
    assert [codes[victim] for victim in KILLED[stage]] == [-signal.SIGKILL] * len(KILLED[stage]) and all(codes)
    after = together(train, replace(cut, resume=True))
    for all_, last in zip(undisturbed, after, strict=True):
        assert 0 < len(last) < STEPS and last == all_[-len(last) :]
    expected, found = (trained(task.folder) for task in (whole, cut))
    assert expected.keys() == found.keys()
    assert stage == "reasoner_sft" or any(tensor.any() for name, tensor in found.items() if "lora_B" in name)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    if stage.startswith("reasoner"):
        read_by_transformers(stage, cut.folder / "weights")
    else:
        read_by_diffusers(cut.folder / "weights")


def read_by_transformers(stage: str, folder: Path) -> None:
    """And peft, which know nothing of rnr: what they make of it is what rnr makes of it."""
    ours = Qwen3VLReasoner(checkpoint=str(folder))
    prompt = ours._prompt(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    others = [Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()]
    if stage == "reasoner_lora":
        base = stage_of(stage).reasoner.model  # the weights that the adapter was trained on
        bare = Qwen3VLForConditionalGeneration(base.config)
        bare.load_state_dict(
            {n.replace(".base_layer", ""): t for n, t in base.state_dict().items() if ".lora_" not in n}
        )
        others.append(PeftModel.from_pretrained(bare, folder / "adapter").eval())
    with torch.no_grad():
        expected = ours.model.eval()(**prompt).logits
        for other in others:
            torch.testing.assert_close(other(**prompt).logits, expected, rtol=0, atol=1e-4)


def read_by_diffusers(folder: Path) -> None:
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
