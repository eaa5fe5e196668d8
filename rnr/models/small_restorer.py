"""A Qwen-Image-Edit small enough for a CPU: the real classes, new weights."""

from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rnr.models.edit_parts import EditParts
from rnr.models.tokenizer import IMAGE, VIDEO, VISION_END, VISION_START, train_tokenizer


@dataclass(frozen=True)
class SmallRestorer:
    """Sizes of a small model: Qwen-Image-Edit in all but scale. Heads are 32 wide, 16 in the text encoder."""

    depth: int = 2
    width: int = 128
    text_depth: int = 2
    text_width: int = 64
    vae_width: int = 8
    vocab_size: int = 512

    def build(self, texts: list[str], dtype: torch.dtype) -> EditParts:
        """New parts from torch's global random state, with a vocabulary trained on ``texts``."""
        tokenizer = train_tokenizer(texts, self.vocab_size)
        parts = EditParts(
            pipeline=QwenImageEditPipeline,
            transformer=QwenImageTransformer2DModel(
                num_layers=self.depth,
                attention_head_dim=32,
                num_attention_heads=self.width // 32,
                joint_attention_dim=self.text_width,
                axes_dims_rope=(8, 12, 12),
            ),
            vae=AutoencoderKLQwenImage(
                base_dim=self.vae_width, num_res_blocks=1, latents_mean=[0.0] * 16, latents_std=[1.0] * 16
            ),
            text_encoder=Qwen2_5_VLForConditionalGeneration(self._text_encoder(tokenizer)),
            tokenizer=tokenizer,
            scheduler=FlowMatchEulerDiscreteScheduler(  # Qwen-Image-Edit's own settings
                use_dynamic_shifting=True, max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02
            ),
            image_processor=Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16),
        )
        for module in (parts.transformer, parts.vae, parts.text_encoder):
            for parameter in module.parameters():  # and no buffers, as from_pretrained: angles must stay exact
                parameter.data = parameter.data.to(dtype)
        return parts

    def _text_encoder(self, tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
        image, video, start, end = tokenizer.convert_tokens_to_ids([IMAGE, VIDEO, VISION_START, VISION_END])
        width, depth, heads = self.text_width, self.text_depth, self.text_width // 16
        return Qwen2_5_VLConfig(
            vision_config={
                "depth": depth,
                "hidden_size": width,
                "intermediate_size": 2 * width,
                "num_heads": heads,
                "patch_size": 8,
                "window_size": 32,
                "fullatt_block_indexes": [depth - 1],
                "out_hidden_size": width,
            },
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": width,
                "intermediate_size": 2 * width,
                "num_hidden_layers": depth,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "bos_token_id": None,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            },
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
            vision_end_token_id=end,
        )
