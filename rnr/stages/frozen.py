"""A model that a stage uses and neither trains nor saves: whole on each process, or dealt out over all of them.

Dealt out, each process keeps its share of every layer. A layer is gathered before it runs and dropped behind it, which takes
all processes, and these need not run alike: an answer may be longer on one of them. So they go by rounds. In each, every
process says which layer it needs next, or that it is done; the first one asked for, in the order of the model, is gathered by
all, and run by those who asked for it. Who is done takes part until all are.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from rnr.stages.sharding import units

DONE = 2**31
"""Instead of a layer's number."""
ALIGNMENT = 16
"""Bytes that a parameter begins at a multiple of, enough for every dtype."""


class Frozen:
    """Holds the model. dealt: share it out, if there are several processes; by NCCL, gloo, and beside any strategy."""

    def __init__(self, model: nn.Module, dealt: bool = False) -> None:
        self.model = model.requires_grad_(False).eval()
        self._dealt = dealt
        self._layers: Layers | None = None

    def on(self, device: torch.device) -> nn.Module:
        """The model on ``device``. Dealt out, it runs only in :meth:`together` and :meth:`whole`."""
        if self._dealt and self._layers is None and processes() > 1:
            self._layers = Layers(self.model, device)
        return self.model.to(device)

    def __deepcopy__(self, memo: dict) -> "Frozen":
        """Itself: a moving average of a stage has no use for a second copy of what never changes."""
        return self

    @contextmanager
    def together(self, device: torch.device) -> Iterator[None]:
        """Within, each process may run the model as often as it likes. All processes have to come here together."""
        self.on(device)
        if self._layers is None or self._layers.mode == "whole":
            yield
        else:
            with self._layers.together():
                yield

    @contextmanager
    def whole(self, device: torch.device) -> Iterator[None]:
        """Within, each process has all of the model. All processes have to come here together."""
        self.on(device)
        if self._layers is None:
            yield
        else:
            with self._layers.whole():
                yield


class Layers:
    """The layers of a model, dealt out: see the module. What is tied between layers stays whole on each process."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.mode = "apart"
        self.device = device
        self.shares: list[Share] = []
        owners = Counter(parameter for parameters in units(model).values() for parameter in parameters)
        for unit, parameters in units(model).items():
            if own := [parameter for parameter in parameters if owners[parameter] == 1]:
                number = len(self.shares)
                unit.register_forward_pre_hook(lambda *_, number=number: self._before(number))
                unit.register_forward_hook(lambda *_, number=number: self._after(number))
                self.shares.append(Share(own, device))

    @contextmanager
    def together(self) -> Iterator[None]:
        self.mode = "together"
        try:
            yield
            while (asked := self._round(DONE)) != DONE:
                self.shares[asked].gather()
                self.shares[asked].drop()
        finally:
            self.mode = "apart"

    @contextmanager
    def whole(self) -> Iterator[None]:
        for share in self.shares:
            share.gather()
        self.mode = "whole"
        try:
            yield
        finally:
            self.mode = "apart"
            for share in self.shares:
                share.drop()

    def _before(self, number: int) -> None:
        if self.mode == "apart":
            raise RuntimeError("a model that is dealt out over processes runs within Frozen.together or Frozen.whole")
        if self.mode == "whole":
            return
        while (asked := self._round(number)) != number:
            self.shares[asked].gather()
            self.shares[asked].drop()
        self.shares[number].gather()

    def _after(self, number: int) -> None:
        if self.mode == "together":
            self.shares[number].drop()

    def _round(self, number: int) -> int:
        """What is gathered now: the least of what processes ask for. Those that lag behind in a pass so catch up."""
        asked = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MIN)
        return int(asked)


class Share:
    """This process's part of a layer's parameters, which are empty until they are gathered."""

    def __init__(self, parameters: list[nn.Parameter], device: torch.device) -> None:
        self.parameters = parameters
        self.forms = [(parameter.dtype, parameter.shape) for parameter in parameters]
        flat = [_bytes(parameter.detach()) for parameter in parameters]
        self.sizes = [len(each) for each in flat]
        count = -(-sum(self.sizes) // processes())
        every = F.pad(torch.cat(flat), (0, count * processes() - sum(self.sizes)))
        self.part = every[torch.distributed.get_rank() * count :][:count].clone().to(device)
        self.drop()

    @torch.inference_mode(False)
    def gather(self) -> None:
        """All processes have to come here together."""
        every = self.part.new_empty(len(self.part) * processes())
        torch.distributed.all_gather(list(every.chunk(processes())), self.part)
        pieces = every[: sum(self.sizes)].split(self.sizes)
        for parameter, piece, (dtype, shape) in zip(self.parameters, pieces, self.forms, strict=True):
            parameter.data = piece.view(dtype)[: shape.numel()].view(shape)

    @torch.inference_mode(False)
    def drop(self) -> None:
        for parameter in self.parameters:
            parameter.data = torch.empty(0, dtype=parameter.dtype, device=self.part.device)


def _bytes(tensor: Tensor) -> Tensor:
    """(n,) uint8, n a multiple of :data:`ALIGNMENT`."""
    content = tensor.contiguous().flatten().view(torch.uint8)
    return F.pad(content, (0, -len(content) % ALIGNMENT))


def processes() -> int:
    """How many train together."""
    started = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if started else 1
