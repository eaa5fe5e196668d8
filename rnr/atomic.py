"""Files that are whole or not there."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".part"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place of its own beside ``path`` to write to within, whose name ends in :data:`PARTIAL`, so that nobody takes what a
    kill leaves of it for a photo. It becomes ``path`` at the end; if anything goes wrong, what was there before stays, and
    nothing else."""
    # No number of a process: those of two machines that share a folder may be the same.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
