"""Which parameters of a transformers model are trained, and low-rank adapters (LoRA) beside those that are not."""

from collections.abc import Sequence
from pathlib import Path

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel


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

