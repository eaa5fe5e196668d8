"""``rnr results``: a document from a template, with the tables of every command that the template has.

The template is Markdown. Its blocks of commands look like this::

    ```bash Restoration, Diagnosis
    rnr test --data.sources.test "[$D/reside/test]" --data.eval_draws 3
    ```

Each command is run, unless it is done with these very weights, and what it printed goes beneath its block: all tables, or
those whose titles begin with the words after ``bash``. Folders of photos are named by labels, here ``$D``, and appear so.
A change in code is not noticed: ``--again``.
"""

import argparse
import functools
import hashlib
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rnr import records
from rnr.command_line import at_least_one
from rnr.records import Record, write_whole
from rnr.row_runs import PATIENCE, STAMP, ending_together, launched, share_of_cores
from rnr.stages.evaluation import markdown

BLOCK = re.compile(r"^```bash(?P<titles>[^\n]*)\n(?P<lines>.*?)^```\n", re.MULTILINE | re.DOTALL)
NOT_DONE = "*Not run yet with the weights that are here.*"
LONGEST = 250  # characters of a folder's name; most file systems allow 255 bytes
LABEL = re.compile(r"\$(\w+)")


@dataclass(frozen=True)
class Place:
    """Where a command is to write, by which options, what its record is called there, and which pictures go with the
    document."""

    options: tuple[str, ...]
    record: str
    pictures: tuple[str, ...] = ()


PLACES = {
    "test": Place(("--trainer.default_root_dir", "{}"), "test.json"),
    "validate": Place(("--trainer.default_root_dir", "{}"), "validate.json"),
    "worth": Place(("-o", "{}/worth.md"), "worth.json"),
    "audit-reward": Place(("-o", "{}"), "audit.json"),
    "calibrate": Place(("--figure", "{}/reliability.png"), "reliability.json", ("reliability.png",)),
    "real": Place(("-o", "{}"), "real.json"),
    "grpo-compare": Place(("-o", "{}"), "compare.json"),
    "ablations": Place(("-o", "{}"), "ablations.json"),
    "baselines": Place(("-o", "{}"), "table2.json"),
}


@dataclass(frozen=True)
class Command:
    """line: as in the template. words: as it is run, labels filled in, with where it writes."""

    line: str
    words: tuple[str, ...]
    folder: Path
    place: Place

    @classmethod
    def of(cls, line: str, labels: Mapping[str, Path], runs: Path) -> "Command":
        """``ValueError`` for a command without tables, and for a label that was not given."""
        words = [_filled(word, labels) for word in shlex.split(line, comments=True)]
        if words[1] not in PLACES:
            raise ValueError(f"{line!r}: only {', '.join(PLACES)} leave tables")
        place = PLACES[words[1]]
        folder = runs / _name(re.sub(r"\W+", "-", line.removeprefix("rnr ")).strip("-"))
        return cls(line, (*words, *(option.format(folder) for option in place.options)), folder, place)

    def record(self) -> Record | None:
        """What it left, if that is what it would leave now."""
        path = self.folder / self.place.record
        if not path.is_file():
            return None
        found = Record.read(path)
        same = found.command == list(self.words) and all(_digest(name) == told for name, told in found.weights.items())
        return found if same else None

    def run(self, env: Mapping[str, str]) -> str | None:
        """None if all is well, else why not, in a line. env: as :func:`rnr.row_runs.launched` has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return launched(self.words[1:], self.folder / "log.txt", env)


def results(argv: Sequence[str]) -> int:
    """Entry point. Exit status 1 if a command failed: then nothing is written."""
    parser = argparse.ArgumentParser(
        prog="rnr results",
        description="Run the commands of a template that are not done yet, and write it with their tables. What they left "
        "is kept in --runs, so that it goes on where it broke off.",
    )
    parser.add_argument(
        "template", type=Path, nargs="?", default=Path("docs/results.in.md"), help="(docs/results.in.md)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results.md"), help="file (docs/results.md)")
    parser.add_argument(
        "--label", action="append", default=[], type=_label, metavar="NAME=FOLDER",
        help="what $NAME in the template stands for; may be repeated",
    )  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="folder of what is done (runs/results)")
    parser.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="commands at a time (default 1)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--again", action="store_true", help="run all commands, done or not")
    which.add_argument("--as-is", action="store_true", help="run none; the document says which are not done")
    args = parser.parse_args(argv)
    labels = dict(args.label)
    try:
        template = args.template.read_text(encoding="utf-8")
        commands = {line: Command.of(line, labels, args.runs) for line in lines_of(template)}
        if same := [a.line for a, b in combinations(commands.values(), 2) if a.folder == b.folder]:
            raise ValueError(f"{same[0]}: another command differs from it by signs alone, and would write to the same folder")
        for stamp in (stamp for c in commands.values() if args.again for stamp in c.folder.rglob(STAMP)):
            stamp.unlink()  # of the runs that make up a table
        if not args.as_is and not _run_all(
            [c for c in commands.values() if args.again or c.record() is None], args.jobs
        ):
            return 1
        found = {line: command.record() for line, command in commands.items()}
        lacking = [line for line, told in found.items() if told is None]
        if lacking and not args.as_is:
            raise ValueError(f"{lacking[0]}: left no record of what it was asked, see {commands[lacking[0]].folder}")
        write_whole(assembled(template, found, labels), args.output)
        for command in (commands[line] for line, told in found.items() if told is not None):
            for picture in command.place.pictures:
                shutil.copyfile(command.folder / picture, args.output.parent / picture)
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")
    print(args.output)
    return 0


def lines_of(template: str) -> list[str]:
    """The commands of a template in their order, each once."""
    return list(dict.fromkeys(line for block in BLOCK.finditer(template) for line in _commands(block["lines"])))


def assembled(template: str, found: Mapping[str, Record | None], labels: Mapping[str, Path]) -> str:
    """The template with the tables beneath its commands, and at its end what made them. None: not done, and said to be so.
    ``ValueError`` if a title that a block asks for is in none of its tables."""

    def with_tables(block: re.Match) -> str:
        wanted = [title.strip() for title in block["titles"].split(",") if title.strip()]
        there = [found[line] for line in _commands(block["lines"])]
        code = f"```bash\n{block['lines']}```\n"
        if None in there:
            return f"{code}\n{NOT_DONE}\n"
        tables = [item for told in there for item in told.tables.items()]
        if absent := [title for title in wanted if not any(name.startswith(title) for name, _ in tables)]:
            raise ValueError(f"no table of {block['lines'].strip()!r} is called {absent[0]!r}")
        shown = [(name, rows) for name, rows in tables if not wanted or name.startswith(tuple(wanted))]
        return "\n".join([code, *(f"### {name}\n\n{markdown(rows)}" for name, rows in shown)])

    text = BLOCK.sub(with_tables, template) + _made_by([told for told in found.values() if told is not None])
    for name, folder in sorted(labels.items(), key=lambda label: -len(str(label[1]))):  # of one within another, that first
        text = re.sub(rf"(?<![\w.-]){re.escape(str(folder))}(?![\w-]|\.\w)", f"${name}", text)
    return text


def _made_by(found: Sequence[Record]) -> str:
    dates = sorted({told.date for told in found})
    libraries = dict.fromkeys(name for told in found for name in told.versions)
    versions = {name: " or ".join(sorted({told.versions[name] for told in found})) for name in libraries}
    weights = {name: digest for told in found for name, digest in told.weights.items()}
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "nothing was run"
    rows = [{"": name, "what it was": value} for name, value in {"date": when, **versions}.items()]
    rows += [{"": f"`{name}`", "what it was": f"SHA-256 {digest[:16]}"} for name, digest in sorted(weights.items())]
    return f"\n## What made these tables\n\n{markdown(rows)}"


def _run_all(commands: Sequence[Command], jobs: int) -> bool:
    """Whether all went well; what did not is told. Commands that run side by side share the cores out."""
    env = share_of_cores(min(jobs, len(commands)))

    def run(command: Command) -> bool:
        _tell(f"runs: {command.line}")
        start = time.monotonic()
        fault = command.run(env)
        if fault is not None:
            _tell(f"error: {command.line}: {fault}; all it said is in {command.folder / 'log.txt'}")
        else:
            _tell(f"took {time.monotonic() - start:.0f} s: {command.line}")
        return fault is None

    with ending_together(jobs, 3 * PATIENCE) as pool:
        try:
            return all(list(pool.map(run, commands)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _name(text: str) -> str:
    """``text``, as far as the name of a folder may be long."""
    if len(text) <= LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: LONGEST - 9]}-{digest}"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _commands(lines: str) -> Iterator[str]:
    return (line for line in lines.splitlines() if line.startswith("rnr "))


def _filled(word: str, labels: Mapping[str, Path]) -> str:
    for name in LABEL.findall(word):
        if name not in labels:
            raise ValueError(f"the template speaks of ${name}: add --label {name}=FOLDER")
    return LABEL.sub(lambda match: str(labels[match[1]]), word)


def _label(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not re.fullmatch(r"\w+", name) or not folder or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FOLDER, a folder that is there")
    return name, Path(folder).resolve()


@functools.cache
def _digest(name: str) -> str:
    return records.digest(name)
