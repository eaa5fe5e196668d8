"""Models whose parameters are dealt out over processes, and for a while whole on each of them again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


def units(model: nn.Module) -> dict[nn.Module, list[nn.Parameter]]:
    """What is gathered together, and its parameters: the blocks that a model repeats, and each module outside of them that
    has parameters of its own; in the order of the model. Tied parameters are with each of their owners."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for each in lists for block in each if not isinstance(block, nn.ModuleList)]
    inside = {module for block in blocks for module in block.modules() if module is not block}
    found = {}
    for module in model.modules():
        own = list(module.parameters(recurse=module in blocks)) if module not in inside else []
        if own:
            found[module] = own
    return found


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's share of it; all of it, where it is not dealt out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard(model: nn.Module, mesh: DeviceMesh, dtype: torch.dtype = torch.float32) -> None:
    """Deals out all parameters by FSDP2, to be run in ``dtype``.

    By :func:`units`, not the model as a whole: FSDP2 would gather what is outside the blocks when ``model.forward`` is
    called, and the stages call methods of their models' parts instead. The price: no unit is fetched before its turn.

    What is trained is kept, and its gradient summed, in float32: an optimiser's small steps would be lost in bfloat16.
    Raises ``ValueError`` for tied parameters, and for layers in 8 bits.
    """
    if any(parameter.dtype == torch.int8 for parameter in model.parameters()):
        raise ValueError("layers in 8 bits cannot be dealt out by FSDP2; take DDP, or leave text_encoder_8bit out")
    policy = MixedPrecisionPolicy() if dtype == torch.float32 else MixedPrecisionPolicy(dtype, torch.float32)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    owners: dict[nn.Parameter, nn.Module] = {}
    for unit, parameters in units(model).items():
        for parameter in parameters:
            if owners.setdefault(parameter, unit) is not unit:
                raise ValueError(
                    f"{type(owners[parameter]).__name__} and {type(unit).__name__} share a parameter of shape "
                    f"{tuple(parameter.shape)} (tied word embeddings?), which FSDP2 cannot deal out; take DDP or ZeRO"
                )
    for unit in units(model):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, mp_policy=policy)


class FSDP2(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all processes, for models that do not shard themselves.

    dtype: in which layers are run and sent; see :func:`shard`.
    process_group_backend: None takes the device's own.
    """

    def __init__(
        self, dtype: Literal["float32", "bfloat16"] = "float32", process_group_backend: str | None = None
    ) -> None:
        super().__init__(process_group_backend=process_group_backend)
        self.dtype = getattr(torch, dtype)

    def setup_environment(self) -> None:
        # Lightning's own guess is tensor parallelism within a node, of which the models know nothing.
        self._data_parallel_size, self._tensor_parallel_size = self.num_processes * self.num_nodes, 1
        super().setup_environment()

    def connect(self, model: LightningModule) -> None:
        model.configure_model = lambda: shard(model, self.device_mesh["data_parallel"], self.dtype)
        super().connect(model)


class OffloadedZeRO(DeepSpeedStrategy):
    """Lightning's strategy for DeepSpeed, with the stages' own AdamW on states that lie in the CPU's memory."""

    def setup(self, trainer: Trainer) -> None:
        self.config["zero_force_ds_cpu_optimizer"] = False  # which only means to advise against it
        super().setup(trainer)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Within, each process has all of ``model``, and runs it without asking the others for a layer.

    So processes may run it as often as each of them likes: evaluate unequal numbers of photos, write answers of
    unequal length. All processes have to come here together. Nothing happens to a model that is not sharded.
    """
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    with _zero(model):
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            for unit in units:
                unit.set_reshard_after_forward(True, recurse=False)
                unit.reshard()


@contextmanager
def savable(model: nn.Module) -> Iterator[None]:
    """Within, the parameters and the ``state_dict`` of ``model`` are whole tensors, on each process: to be saved, not to
    be run. All processes have to come here together. Nothing happens to a model that is not sharded."""
    sharded = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(parameter, DTensor)
    ]
    with _zero(model):
        for module, name, parameter in sharded:
            setattr(module, name, nn.Parameter(parameter.full_tensor(), requires_grad=parameter.requires_grad))
        try:
            yield
        finally:
            for module, name, parameter in sharded:
                setattr(module, name, parameter)


@contextmanager
def _zero(model: nn.Module) -> Iterator[None]:
    """Both of the above for DeepSpeed's ZeRO-3."""
    parameters = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not parameters:
        yield
        return
    import deepspeed  # an extra, and slow to import

    # Its hooks would talk to the other processes before each layer, and deal the layer out again behind it.
    hooks = [each for m in model.modules() for each in (m._forward_pre_hooks, m._forward_hooks) if each]
    kept = [dict(each) for each in hooks]
    with deepspeed.zero.GatheredParameters(parameters):
        for each in hooks:
            for key in [key for key, hook in each.items() if hook.__module__.startswith("deepspeed.")]:
                del each[key]
        try:
            yield
        finally:
            for each, before in zip(hooks, kept, strict=True):
                each.clear()
                each.update(before)
