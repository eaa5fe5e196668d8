"""A reasoner or restorer from the name of its weights: the folder itself says which class it holds."""

import sys
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from rnr.models.compact import CompactRestorer
from rnr.models.interfaces import Reasoner, Restorer
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.weights import content, locate


def load_reasoner(checkpoint: str) -> Reasoner:
    """``FileNotFoundError`` or ``ValueError`` if there are no weights of a reasoner under that name."""
    if not sys.stderr.isatty():
        disable_progress_bar()  # transformers draws one whoever looks
    return Qwen3VLReasoner(checkpoint=checkpoint)


def load_restorer(checkpoint: str) -> Restorer:
    """Full models in the precision that they were saved in, bfloat16 for the public ones.

    ``FileNotFoundError`` or ``ValueError`` if there are no weights of a restorer under that name.
    """
    folder = Path(locate(checkpoint))
    if folder.is_dir() and not content(folder).startswith("QwenImageEdit"):
        return CompactRestorer(checkpoint=str(folder))
    from rnr.models.qwen_image_edit import QwenImageEditRestorer  # diffusers is slow to import

    return QwenImageEditRestorer(checkpoint=str(folder), dtype="auto")
