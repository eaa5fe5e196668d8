"""Do the tests see it if one constant of A.2 is wrong? Each mutation is put into a copy of ``rnr``, on which they then run.

    python tests/degradation/mutations.py

prints which test catches which mutation. It leaves the package as it is.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[2]
TESTS = Path("tests/degradation")

# Fails the whole run, unlike a failing test, where the package that is installed would be tested in place of the copy.
CONFTEST = """\
from pathlib import Path

import rnr.degradation

if not Path(rnr.degradation.__file__).is_relative_to(Path(__file__).parent):
    raise RuntimeError(f"the tests run on {rnr.degradation.__file__}, not on the copy")
"""


@dataclass(frozen=True)
class Mutation:
    """``old``, which occurs once in ``rnr/degradation/<module>.py``, becomes ``new``."""

    module: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.module}: {self.old}  ->  {self.new}"


MUTATIONS = (
    Mutation("severity", "(ratio * 99 + 1)", "(ratio * 100 + 1)"),
    Mutation("severity", "(ratio * 99 + 1)", "(ratio * 99)"),
    Mutation("severity", ".clamp(1, 100)", ".clamp(1, 99)"),
    Mutation("fog", "MIN_TRANSMISSION = 0.05", "MIN_TRANSMISSION = 0.06"),
    Mutation("fog", "/ (1 - MIN_TRANSMISSION)", "/ 1.0"),
    Mutation("fog", "(0.7, 1.0)", "(0.7, 0.9)"),
    Mutation("fog", "= (0.8, 3.0)", "= (0.8, 2.8)"),
    Mutation("shake", "RADIUS = 16", "RADIUS = 15"),
    Mutation("shake", "scale(rms_radius / RADIUS)", "scale(rms_radius / TAPS)"),
    Mutation("shake", "WEIGHT_STD = 0.2", "WEIGHT_STD = 0.25"),
    Mutation("shake", "((RADIUS - 1) / reach)", "(RADIUS / reach)"),
    Mutation("shake", "atan2(-2 * xy", "atan2(2 * xy"),
    Mutation("shake", "rad2deg(0.5 * torch.atan2", "rad2deg(torch.atan2"),
    Mutation("shake", '"reflect" if', '"replicate" if'),
    Mutation("shake", "(16, 64)", "(16, 60)"),
    Mutation("shake", "(0.15, 1.0)", "(0.15, 1.2)"),
    Mutation("convolve", "rfft2(kernel,", "rfft2(kernel.flip(-2, -1),"),
    Mutation("rain", "VISIBLE = 0.05", "VISIBLE = 0.06"),
    Mutation("rain", "torch.deg2rad(slant)", "slant"),
    Mutation("rain", "torch.deg2rad(slant)", "-torch.deg2rad(slant)"),
    Mutation("rain", "length.view(-1, 1, 1) / 2 + 0.5", "length.view(-1, 1, 1) / 2"),
    Mutation("rain", "(3e-4, 4e-3)", "(3e-4, 5e-3)"),
    Mutation("rain", "(-30, 30)", "(-30, 45)"),
    Mutation("noise", "WORST_VARIANCE = 0.05", "WORST_VARIANCE = 0.06"),
    Mutation("noise", "INVISIBLE_VARIANCE = 1 / (12 * 255**2)", "INVISIBLE_VARIANCE = 1 / 255**2"),
    Mutation("noise", "b.view(-1, 1, 1, 1) / 255", "b.view(-1, 1, 1, 1) / 256"),
    Mutation("noise", "clamp_(min=0)", "abs_()"),
    Mutation("noise", "(0.0, 0.3)", "(0.0, 0.25)"),
    Mutation("noise", "(-20.0, 20.0)", "(-10.0, 20.0)"),
    Mutation("degrader", 'rain.apply(steps["shake"].image', 'rain.apply(steps["fog"].image'),
    Mutation("degrader", 'noise.apply(steps["rain"].image', 'noise.apply(steps["shake"].image'),
)


def caught_by(mutation: Mutation | None) -> str | None:
    """The first test that fails on a copy of the package with ``mutation``; None where all pass.

    Raises ``ValueError`` where the text to replace does not occur exactly once, ``RuntimeError`` where pytest itself fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        # Nothing of the package but its code is needed: the weights stay behind.
        shutil.copytree(ROOT / "rnr", copy / "rnr", ignore=shutil.ignore_patterns("weights", "__pycache__"))
        shutil.copytree(ROOT / TESTS, copy / TESTS, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("tests/conftest.py", "setup.cfg"):
            shutil.copy(ROOT / name, copy / name)
        (copy / "conftest.py").write_text(CONFTEST)
        if mutation:
            _mutate(copy / "rnr/degradation" / f"{mutation.module}.py", mutation)
        return _first_failure(copy)


def _mutate(path: Path, mutation: Mutation) -> None:
    source = path.read_text()
    if (count := source.count(mutation.old)) != 1:
        raise ValueError(f"{path.name}: {mutation.old!r} must occur once, found {count}")
    path.write_text(source.replace(mutation.old, mutation.new))


def _first_failure(copy: Path) -> str | None:
    # The comparison with the reference first: most mutations end there.
    tests = sorted((copy / TESTS).glob("test_*.py"), key=lambda path: path.stem != "test_reference")
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--hypothesis-seed=0"]
    # A folder on the path comes before the finder of an editable install; CONFTEST makes sure of it.
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, tests)],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )
    if run.returncode == 0:
        return None
    failed = re.search(r"^FAILED \S*/(\S+::.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
    if run.returncode != 1 or not failed:
        raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return failed[1]


def main() -> None:
    if failed := caught_by(None):
        sys.exit(f"the tests fail on the package as it is: {failed}")
    table = Table()
    for heading in ("mutation", "caught by"):
        table.add_column(heading, overflow="fold")
    results = [(mutation, caught_by(mutation)) for mutation in track(MUTATIONS, "Mutating", transient=True)]
    for mutation, test in results:
        table.add_row(str(mutation), test or "[red]nothing[/red]")
    Console().print(table)
    sys.exit(any(test is None for _, test in results))


if __name__ == "__main__":
    main()
