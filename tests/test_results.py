"""``rnr results``: what stands in the document is what the commands left, and nothing is run twice."""

import json
import re
import sys
from pathlib import Path

import pytest

from rnr import results, row_runs
from rnr.cli import main
from rnr.records import digest
from rnr.results import BLOCK, Command, lines_of

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "docs" / "results.in.md"
MINE = """# Mine

Read with care.

```bash Restoration
rnr test --data.sources.test "[$D/some]"   # the small ones
```

Then what it is worth.

```bash
rnr worth $D/some
```

```bash Diagnosis
rnr test --data.sources.test "[$D/some]"   # the small ones
```

The end.
"""
# In the place of rnr: leaves a record with figures that tell which run they are of.
FAKE = """
import json, os, pathlib, sys
words = sys.argv[1:]
pathlib.Path(f"threads_{words[0]}").write_text(os.environ.get("OMP_NUM_THREADS", "all"))
with pathlib.Path("ran").open("a") as file:
    file.write(words[0] + "\\n")
if pathlib.Path("fail").exists():
    sys.exit("error: the disk is full")
count = len(pathlib.Path("ran").read_text().split())
if words[0] == "test":
    place = pathlib.Path(words[-1]) / "test.json"
    tables = {
        "Restoration, 3 photos": [{"": "input", "PSNR (dB)": f"12.{count:02d}"}, {"": "gain", "PSNR (dB)": "+7.31 [-1, +9]"}],
        "Diagnosis, 3 photos": [{"": "fog", "present": 2, "F1": f"0.87{count}"}],
        "Scenes": [{"photos": 3, "chrF": "0.999"}],
    }
else:
    place = pathlib.Path(words[-1]).with_suffix(".json")
    tables = {f"Photos of {words[1]}": [{"": "none", "PSNR (dB)": f"18.{count:02d}"}]}
weights = {"weights": pathlib.Path("digest").read_text()}
said = {"command": ["rnr", *words], "tables": tables, "seed": 0, "weights": weights}
said |= {"date": "2026-01-02", "versions": {"torch": "2.9"}}
place.write_text(json.dumps(said))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(row_runs, "RNR", [sys.executable, str(tmp_path / "fake.py")])
    (tmp_path / "weights").mkdir()
    train("{}")
    (tmp_path / "photos").mkdir()
    (tmp_path / "mine.in.md").write_text(MINE)
    return tmp_path


def train(weights):
    Path("weights/config.json").write_text(weights)
    Path("digest").write_text(digest("weights"))


def made(*more):
    results._digest.cache_clear()  # as in a process of its own
    return results.results(["mine.in.md", "-o", "docs/mine.md", "--label", "D=photos", *more])


def ran():
    return Path("ran").read_text().split()


def figures(text):
    return set(re.findall(r"\d+(?:\.\d+)*", re.sub(r"SHA-256 \w+", "", text)))


def test_every_figure_of_the_document_is_in_a_record(here):
    assert made() == 0
    text = Path("docs/mine.md").read_text()
    prose = [line for line in MINE.splitlines() if line and not line.startswith("```")]
    assert [line for line in prose if line not in text.splitlines()] == []
    rest = [line for line in text.splitlines() if line not in prose]
    told = json.dumps([json.loads(path.read_text()) for path in Path("runs").rglob("*.json")])
    assert {"12.01", "7.31", "18.02", "0.871", "2026", "2.9"} <= figures("\n".join(rest)) <= figures(told)


def test_each_block_gets_its_tables_and_no_other(here):
    assert made() == 0
    text = Path("docs/mine.md").read_text()
    first, second, third = (
        text.index(f"### {title}") for title in ("Restoration, 3", "Photos of $D/some", "Diagnosis, 3")
    )
    assert text.index("Read with") < first < text.index("Then what") < second < third < text.index("The end.")
    assert "| input | 12.01 |" in text and "| none | 18.02 |" in text and "| fog | 2 | 0.871 |" in text
    assert "0.999" not in text, "a table that no block asks for"
    assert text.count('```bash\nrnr test --data.sources.test "[$D/some]"   # the small ones\n```') == 2
    assert str(here) not in text, "a folder of the user's has only its label"
    assert f"| `weights` | SHA-256 {digest('weights')[:16]} |" in text.split("## What made these tables")[1]


def test_nothing_is_run_twice_until_its_weights_change(here):
    assert made() == made() == 0
    assert ran() == ["test", "worth"]
    train('{"other": 1}')
    assert made() == 0
    assert ran() == ["test", "worth"] * 2
    assert "12.03" in Path("docs/mine.md").read_text()
    assert made("--again") == 0 and len(ran()) == 6


def test_again_means_the_rows_of_a_table_too(here):
    assert made() == 0
    stamp = next(Path("runs").rglob("test.json")).parent / "rows/full/done.json"
    stamp.parent.mkdir(parents=True)
    for options, kept in ((["--as-is"], True), ([], True), (["--again"], False)):
        stamp.write_text("{}")
        assert made(*options) == 0
        assert stamp.exists() == kept


def test_commands_that_would_share_a_folder_are_refused(here, capsys):
    Path("mine.in.md").write_text("```bash\nrnr worth $D --seed 1\nrnr worth $D --seed -1\n```\n")
    with pytest.raises(SystemExit):
        made()
    assert "would write to the same folder" in capsys.readouterr().err


def test_what_is_not_done_is_said_to_be_so(here):
    assert made() == 0
    train("{'new': 1}")
    assert made("--as-is") == 0 and len(ran()) == 2
    text = Path("docs/mine.md").read_text()
    assert text.count(results.NOT_DONE) == 3 and "12.01" not in text and "nothing was run" in text


def test_several_at_a_time_share_the_cores_out(here, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert made("--jobs", "2") == 0 and sorted(ran()) == ["test", "worth"]
    assert [path.read_text() for path in here.glob("threads_*")] == ["3", "3"]


def test_a_command_that_fails_is_told_and_no_document_written(here, capsys):
    (here / "fail").touch()
    assert made() == 1
    assert "rnr worth $D/some: the disk is full" in capsys.readouterr().err
    assert not Path("docs").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("$D/some", "$E/some"), "the template speaks of $E: add --label E=FOLDER"),
        (("rnr worth", "rnr demo"), "'rnr demo $D/some': only test, validate, worth,"),
        (("bash Diagnosis", "bash Dreams"), "is called 'Dreams'"),
    ],
)
def test_a_template_that_makes_no_sense_is_told(change, said, here, capsys):
    (here / "mine.in.md").write_text(MINE.replace(*change))
    with pytest.raises(SystemExit) as stop:
        made()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not Path("docs").exists()


def test_a_label_that_is_no_folder_is_told(here, capsys):
    with pytest.raises(SystemExit):
        results.results(["mine.in.md", "--label", "D=nowhere"])
    assert "'D=nowhere': expected NAME=FOLDER" in capsys.readouterr().err


def test_the_projects_own_commands_can_be_run_and_leave_tables():
    commands = [Command.of(line, {"D": Path("/photos")}, Path("runs")) for line in lines_of(TEMPLATE.read_text())]
    assert len({command.folder for command in commands}) == len(commands) > 8
    assert all("/photos/" in " ".join(command.words) for command in commands)


def test_a_command_longer_than_a_folders_name_may_be_has_a_folder_of_its_own(tmp_path):
    long = "rnr test --data.sources.test " + "a" * 300
    folders = [Command.of(line, {}, tmp_path).folder for line in (f"{long}b", f"{long}c", f"{long}b")]
    assert folders[0] == folders[2] != folders[1]
    folders[0].mkdir()


def test_the_projects_prose_has_no_figures_of_its_own():
    """But for the paper's, which do not change."""
    prose = BLOCK.sub("", TEMPLATE.read_text()).replace("Eq. 1", "").replace("A.2", "")
    paper = ["13.05", "0.3182", "13.46", "0.3258"]
    assert [each for each in re.findall(r"\d+\.\d+|\d+ ?%|\b\d{2,}\b", prose) if each not in paper] == []


def test_the_projects_document_is_what_the_template_makes():
    """All prose and commands of the template stand in the document, in this order, and no other prose."""
    text = (ROOT / "docs" / "results.md").read_text()
    body, made_by = text.split("\n## What made these tables\n")
    assert "| date |" in made_by and "/work" not in text and "/home" not in text
    without = body.replace(f"\n{results.NOT_DONE}\n", "")
    without = re.sub(r"^### .*\n\n(\|.*\n)+\n?", "", without, flags=re.MULTILINE)
    template = re.sub(r"^```bash.*$", "```bash", TEMPLATE.read_text(), flags=re.MULTILINE)
    assert re.sub(r"\n+", "\n", without).strip() == re.sub(r"\n+", "\n", template).strip()


def test_the_command_line_knows_it(here, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rnr", "results", "mine.in.md", "-o", "docs/mine.md", "--label", "D=photos"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == "docs/mine.md"


def test_a_label_stands_for_its_folder_and_no_other():
    labels = {"D": Path("/data/x"), "E": Path("/data/x2"), "F": Path("/data/x/in")}
    said = "/data/x2/a, /data/x/a, [/data/x], /data/x/in/b, /data/x3, /data/x.bak/a, /mnt/data/x/a, /data/x.\n"
    text = results.assembled(said, {}, labels)
    assert text.startswith("$E/a, $D/a, [$D], $F/b, /data/x3, /data/x.bak/a, /mnt/data/x/a, $D.\n")
