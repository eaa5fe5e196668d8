"""Memory, messages and time of the three stages at full size, on paper: ``python -m benchmarks.scale``.

Parameters are counted on the public architectures, built without weights (on torch's ``meta`` device); batch, crop, rank,
group and steps are read from ``lightning_configs/scale``. The rest is arithmetic, each rule of it below. Nothing here was
measured on a GPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKLQwenImage
from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from benchmarks.full_scale import TERA, empty, operations, parts, words
from benchmarks.timing import print_table
from rnr.diagnosis.prompt import EXAMPLE, FULL
from rnr.diagnosis.text import render
from rnr.models.edit_parts import add_adapter

CONFIGS = Path(__file__).parent.parent / "lightning_configs" / "scale"
GIGA = 1e9
GPUS = (1, 8, 64)

# Qwen/Qwen3-VL-8B-Instruct
TEXT = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
VISION = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096}

# NVIDIA H200 SXM: the data sheet's numbers, and the share of its dense bfloat16 operations that a good training gets.
MEMORY, FLOPS, BANDWIDTH, SHARE = 141e9, 989e12, 4.8e12, 0.4
IN_NODE, BETWEEN_NODES = 450e9, 50e9  # bytes a second and GPU: NVLink in one direction; 400 Gbit/s

# Bytes a parameter. ZeRO-3 in bfloat16: a weight, its gradient, and float32 master, mean and square of AdamW.
WEIGHT, GRADIENT, OPTIMIZER = 2, 2, 12
# DeepSpeed's max_live_parameters (1e9) may be gathered at once; two buckets of the overlays (2e8) travel.
LIVE, BUCKETS = WEIGHT * 1e9, 2 * WEIGHT * 2e8
# A transformer block keeps 34 bytes a token and channel with flash attention (Korthikanti et al. 2022, section 4.1).
BLOCK = 34


@dataclass(frozen=True)
class Stage:
    """On one GPU and step. trained, sharded: parameters that are trained, and all that are dealt out. replicated: those of
    the frozen reasoner, whole on each GPU. activations: bytes. gathers: how many parameters are fetched a step, in all
    passes. flops: of a step. decoded: how often the reasoner's weights are read to write answers."""

    name: str
    trained: float
    sharded: float
    replicated: float
    activations: float
    gathers: float
    flops: float
    decoded: float = 0.0

    def memory(self, gpus: int) -> dict[str, float]:
        """Bytes by their use, of a training step."""
        return {
            "weights": WEIGHT * self.sharded / gpus,
            "frozen reasoner": WEIGHT * self.replicated,
            "gradients": GRADIENT * self.trained / gpus,
            "optimizer": OPTIMIZER * self.trained / gpus,
            "gathered, buckets": 0 if gpus == 1 else min(LIVE, WEIGHT * self.sharded) + BUCKETS,
            "activations": self.activations,
        }

    def evaluating(self, gpus: int) -> float:
        """Bytes while photos are evaluated: on whole weights (rnr/stages/sharding.py), the optimiser waiting. Loading takes
        as much, less the optimiser: each process loads all weights before they are dealt out."""
        shard = (WEIGHT * self.sharded if gpus > 1 else 0) / gpus + OPTIMIZER * self.trained / gpus
        return shard + WEIGHT * (self.sharded + self.replicated)

    def sent(self, gpus: int) -> float:
        """Bytes that a GPU takes in: weights for each pass, and the sum of gradients."""
        return (gpus - 1) / gpus * (WEIGHT * self.gathers + GRADIENT * self.trained)

    def seconds(self, gpus: int) -> float:
        """No step is faster: arithmetic and messages side by side, decoding by the memory's speed after them."""
        link = IN_NODE if gpus <= 8 else BETWEEN_NODES
        return max(self.flops / FLOPS / SHARE, self.sent(gpus) / link) + (
            self.decoded * WEIGHT * self.replicated / BANDWIDTH
        )

    def dealt(self, gpus: int) -> tuple[float, float, float]:
        """Of a frozen reasoner that is dealt out (rnr/stages/frozen.py): bytes kept, bytes taken in a step, and the least
        seconds that these add to it. Vocabulary and head are its largest layers."""
        layer = WEIGHT * TEXT["vocab_size"] * TEXT["hidden_size"]
        taken = self.decoded * WEIGHT * self.replicated * (gpus - 1) / gpus
        return WEIGHT * self.replicated / gpus + layer, taken, taken / (IN_NODE if gpus <= 8 else BETWEEN_NODES)


def config(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def count(model: nn.Module, wanted: Callable[[nn.Parameter], bool] = lambda parameter: True) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if wanted(parameter))


def reasoner() -> Qwen3VLForConditionalGeneration:
    text = {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]}}
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=VISION))


def decoder_keeps(vae: AutoencoderKLQwenImage, side: int) -> float:
    """Bytes that the VAE's decoder keeps for the backward pass of one photo, in bfloat16; counted."""
    kept: dict[int, float] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[id(tensor.untyped_storage())] = WEIGHT * tensor.untyped_storage().nbytes() / tensor.element_size()
        return tensor

    alive = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: alive.append(note(tensor)) or tensor, lambda x: x):
        vae.decoder(empty(1, 16, 1, side // 8, side // 8).requires_grad_())
    return sum(kept.values())


def stages() -> list[Stage]:
    one, two, three = (config(name) for name in ("reasoner_sft", "restorer_sft", "grpo"))
    judge, (transformer, vae, encoder) = reasoner(), parts()
    vision, judged = count(judge.model.visual), count(judge)

    side, batch = one["data"]["crops"][0], one["data"]["batch_size"]
    seen = (side // 16) ** 2  # patches of the vision tower, four to a token
    prompt, answer = seen // 4 + words(FULL), words(render(EXAMPLE))
    forward = 2 * (vision * seen + (judged - vision) * (prompt + answer))
    layers = TEXT["num_hidden_layers"]
    first = Stage(
        f"1, reasoner, all trained, {batch} photos of {side} px",
        judged,
        judged,
        0,
        # Each block's input is kept, one block is recomputed at a time; logits of the answer in float32, twice.
        batch * (prompt + answer) * TEXT["hidden_size"] * (WEIGHT * layers + BLOCK)
        + batch * seen * VISION["hidden_size"] * (WEIGHT * VISION["depth"] + BLOCK)
        + batch * answer * TEXT["vocab_size"] * 8,
        3 * judged,  # forward, recomputed, back
        4 * batch * forward,  # back costs twice the forward pass, which is run once more
    )

    arguments = two["model"]["init_args"]["restorer"]["init_args"]
    base = count(transformer) + count(vae) + count(encoder)
    rank = arguments["lora_rank"]
    transformer.requires_grad_(False)
    add_adapter(transformer, rank, rank)
    adapter = count(transformer, lambda parameter: parameter.requires_grad)
    whole = count(transformer)

    def editing(side: int) -> float:
        """Bytes that one photo's pass through the transformer leaves behind."""
        tokens = 2 * (side // 16) ** 2 + (side // 28) ** 2 + words(render(EXAMPLE))
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        return tokens * width * (WEIGHT * transformer.config.num_layers + BLOCK)

    side, batch = two["data"]["crops"][0], two["data"]["batch_size"]
    cost = operations(side)
    second = Stage(
        f"2, restorer, LoRA {rank}, {batch} photo of {side} px",
        adapter,
        base + adapter,
        judged,
        batch * editing(side),
        3 * whole + count(encoder) + 2 * count(vae),
        batch * (3 * cost["transformer"] + cost["text encoder"] + 2 * cost["VAE encoder"]),  # as in full_scale
    )

    arguments = three["model"]["init_args"]["restorer"]["init_args"]
    side, batch, group = three["data"]["crops"][0], three["data"]["batch_size"], three["model"]["init_args"]["group"]
    steps, through = arguments["steps"], arguments["grad_steps"]
    passes = steps - through + 3 * through
    third = Stage(
        f"3, GRPO, LoRA {rank}, {batch} photo of {side} px, {group} candidates",
        adapter,
        base + adapter,
        judged,
        batch * group * through * editing(side) + decoder_keeps(vae, side),  # candidates are decoded one by one
        passes * whole + count(encoder) + 4 * count(vae),
        batch
        * (
            group * (passes * cost["transformer"] + 4 * cost["VAE decoder"])
            + cost["text encoder"]
            + cost["VAE encoder"]
            + (1 + group) * forward
        ),
        2 * answer,  # photo and candidates, a batch each; at most a pass a token
    )
    return [first, second, third]


def main() -> None:
    all_ = stages()
    for stage in all_:
        print_table(
            f"Stage {stage.name}: GB a GPU under ZeRO-3",
            ["GPUs", *stage.memory(1), "sum", "evaluating", f"fits {MEMORY / GIGA:.0f}"],
            [
                [
                    str(gpus),
                    *(f"{value / GIGA:.1f}" for value in stage.memory(gpus).values()),
                    f"{sum(stage.memory(gpus).values()) / GIGA:.1f}",
                    f"{stage.evaluating(gpus) / GIGA:.1f}",
                    "yes" if max(sum(stage.memory(gpus).values()), stage.evaluating(gpus)) < 0.9 * MEMORY else "no",
                ]
                for gpus in GPUS
            ],
        )
    print_table(
        f"A step: TFLOP and GB taken in a GPU, and the least seconds at {SHARE:.0%} of {FLOPS / TERA:.0f} TFLOP/s",
        ["stage", "trained", "all", "TFLOP", *(f"GB, {gpus}" for gpus in GPUS), *(f"s, {gpus}" for gpus in GPUS)],
        [
            [
                stage.name[0],
                f"{stage.trained / GIGA:.2f} B",
                f"{(stage.sharded + stage.replicated) / GIGA:.2f} B",
                f"{stage.flops / TERA:.0f}",
                *(f"{stage.sent(gpus) / GIGA:.0f}" for gpus in GPUS),
                *(f"{stage.seconds(gpus):.1f}" for gpus in GPUS),
            ]
            for stage in all_
        ],
    )
    rows = []
    for stage in all_:
        load = WEIGHT * (stage.sharded + stage.replicated)
        state = (WEIGHT + OPTIMIZER) * stage.trained
        ddp = load + (GRADIENT + OPTIMIZER) * stage.trained + stage.activations
        if not math.isclose(stage.trained, stage.sharded):
            ddp += 2 * WEIGHT * stage.trained  # adapters and their gradients in float32
        sizes = (load, 8 * load, state, ddp)
        rows.append([stage.name[0], *(f"{size / GIGA:.0f}" for size in sizes)])
    print_table(
        "GB: weights of a process, main memory that 8 load into, a checkpoint without what is frozen, a GPU under DDP",
        ["stage", "weights", "8 processes", "checkpoint", "DDP"],
        rows,
    )
    print_table(
        "Stage 3 with deal_reasoner: GB of the frozen reasoner on a GPU, GB it takes in a step, and seconds more at least",
        ["GPUs", "GB kept", "GB taken in", "s"],
        [
            [str(gpus), *(f"{value:.1f}" for value in (kept / GIGA, taken / GIGA, seconds))]
            for gpus in GPUS[1:]
            for kept, taken, seconds in [all_[2].dealt(gpus)]
        ],
    )


if __name__ == "__main__":
    main()
