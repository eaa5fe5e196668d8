"""What the parts of Qwen-Image-Edit cost at full size, and what a cache of encodings can save: ``python -m
benchmarks.full_scale``.

Operations are counted, not timed: the public architectures are built without weights (on torch's ``meta`` device), and one
photo goes through them. A multiplication with its addition counts as two. On a device of known speed this gives the least
time that a step can take, and so how well it is used.
"""

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.timing import print_table
from rnr.diagnosis.prompt import EXAMPLE
from rnr.models.edit_grid import UNIT
from rnr.models.edit_prompt import END, PLAIN, SYSTEM, instruction, view_size

SIDES = (512, 1024)
STEPS = (4, 8, 28)
TERA = 1e12
PIXELS_PER_TOKEN = 28  # a side, in the text encoder
WORDS = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
HEADS = {"num_attention_heads": 28, "num_key_value_heads": 4}
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def parts() -> tuple[QwenImageTransformer2DModel, AutoencoderKLQwenImage, Qwen2_5_VLForConditionalGeneration]:
    """Of ``Qwen/Qwen-Image-Edit``: diffusers' defaults, and the sizes of Qwen2.5-VL-7B."""
    config = Qwen2_5_VLConfig(text_config={**WORDS, **HEADS, "rope_parameters": ROPE}, vision_config=VISION)
    with torch.device("meta"):
        return QwenImageTransformer2DModel(), AutoencoderKLQwenImage(), Qwen2_5_VLForConditionalGeneration(config)


def words(text: str) -> int:
    """About as many as tokens: each word of English and each digit is one in the real vocabulary."""
    return len(Qwen2Tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str(text))


@torch.no_grad()
def operations(side: int) -> dict[str, float]:
    """Of each part for one square photo: the transformer once, the text encoder with a full diagnosis."""
    transformer, vae, encoder = parts()
    grid = side // UNIT
    height, width = view_size(Qwen2VLImageProcessorPil(patch_size=14), PLAIN, side, side)
    seen = height * width // PIXELS_PER_TOKEN**2
    kept = seen + words(instruction(EXAMPLE) + END)
    runs = {
        "transformer": lambda: transformer(
            hidden_states=empty(1, 2 * grid**2, 64),
            timestep=empty(1),
            encoder_hidden_states=empty(1, kept, WORDS["hidden_size"]),
            encoder_hidden_states_mask=None,
            img_shapes=[[(1, grid, grid)] * 2],
        ),
        "text encoder": lambda: encoder.model.language_model(
            inputs_embeds=empty(1, kept + words(SYSTEM), WORDS["hidden_size"]), use_cache=False
        ),
        "VAE encoder": lambda: vae.encode(empty(1, 3, 1, side, side)),
        "VAE decoder": lambda: vae.decoder(vae.post_quant_conv(empty(1, 16, 1, side // 8, side // 8))),
    }
    counts = {}
    for name, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run()
        counts[name] = float(counter.get_total_flops())
    # Its windows are cut by the photo's size, which meta tensors do not hold: weights alone, without the attention.
    counts["text encoder"] += 2 * 4 * seen * sum(weight.numel() for weight in encoder.model.visual.blocks.parameters())
    return counts


def main() -> None:
    counts = {side: operations(side) for side in SIDES}
    names = list(counts[SIDES[0]])
    print_table(
        "TFLOP of each part, one photo",
        ["px", *names],
        [[str(side), *(f"{count[name] / TERA:.1f}" for name in names)] for side, count in counts.items()],
    )
    rows = []
    for side, count in counts.items():
        # An adapter's step: forward, forward again (gradient checkpointing), back through activations but not to weights.
        # Degraded and clean photo are encoded.
        encoders = count["text encoder"] + 2 * count["VAE encoder"]
        rows.append(("training step", side, 3 * count["transformer"] + encoders, encoders))
        encoders = count["text encoder"] + count["VAE encoder"]
        for steps in STEPS:
            total = steps * count["transformer"] + encoders + count["VAE decoder"]
            rows.append((f"restored in {steps} steps", side, total, encoders))
    print_table(
        "What encoders cost, and a cache of encodings can save, one photo",
        ["", "px", "TFLOP", "of encoders"],
        [[what, str(side), f"{total / TERA:.0f}", f"{part / total:.1%}"] for what, side, total, part in rows],
    )


if __name__ == "__main__":
    main()
