"""Where weights come from: a folder of one's own, those shipped with the package, or a hub name."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

SHIPPED = Path(__file__).parent.parent / "weights"


def locate(checkpoint: str | Sequence[str]) -> str:
    """The first of ``checkpoint`` that is there.

    ``shipped/NAME`` is a folder of the package, any other name a folder of the user's; the last name, if it has the form
    ``owner/model`` and is no folder, is taken for a public checkpoint's. Raises ``FileNotFoundError`` if none is there.
    """
    names = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
    for name in names:
        folder = SHIPPED / name.removeprefix("shipped/") if name.startswith("shipped/") else Path(name)
        if any((folder / file).is_file() for file in ("config.json", "model_index.json")):
            return str(folder)
    last = names[-1]
    if last.count("/") == 1 and not last.startswith((".", "/", "shipped/", "runs/")) and not Path(last).exists():
        return last
    why = "" if len(names) > 1 or Path(last).is_dir() else ": no such folder"
    raise FileNotFoundError(f"no weights in {' nor in '.join(names)}{why}")


def content(folder: Path) -> str:
    """The name of the class whose weights ``folder`` holds, as its own configuration has it.

    Raises ``ValueError`` if that cannot be read.
    """
    index = folder / "model_index.json"
    try:
        if index.is_file():
            return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config.get("class") or config["model_type"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: its configuration cannot be read ({error!r})") from error


def check(name: str, kinds: Sequence[str], role: str) -> None:
    """Raises ``ValueError`` if ``name`` is a folder that holds none of ``kinds``. Of a hub name nothing is known yet."""
    if Path(name).is_dir() and (found := content(Path(name))) not in kinds:
        raise ValueError(f"{name}: holds weights of {found}, not of a {role}")


def save_module(module: nn.Module, kind: str, size: Any, directory: Path) -> None:
    """Writes ``model.safetensors``, and in ``config.json`` the name of the class and the dataclass that it was built by."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in module.state_dict().items()}, directory / "model.safetensors")
    config = {"class": kind, "size": asdict(size)}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def saved_module(checkpoint: str | Sequence[str], kind: str, role: str) -> tuple[Path, dict[str, Any]]:
    """The weights' file of a folder that :func:`save_module` wrote, and the size in its ``config.json``.

    Raises ``FileNotFoundError`` and ``ValueError`` as :func:`locate` and :func:`check`.
    """
    folder = Path(locate(checkpoint))
    check(str(folder), [kind], role)
    return folder / "model.safetensors", json.loads((folder / "config.json").read_text(encoding="utf-8"))["size"]


def load_module(module: nn.Module, weights: Path) -> None:
    """Loads what :func:`save_module` wrote. Raises ``ValueError`` for a file that cannot be read, or weights of other names
    or shapes than the module's: those of another version."""
    try:
        module.load_state_dict(load_file(weights))
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{weights}: these weights do not fit this version of {type(module).__name__} ({error})") from error
