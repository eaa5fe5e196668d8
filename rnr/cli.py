"""The ``rnr`` command: its own commands for photos and data, and LightningCLI's for training and evaluation."""

import sys

PHOTO_COMMANDS = {
    "demo": "the whole path on a photo that ships along",
    "degrade": "put clean photos through the degradation model of Eq. 1",
    "diagnose": "say what is wrong with photos, in words and numbers",
    "restore": "diagnose photos and repair them accordingly",
}
DATA_COMMANDS = {
    "dataset": "build sets of degraded photos with all that was applied, and check them",
    "depth": "estimate the depth of photos, once, for the fog",
    "scenes": "describe clean photos in words by a vision-language model, or check descriptions",
}
STAGE_COMMANDS = {
    "fit": "train a stage: rnr fit --config lightning_configs/reasoner_sft.yaml",
    "validate": "evaluate a stage on its validation photos",
    "test": "evaluate a stage on its test photos; without --config, the shipped weights",
    "predict": "restore the photos of a folder by a stage's models",
}
REASONER_COMMANDS = {
    "calibrate": "fit and show how sure the reasoner may be",
    "audit-reward": "show whether its severities are a reward to be trusted",
    "worth": "show what its diagnoses are worth to the restorer",
}
PAPER_COMMANDS = {
    "baselines": "test the rows of Table 2",
    "ablations": "train and test the rows of Table 3",
    "grpo-compare": "train the third stage by each of its losses, and without the reward",
}


def main() -> None:
    """Entry point. Exit status: 0; 1 if a photo or a run failed; 2 if the command line is wrong."""
    name, *rest = sys.argv[1:] or ["--help"]
    # Imported only when called for: torch and its kin take seconds.
    if name in ("-h", "--help"):
        print(_help())
    elif name in PHOTO_COMMANDS:
        from rnr import photo_commands

        sys.exit(getattr(photo_commands, name)(rest))
    elif name == "dataset":
        from rnr import dataset_commands

        sys.exit(dataset_commands.dataset(rest))
    elif name in DATA_COMMANDS:
        from rnr import data_commands

        sys.exit(getattr(data_commands, name)(rest))
    elif name in STAGE_COMMANDS:
        from rnr import stage_commands

        stage_commands.run([name, *rest])
    elif name == "calibrate":
        from rnr import calibrate_command

        sys.exit(calibrate_command.calibrate(rest))
    elif name == "worth":
        from rnr import worth_command

        sys.exit(worth_command.worth(rest))
    elif name == "audit-reward":
        from rnr import audit_command

        sys.exit(audit_command.audit_reward(rest))
    elif name == "grpo-compare":
        from rnr import grpo_compare

        sys.exit(grpo_compare.main(rest))
    elif name == "baselines":
        from rnr import baselines

        sys.exit(baselines.main(rest))
    elif name == "ablations":
        from rnr import ablations

        sys.exit(ablations.main(rest))
    else:
        print(f"rnr: there is no command {name!r}\n\n{_help()}", file=sys.stderr)
        sys.exit(2)


def _help() -> str:
    lines = ["usage: rnr COMMAND ...", "", "Reason and Restore: diagnose what is wrong with a photo, then repair it."]
    groups = {
        "photos": PHOTO_COMMANDS,
        "data": DATA_COMMANDS,
        "training and evaluation": STAGE_COMMANDS | REASONER_COMMANDS,
        "the paper": PAPER_COMMANDS,
    }
    for title, commands in groups.items():
        lines += ["", f"{title}:", *(f"  {name:<12} {text}" for name, text in commands.items())]
    return "\n".join([*lines, "", "rnr COMMAND --help says more."])
