"""What a reasoner's folder holds beside transformers' own files: ``reasoner.json``."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import cached_file

from rnr.diagnosis import FIELDS
from rnr.diagnosis.prompt import FULL
from rnr.models.estimates import Calibration
from rnr.models.views import Views

NAME = "reasoner.json"


@dataclass(frozen=True)
class ReasonerSettings:
    """See the arguments of :class:`~rnr.models.qwen3vl.Qwen3VLReasoner`. Its defaults are those of a checkpoint that has no
    such file: a public one."""

    views: Views = Views(size=None, tiles=0)
    prompt: str = FULL
    calibration: Calibration = Calibration()
    fields: Sequence[str] = FIELDS
    looks: int = 1
    afar: bool = False

    @classmethod
    def of(cls, checkpoint: str) -> "ReasonerSettings":
        """checkpoint: a folder, or a name on the hub. What older folders do not say is as by default."""
        path = cached_file(checkpoint, NAME, _raise_exceptions_for_missing_entries=False)
        if path is None:
            return cls()
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(
            Views(**saved["views"]),
            saved["prompt"],
            Calibration(**saved.get("calibration", {})),
            tuple(saved.get("fields", FIELDS)),
            saved.get("looks", 1),
            saved.get("afar", False),
        )

    def save(self, directory: Path) -> None:
        (directory / NAME).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")
