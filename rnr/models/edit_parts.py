"""The parts of Qwen-Image-Edit, as diffusers lays them out: loaded, saved, and given an adapter."""

import importlib.util
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import diffusers
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from huggingface_hub import is_offline_mode, save_torch_state_dict
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import BitsAndBytesConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file

Pipeline = type[QwenImageEditPipeline] | type[QwenImageEditPlusPipeline]
PIPELINES: tuple[Pipeline, ...] = (QwenImageEditPipeline, QwenImageEditPlusPipeline)

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
ADAPTER = "default"


@dataclass(frozen=True, eq=False)
class EditParts:
    """All that a ``QwenImageEditPipeline`` or ``QwenImageEditPlusPipeline`` is made of, its processor reduced to the half
    that needs no torchvision.

    source: the folder of the text encoder as it was loaded, if it cannot be written again as it is now.
    """

    pipeline: Pipeline
    transformer: QwenImageTransformer2DModel
    vae: AutoencoderKLQwenImage
    text_encoder: Qwen2_5_VLForConditionalGeneration
    tokenizer: Qwen2Tokenizer
    scheduler: FlowMatchEulerDiscreteScheduler
    image_processor: Qwen2VLImageProcessorPil
    source: Path | None = None

    @classmethod
    def load(cls, checkpoint: str, dtype: torch.dtype | Literal["auto"], text_encoder_8bit: bool) -> "EditParts":
        """From a folder or the hub, safetensors only, with the adapter if :meth:`save` wrote one.

        dtype: ``auto`` takes that of the text encoder as it was saved for all. ``ValueError`` for another pipeline's
        weights, and for 8 bits without the package that they need.
        """
        pipeline = _pipeline(checkpoint)
        settings = {"subfolder": "text_encoder", "use_safetensors": True}
        if text_encoder_8bit:
            settings |= {"quantization_config": _eight_bits(), "device_map": {"": _own_device()}}
        text_encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype, **settings)
        if dtype == "auto":
            dtype = text_encoder.config.dtype or torch.float32
        # Of shards diffusers asks the hub even where all are in the cache.
        of_diffusers = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": is_offline_mode()}
        parts = cls(
            pipeline,
            QwenImageTransformer2DModel.from_pretrained(checkpoint, subfolder="transformer", **of_diffusers),
            AutoencoderKLQwenImage.from_pretrained(checkpoint, subfolder="vae", **of_diffusers),
            text_encoder,
            Qwen2Tokenizer.from_pretrained(checkpoint, subfolder="tokenizer"),
            FlowMatchEulerDiscreteScheduler.from_pretrained(checkpoint, subfolder="scheduler"),
            Qwen2VLImageProcessorPil.from_pretrained(checkpoint, subfolder="processor"),
            Path(cached_file(checkpoint, "text_encoder/config.json")).parent if text_encoder_8bit else None,
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
        """A folder for ``from_pretrained`` of its pipeline, with an adapter for ``load_lora_weights``."""
        directory = Path(directory)
        for name in ("vae", "tokenizer", "scheduler"):
            getattr(self, name).save_pretrained(directory / name)
        if self.source is None:
            self.text_encoder.save_pretrained(directory / "text_encoder")
        else:
            shutil.copytree(self.source, directory / "text_encoder", dirs_exist_ok=True)
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
            "_class_name": self.pipeline.__name__,
            "_diffusers_version": diffusers.__version__,
            **{name: ["diffusers", kind.__name__] for name, kind in classes.items()},
            "text_encoder": ["transformers", type(self.text_encoder).__name__],
            "tokenizer": ["transformers", type(self.tokenizer).__name__],
            "processor": ["transformers", "Qwen2VLProcessor"],
        }
        (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _pipeline(checkpoint: str) -> Pipeline:
    name = QwenImageEditPipeline.load_config(checkpoint)["_class_name"]
    for pipeline in PIPELINES:
        if pipeline.__name__ == name:
            return pipeline
    raise ValueError(f"{checkpoint}: holds weights of {name}, not of a Qwen-Image-Edit restorer")


def _eight_bits() -> BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("text_encoder_8bit needs a package that is not here: pip install bitsandbytes")
    return BitsAndBytesConfig(load_in_8bit=True)


def _own_device() -> str:
    """Where 8-bit layers are made, and stay: this process's own GPU, by the rank that launchers or SLURM tell it."""
    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0
    return f"cuda:{int(rank) % torch.cuda.device_count()}"


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
