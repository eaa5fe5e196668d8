"""The parts of Qwen-Image-Edit, as diffusers lays them out: built small, loaded, saved, and given an adapter."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageTransformer2DModel,
)
from huggingface_hub import save_torch_state_dict
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file

from rnr.models.tokenizer import IMAGE, VIDEO, VISION_END, VISION_START, train_tokenizer

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
ADAPTER = "default"


@dataclass(frozen=True, eq=False)
class EditParts:
    """All that ``QwenImageEditPipeline`` is made of, its processor reduced to the half that needs no torchvision."""

    transformer: QwenImageTransformer2DModel
    vae: AutoencoderKLQwenImage
    text_encoder: Qwen2_5_VLForConditionalGeneration
    tokenizer: Qwen2Tokenizer
    scheduler: FlowMatchEulerDiscreteScheduler
    image_processor: Qwen2VLImageProcessorPil

    @classmethod
    def load(cls, checkpoint: str, dtype: torch.dtype) -> "EditParts":
        """From a folder or the hub, safetensors only, with the adapter if :meth:`save` wrote one."""
        of_diffusers = {"torch_dtype": dtype, "use_safetensors": True}
        parts = cls(
            QwenImageTransformer2DModel.from_pretrained(checkpoint, subfolder="transformer", **of_diffusers),
            AutoencoderKLQwenImage.from_pretrained(checkpoint, subfolder="vae", **of_diffusers),
            Qwen2_5_VLForConditionalGeneration.from_pretrained(
                checkpoint, subfolder="text_encoder", dtype=dtype, use_safetensors=True
            ),
            Qwen2Tokenizer.from_pretrained(checkpoint, subfolder="tokenizer"),
            FlowMatchEulerDiscreteScheduler.from_pretrained(checkpoint, subfolder="scheduler"),
            Qwen2VLImageProcessorPil.from_pretrained(checkpoint, subfolder="processor"),
        )
        adapter = cached_file(
            checkpoint,
            ADAPTER_FILE,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if adapter is not None:
            _load_adapter(parts.transformer, Path(adapter))
        return parts

    def save(self, directory: Path) -> None:
        """A folder for ``QwenImageEditPipeline.from_pretrained``, with an adapter for ``load_lora_weights``."""
        directory = Path(directory)
        for name in ("vae", "text_encoder", "tokenizer", "scheduler"):
            getattr(self, name).save_pretrained(directory / name)
        self.image_processor.save_pretrained(directory / "processor")
        self.tokenizer.save_pretrained(directory / "processor")
        self.transformer.save_config(directory / "transformer")
        base = {  # save_pretrained would write the layers as the adapter wraps them, under names nothing can load
            name.replace(".base_layer.", "."): tensor
            for name, tensor in self.transformer.state_dict().items()
            if ".lora_" not in name
        }
        pattern = "diffusion_pytorch_model{suffix}.safetensors"
        save_torch_state_dict(base, directory / "transformer", filename_pattern=pattern)
        (directory / ADAPTER_FILE).unlink(missing_ok=True)  # of an earlier save
        if has_adapter(self.transformer):
            QwenImageEditPipeline.save_lora_weights(
                directory,
                transformer_lora_layers=get_peft_model_state_dict(self.transformer, adapter_name=ADAPTER),
                transformer_lora_adapter_metadata=self.transformer.peft_config[ADAPTER].to_dict(),  # holds the alpha
            )
        classes = {name: type(getattr(self, name)) for name in ("transformer", "vae", "scheduler")}
        index = {
            "_class_name": QwenImageEditPipeline.__name__,
            "_diffusers_version": diffusers.__version__,
            **{name: ["diffusers", kind.__name__] for name, kind in classes.items()},
            "text_encoder": ["transformers", type(self.text_encoder).__name__],
            "tokenizer": ["transformers", type(self.tokenizer).__name__],
            "processor": ["transformers", "Qwen2VLProcessor"],
        }
        (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def has_adapter(transformer: QwenImageTransformer2DModel) -> bool:
    return ADAPTER in getattr(transformer, "peft_config", {})


def add_adapter(transformer: QwenImageTransformer2DModel, rank: int, alpha: int) -> None:
    """Adapters on the attention and MLPs of all blocks, times ``alpha / rank``. ``ValueError`` if there are some."""
    if has_adapter(transformer):
        raise ValueError(f"this checkpoint has an adapter already; load it without a new one of rank {rank}")
    unread = _unread_layers(transformer)
    layers = [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.(attn|img_mlp|txt_mlp)\.", name) and name not in unread
    ]
    _attach(transformer, LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers))


def _load_adapter(transformer: QwenImageTransformer2DModel, file: Path) -> None:
    state, metadata = QwenImageEditPipeline.lora_state_dict(
        str(file.parent), weight_name=file.name, return_lora_metadata=True
    )
    if metadata is None:
        raise ValueError(f"{file} does not say what its alpha is")
    state, metadata = (
        {name.removeprefix("transformer."): value for name, value in named.items()} for named in (state, metadata)
    )
    _attach(transformer, LoraConfig(**metadata))
    set_peft_model_state_dict(transformer, state, ADAPTER)


def _attach(transformer: QwenImageTransformer2DModel, config: LoraConfig) -> None:
    """In float32, whatever the layers are in: an optimiser's steps are lost in bfloat16. And before weights are loaded,
    for peft, and diffusers' own loader through it, would round those too."""
    transformer.add_adapter(config, adapter_name=ADAPTER)
    for name, parameter in transformer.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()


def choose_trainable(transformer: QwenImageTransformer2DModel) -> None:
    """The adapter alone if there is one, else all that can receive a gradient."""
    unread = tuple(_unread_layers(transformer))
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(".lora_" in name if has_adapter(transformer) else not name.startswith(unread))


def _unread_layers(transformer: QwenImageTransformer2DModel) -> list[str]:
    """What the last block would do to the text, which nobody reads. These layers never get a gradient, and processes
    that wait for one, or a resumed optimiser that looks for its state, would fail."""
    last = f"transformer_blocks.{len(transformer.transformer_blocks) - 1}"
    return [f"{last}.{layer}" for layer in ("attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")]


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
