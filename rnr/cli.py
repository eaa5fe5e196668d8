"""The ``rnr`` command: its own commands for photos and data, and LightningCLI's for training and evaluation."""

import os
import sys
from importlib import import_module
from importlib.metadata import version

STAGE_COMMANDS = {
    "fit": "train a stage: rnr fit --config lightning_configs/reasoner_sft.yaml",
    "validate": "evaluate a stage on its validation photos",
    "test": "evaluate a stage on its test photos; without --config, the shipped weights",
    "predict": "restore the photos of a folder by a stage's models",
}
PHOTO_COMMANDS = {
    "demo": ("photo_commands.demo", "the whole path on a photo that ships along"),
    "degrade": ("photo_commands.degrade", "put clean photos through the degradation model of Eq. 1"),
    "diagnose": ("photo_commands.diagnose", "say what is wrong with photos, in words and numbers"),
    "restore": ("photo_commands.restore", "diagnose photos and repair them accordingly"),
}
DATA_COMMANDS = {
    "dataset": (
        "dataset_commands.dataset",
        "build sets of degraded photos with all that was applied, and check them",
    ),
    "depth": ("data_commands.depth", "estimate the depth of photos, once, for the fog"),
    "scenes": (
        "data_commands.scenes",
        "describe clean photos in words by a vision-language model, or check descriptions",
    ),
}
REASONER_COMMANDS = {
    "calibrate": ("calibrate_command.calibrate", "fit and show how sure the reasoner may be"),
    "audit-reward": ("audit_command.audit_reward", "show whether its severities are a reward to be trusted"),
    "worth": ("worth_command.worth", "show what its diagnoses are worth to the restorer"),
    "real": (
        "real_command.real",
        "repair real photos in a folder a scene, and show what is seen in them before and after",
    ),
}
PAPER_COMMANDS = {
    "baselines": ("baselines.main", "test the rows of Table 2"),
    "ablations": ("ablations.main", "train and test the rows of Table 3"),
    "figure": ("figure_command.figure", "draw Figures 4 to 8, of any photos and systems"),
    "grpo-compare": ("grpo_compare.main", "train the third stage by each of its losses, and without the reward"),
    "results": ("results.results", "run the commands of docs/results.in.md, and write them with their tables"),
}
FUNCTIONS = {**PHOTO_COMMANDS, **DATA_COMMANDS, **REASONER_COMMANDS, **PAPER_COMMANDS}
"""A function of ``rnr`` by its command: it takes the rest of the command line and returns the exit status."""


SPINS = 3000
"""How often a thread of OpenMP asks whether there is more to do before it sleeps. As OpenMP has it, 300,000 times: wherever
another program wants a core, threads that ask keep those waiting that work."""


def main() -> None:
    """Entry point. Exit status: 0; 1 if a photo or a run failed; 2 if the command line is wrong; 130 for Ctrl-C."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # names of files that are no UTF-8
    try:
        _run()
    except KeyboardInterrupt:
        print("rnr: interrupted; what was finished is whole", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read what is printed has seen enough; nor must the interpreter's last flush fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run() -> None:
    name, *rest = sys.argv[1:] or ["--help"]
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))  # read as torch is imported
    # Imported only when called for: torch and its kin take seconds.
    if name in ("-h", "--help"):
        print(_help())
    elif name == "--version":
        print(f"rnr {version('rnr')}")
    elif name in STAGE_COMMANDS:
        from rnr import stage_commands

        stage_commands.run([name, *rest])
    elif name in FUNCTIONS:
        module, function = FUNCTIONS[name][0].split(".")
        sys.exit(getattr(import_module(f"rnr.{module}"), function)(rest))
    else:
        print(f"rnr: there is no command {name!r}\n\n{_help()}", file=sys.stderr)
        sys.exit(2)


def _help() -> str:
    lines = ["usage: rnr COMMAND ...", "", "Reason and Restore: diagnose what is wrong with a photo, then repair it."]
    groups = {
        "photos": _texts(PHOTO_COMMANDS),
        "data": _texts(DATA_COMMANDS),
        "training and evaluation": STAGE_COMMANDS | _texts(REASONER_COMMANDS),
        "the paper": _texts(PAPER_COMMANDS),
    }
    for title, commands in groups.items():
        lines += ["", f"{title}:", *(f"  {name:<12} {text}" for name, text in commands.items())]
    return "\n".join([*lines, "", "rnr COMMAND --help says more."])


def _texts(commands: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: text for name, (_, text) in commands.items()}
