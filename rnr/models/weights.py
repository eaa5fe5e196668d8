"""Where weights come from: a folder of one's own, those shipped with the package, or a hub name."""

from collections.abc import Sequence
from pathlib import Path

SHIPPED = Path(__file__).parent.parent / "weights"


def locate(checkpoint: str | Sequence[str]) -> str:
    """The first of ``checkpoint`` that is there.

    ``shipped/NAME`` is a folder of the package, any other name a folder of the user's; the last name, if it has the form
    ``owner/model`` and is no folder, is taken for a public checkpoint's. Raises ``FileNotFoundError`` if none is there.
    """
    names = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
    for name in names:
        folder = SHIPPED / name.removeprefix("shipped/") if name.startswith("shipped/") else Path(name)
        if (folder / "config.json").is_file() or (folder / "model_index.json").is_file():
            return str(folder)
    last = names[-1]
    if last.count("/") == 1 and not last.startswith((".", "/", "shipped/", "runs/")) and not Path(last).exists():
        return last
    raise FileNotFoundError(f"no weights in {' nor in '.join(names)}")
