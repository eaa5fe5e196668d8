"""Which photos of a published set make a split: ``manifests/<set>_<split>.txt``.

A line is a file name; their order is the split's. Where the paper gives a number of photos and no names, the one line
is a rule, ``first N of M`` or ``last N of M``, about the M photos sorted by name. ``#`` begins a comment.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "manifests"
RULE = re.compile(r"(first|last) (\d+) of (\d+)")


@dataclass(frozen=True)
class Manifest:
    """names: of the split, in its order; or, where none are published, ``count`` photos from one end of ``total``."""

    names: tuple[str, ...] = ()
    end: str = "first"
    count: int = 0
    total: int = 0

    def pick(self, found: Sequence[str]) -> list[str]:
        """The split's names. ``ValueError`` where ``found``, the names that are there, is not what the set should hold."""
        if not self.names:
            if len(found) != self.total:
                raise ValueError(
                    f"expected {self.total} photos, of which the {self.end} {self.count} by name are meant"
                )
            ordered = sorted(found)
            return ordered[: self.count] if self.end == "first" else ordered[-self.count :]
        if missing := [name for name in self.names if name not in set(found)]:
            raise ValueError(
                f"expected {len(self.names)} photos, {self.names[0]} to {self.names[-1]}; {len(missing)} are missing, "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
            )
        return list(self.names)


def load(name: str) -> Manifest:
    """The manifest ``<set>_<split>``."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    if rule := RULE.fullmatch(lines[0]):
        return Manifest(end=rule[1], count=int(rule[2]), total=int(rule[3]))
    return Manifest(names=tuple(lines))
