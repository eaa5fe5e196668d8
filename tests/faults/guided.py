"""Fuzzing that looks for new ways through the code, by atheris: what reads texts, JSON files and photos (``make fuzz``).

``guided.py RUNS`` takes each of them in turn; ``guided.py TARGET ... FOLDER`` is one of them, with libFuzzer's own arguments.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def each(runs: str) -> None:
    """Every target in a process of its own, which libFuzzer does not return from. An input that fails is left in the working
    folder, and the exit status is 77."""
    for target in ("text", "json", "photo"):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{target}:", flush=True)
            options = [
                f"-runs={runs}",
                "-seed=1",
                "-max_len=2048",
                "-print_final_stats=1",
                f"-artifact_prefix={target}-",
            ]
            command = [sys.executable, __file__, target, *options, folder]
            end = subprocess.run(command, env={**os.environ, "TMPDIR": folder}, stderr=subprocess.PIPE, text=True)
            print(*(end.stderr.splitlines()[-12:] if end.returncode else _summary(end.stderr)), sep="\n", flush=True)
            if end.returncode:
                sys.exit(end.returncode)


def _summary(said: str) -> list[str]:
    return [line for line in said.splitlines() if "INITED" in line or "DONE" in line or line.startswith("Done ")]


def one(target: str, arguments: list[str]) -> None:
    """The last argument is the folder of inputs to begin with."""
    import atheris

    with atheris.instrument_imports(include=["rnr", "PIL"]):
        from inputs import JSON, PHOTOS, TEXTS, check_json, check_photo, check_text

    path = Path(tempfile.mkdtemp()) / "input"

    def check(content: bytes) -> None:
        if target == "text":
            check_text(content.decode(errors="replace"))
            return
        path.write_bytes(content)
        (check_json if target == "json" else check_photo)(path)
        assert os.listdir(path.parent) == [path.name]

    (corpus := Path(arguments[-1]) / "corpus").mkdir(exist_ok=True)
    examples = {
        "text": [text.encode() for text in TEXTS],
        "json": [JSON],
        "photo": [p for of in PHOTOS.values() for p in of],
    }
    for number, example in enumerate(examples[target]):
        (corpus / str(number)).write_bytes(example)
    atheris.Setup([sys.argv[0], *arguments[:-1], str(corpus)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    each(sys.argv[1]) if sys.argv[1].isdecimal() else one(sys.argv[1], sys.argv[2:])
