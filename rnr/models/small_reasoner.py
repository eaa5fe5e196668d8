"""The compact reasoner's model: Qwen3-VL in all but scale, started so that an hour on one core teaches it something.

Its patch embedding starts as the discrete cosine transform of a patch,

    c_uv = g (1 + u + v) sum_xy D_u(x) D_v(y) p(x, y),    D_u(x) = sqrt(2 / P) cos(pi u (2 x + 1) / 2 P),

in three colours p (grey and two opponent ones), the factor 1 + u + v making up for how photos fade towards high
frequencies. Noise, rain and shake, which a random embedding buries under brightness and colour, then stand apart from
the first step on. It is only a start: all of it is trained.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from rnr.models.tokenizer import IMAGE, VIDEO, VISION_END, VISION_START

HEAD = 64  # width of an attention head: wider than usual at this scale, since a CPU spends its time in the softmax
SPREAD = 0.06  # standard deviation of new weights; the 0.02 of wide models starts narrow ones several times slower
GAIN = 0.25  # g: brings the coefficients of a photo in [-1, 1] to about unit size


@dataclass(frozen=True)
class SmallReasoner:
    """Sizes of a compact model. Widths are multiples of 64; ``patch``: the side of a vision patch in pixels."""

    vision_depth: int = 3
    vision_width: int = 256
    patch: int = 16
    text_depth: int = 3
    text_width: int = 192
    vocab_size: int = 2048

    def __post_init__(self) -> None:
        for name in ("vision_width", "text_width"):
            if (width := getattr(self, name)) < HEAD or width % HEAD:
                raise ValueError(f"{name} must be a multiple of {HEAD}, got {width}")

    def build(self, tokenizer: Qwen2Tokenizer, view_size: int) -> Qwen3VLForConditionalGeneration:
        """A new model for the tokenizer's vocabulary and views of ``view_size`` pixels, from torch's random state."""
        model = Qwen3VLForConditionalGeneration(self.config(tokenizer, view_size))
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        embedding = model.model.visual.patch_embed.proj.weight  # (width, 3, 1, P, P)
        waves = GAIN * cosine_filters(self.patch)[: len(embedding)].unsqueeze(2)
        with torch.no_grad():
            embedding[: len(waves)] = waves
        return model

    def config(self, tokenizer: Qwen2Tokenizer, view_size: int) -> Qwen3VLConfig:
        image, video, start, end = tokenizer.convert_tokens_to_ids([IMAGE, VIDEO, VISION_START, VISION_END])
        return Qwen3VLConfig(
            vision_config={
                "depth": self.vision_depth,
                "hidden_size": self.vision_width,
                "intermediate_size": 2 * self.vision_width,
                "num_heads": self.vision_width // HEAD,
                "patch_size": self.patch,
                "temporal_patch_size": 1,
                "spatial_merge_size": 2,
                "out_hidden_size": self.text_width,
                "num_position_embeddings": (view_size // self.patch) ** 2,
                "deepstack_visual_indexes": [0],  # early features know most of noise and edges
                "initializer_range": SPREAD,
            },
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": self.text_width,
                "intermediate_size": 2 * self.text_width,
                "num_hidden_layers": self.text_depth,
                "num_attention_heads": self.text_width // HEAD,
                "num_key_value_heads": self.text_width // HEAD,
                "head_dim": HEAD,
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [12, 10, 10],  # of HEAD / 2 frequencies: time, height, width
                    "mrope_interleaved": True,
                },
                "pad_token_id": tokenizer.pad_token_id,
                "tie_word_embeddings": True,
                "initializer_range": SPREAD,
            },
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
            vision_end_token_id=end,
            tie_word_embeddings=True,
        )


def cosine_filters(patch: int) -> Tensor:
    """(3 P^2, 3, P, P): every c_uv of a P x P patch, up to g, in the order of what tells most: low frequencies before
    high ones, grey before colours of the same frequency. Before the factor 1 + u + v they are orthonormal."""
    places = torch.arange(patch)
    waves = torch.cos(math.pi * places[:, None] * (2 * places + 1) / (2 * patch)) * math.sqrt(2 / patch)  # D_u(x)
    waves[0] /= math.sqrt(2)
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    filters = torch.einsum("ci,uy,vx->cuviyx", colours, waves, waves).flatten(0, 2)
    frequency = (places[:, None] + places).flatten().repeat(3)  # u + v
    cost = frequency * torch.tensor([1, 2, 2]).repeat_interleave(patch**2)  # colour fades twice as fast
    order = torch.argsort(cost, stable=True)
    return (filters * (1 + frequency)[:, None, None, None])[order]
