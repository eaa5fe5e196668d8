"""Which parameters of a transformers model are trained, and low-rank adapters (LoRA) beside those that are not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

Training = bool | Literal["full"]
"""Whether a part is trained: by adapters, if there are any, or in full beside those of other parts."""


def choose_trained(model: PreTrainedModel, parts: Mapping[str, Training], lora_rank: int | None) -> LoraConfig | None:
    """How each part of ``model`` is trained; nothing else is. parts: by what the names of its parameters begin with.

    Returns the adapters' config if there are any. ``ValueError`` for another :data:`Training`, and as :func:`add_lora`.
    """
    for how in parts.values():
        if how not in (True, False, "full"):
            raise ValueError(f"a part is trained (true), frozen (false) or trained in full ('full'), got {how!r}")
    if lora_rank is None:
        train_only(model, [part for part, how in parts.items() if how])
        return None
    full = [part for part, how in parts.items() if how == "full"]
    return add_lora(model, [part for part, how in parts.items() if how and part not in full], lora_rank, full)


def train_only(model: nn.Module, parts: Sequence[str]) -> None:
    """Parameters whose name begins with one of ``parts`` are trained, all others frozen."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(parts)))


def add_lora(model: PreTrainedModel, parts: Sequence[str], rank: int, full: Sequence[str] = ()) -> LoraConfig:
    """Adapters of ``rank`` on the linear layers whose name begins with one of ``parts``; beside them only parameters whose
    name begins with one of ``full`` are trained.

    The head is left out: it is often tied to the embeddings. ``ValueError`` where no layer fits.
    """
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(tuple(parts)) and name != "lm_head"
    ]
    if not parts and full:
        raise ValueError("every part is trained in full: leave out lora_rank")
    if not linear:
        raise ValueError(f"no linear layer begins with {' or '.join(parts) or 'any part'}: there is nothing to adapt")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear)
    inject_adapter_in_model(config, model)  # which freezes all else
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # an optimiser's small steps would be lost in bfloat16
        else:
            parameter.requires_grad_(name.startswith(tuple(full)))
    return config


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as if it never had adapters, what they have learned added to the weights."""
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            weight = state[f"{name}.weight"]
            state[f"{name}.weight"] = weight + module.get_delta_weight("default").to(weight.dtype)
    return state


def save_adapter(model: PreTrainedModel, config: LoraConfig, base: str, directory: Path) -> None:
    """The adapters alone, in peft's own format: ``PeftModel.from_pretrained`` and transformers' ``load_adapter`` read it
    onto ``base``, the checkpoint they were trained on. What was trained in full beside them goes along as peft's
    ``modules_to_save``, which ``PeftModel`` alone reads."""
    directory.mkdir(parents=True, exist_ok=True)
    names = model.named_parameters(remove_duplicate=False)  # tied ones have two, and peft unties them
    full = {name: p.detach().clone() for name, p in names if p.requires_grad and ".lora_" not in name}
    config.base_model_name_or_path = base
    config.modules_to_save = sorted({name.rpartition(".")[0] for name in full}) or None
    config.save_pretrained(str(directory))
    learned = {**get_peft_model_state_dict(model), **full}
    state = {f"base_model.model.{name}": t.contiguous() for name, t in learned.items()}
    save_file(state, directory / "adapter_model.safetensors", metadata={"format": "pt"})

