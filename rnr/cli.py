"""The ``rnr`` command: its own commands for photos, and LightningCLI's for training and evaluation."""

import sys

PHOTO_COMMANDS = {
    "demo": "the whole path on a photo that ships along",
    "degrade": "put clean photos through the degradation model of Eq. 1",
    "diagnose": "say what is wrong with photos, in words and numbers",
    "restore": "diagnose photos and repair them accordingly",
}
STAGE_COMMANDS = {
    "fit": "train a stage: rnr fit --config lightning_configs/reasoner_sft.yaml",
    "validate": "evaluate a stage on its validation photos",
    "test": "evaluate a stage on its test photos; without --config, the shipped weights",
    "predict": "restore the photos of a folder by a stage's models",
}


def main() -> None:
    """Entry point. Exit status: 0; 1 if a photo or a run failed; 2 if the command line is wrong."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_help())
    elif name in PHOTO_COMMANDS:
        from rnr import commands

        sys.exit(getattr(commands, name)(sys.argv[2:]))
    elif name in STAGE_COMMANDS:
        _stage_command()
    else:
        sys.exit(f"rnr: there is no command {name!r}\n\n{_help()}")


def _help() -> str:
    lines = ["usage: rnr COMMAND ...", "", "Reason and Restore: diagnose what is wrong with a photo, then repair it."]
    for title, commands in (("photos", PHOTO_COMMANDS), ("training and evaluation", STAGE_COMMANDS)):
        lines += ["", f"{title}:", *(f"  {name:<10} {text}" for name, text in commands.items())]
    return "\n".join([*lines, "", "rnr COMMAND --help says more."])


def _stage_command() -> None:
    from lightning.pytorch.cli import LightningCLI

    from rnr.data.datamodule import DegradationDataModule
    from rnr.data.photos import PhotoError
    from rnr.stages.stage import Stage

    try:
        LightningCLI(
            Stage,
            DegradationDataModule,
            subclass_mode_model=True,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"parser_mode": "omegaconf"},
        )
    except (PhotoError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
