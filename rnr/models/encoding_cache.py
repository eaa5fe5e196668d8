"""What frozen encoders made of a photo and its text, kept on disk for the next time."""

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from rnr.atomic import PARTIAL, whole

SUFFIX = ".safetensors"
ABANDONED = 3600.0  # seconds after which what was begun is taken for what a killed process left
STEP = 0.01  # of the limit: after having written so much, a process looks at the folder again


class EncodingCache:
    """A folder of tensors, each named by what it was made from: a hash of weights, pixels and text.

    Of use where the same photo comes again with the same text: validation and test, whose degradations are drawn from
    fixed seeds, a photo restored again with other steps or seeds, and training on stored pairs of one size that are not
    cropped. It saves what the encoders cost and no more: at 512 pixels a tenth of a training step, 4 % of a photo restored
    in 8 steps (``benchmarks/full_scale.py``). Where photos are degraded or cropped anew every step nothing comes twice,
    and what is kept for training is only written.

    Any number of processes may share a folder, and may be killed at any time: a file appears whole or not at all, and one
    that cannot be read counts as missing and is written again. Where nothing can be written, nothing is kept, and a warning
    says so.

    Args:
        folder: made if need be.
        gigabytes: the folder is kept below this, but for a hundredth that each process may write before it looks again;
            what was not used for longest goes first.
        training: also keep what the training loss encodes.

    Raises:
        ValueError: no room at all.
    """

    def __init__(self, folder: str, gigabytes: float = 50.0, training: bool = False) -> None:
        if not gigabytes > 0:
            raise ValueError(f"gigabytes must be above 0, got {gigabytes:g}")
        self.folder, self.limit, self.training = Path(folder), gigabytes * 1e9, training
        self._written = math.inf  # bytes since this process last looked at the folder

    def fetch(
        self, keys: Sequence[str], compute: Callable[[list[int]], Sequence[Tensor]], together: bool = False
    ) -> list[Tensor]:
        """A tensor a key, on the CPU those that were kept. ``compute`` is given the places of what is not here.

        together: if one process must compute, all do, and all of it. Encoders whose weights are spread over the processes
        run in step or not at all.
        """
        found = [self._read(key) for key in keys]
        missing = [place for place, tensor in enumerate(found) if tensor is None]
        if together and _anywhere(bool(missing)):
            missing = list(range(len(keys)))
        if missing:
            for place, tensor in zip(missing, compute(missing), strict=True):
                found[place] = tensor
                self._write(keys[place], tensor)
        return found

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def _read(self, key: str) -> Tensor | None:
        file = self._file(key)
        try:
            tensor = load_file(file)["encoding"]
        except (OSError, SafetensorError, KeyError):
            return None
        with suppress(OSError):  # another user's
            os.utime(file)  # used just now
        return tensor

    def _write(self, key: str, tensor: Tensor) -> None:
        file = self._file(key)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole(file) as partial:
                save_file({"encoding": tensor.detach().cpu().contiguous()}, partial)
                self._written += partial.stat().st_size
        except (OSError, SafetensorError) as error:  # such as a full disk
            warnings.warn(f"{self.folder}: an encoding is not kept ({error})", stacklevel=2)
        if self._written > STEP * self.limit:
            self._shrink()
            self._written = 0

    def _shrink(self) -> None:
        """If the folder is full, removes what killed processes left, then the oldest tenth."""
        files, total, now = [], 0, time.time()
        for file in self.folder.glob("??/*"):
            try:
                stat = file.stat()
            except OSError:  # another process was faster
                continue
            total += stat.st_size
            finished = file.suffix != PARTIAL
            if finished or now - stat.st_mtime > ABANDONED:
                files.append((finished, stat.st_mtime, stat.st_size, file))
        if total <= self.limit:
            return
        for finished, _, size, file in sorted(files):
            if finished and total <= 0.9 * self.limit:
                break
            with suppress(OSError):  # another user's
                file.unlink(missing_ok=True)
                total -= size


def key_of(identity: str, image: Tensor, text: str = "") -> str:
    """The name of what ``identity`` makes of an image (C, H, W) and a text: equal content, equal name."""
    content = hashlib.sha256(f"{identity}|{tuple(image.shape)}|{image.dtype}|{text}|".encode())
    content.update(image.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


@torch.no_grad()
def identity_of(model: nn.Module) -> str:
    """A hash of a model's kind and weights: of every tensor its name, shape, dtype and some hundred values spread over
    it. All values of a 7 B model would take minutes; a model that was trained on differs in nearly every one."""
    content = hashlib.sha256(f"{type(model).__name__}|{_settings(model)}".encode())
    for name, tensor in model.state_dict().items():
        content.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        values = tensor.detach().flatten()[:: max(1, tensor.numel() // 256)]
        content.update(values.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def precision_of(model: nn.Module, device: torch.device) -> str:
    """In what ``model``, of diffusers or transformers, computes on ``device`` now: under autocast, or dealt out by FSDP2, it
    is not the type of its weights."""
    dtype = model.dtype
    cast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    policies = {unit._get_fsdp_state()._mp_policy.param_dtype for unit in units}
    return "|".join([f"{dtype}|{cast}", *sorted(str(each) for each in policies if each is not None)])


def _settings(model: nn.Module) -> str:
    """A diffusers or transformers model's configuration, without where it was loaded from and by which version."""
    config = getattr(model, "config", {})
    settings = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    kept = {name: value for name, value in settings.items() if not name.startswith("_") and "version" not in name}
    return json.dumps(kept, sort_keys=True, default=str)


def is_spread(model: nn.Module) -> bool:
    """Whether a model's weights are divided among processes now, by DeepSpeed's ZeRO-3 or by FSDP2, so that it only runs
    in all of them at once. Gathered for a while, as for an evaluation, each process runs it as it likes."""
    return any(
        weight.ds_status.name != "AVAILABLE" if hasattr(weight, "ds_status") else hasattr(weight, "device_mesh")
        for weight in model.parameters()
    )


def _anywhere(here: bool) -> bool:
    """Whether any process says so. All must ask."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return here
    answers = [here] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(answers, here)
    return any(answers)
