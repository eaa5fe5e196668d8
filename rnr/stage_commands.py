"""``rnr fit | validate | test | predict``: LightningCLI over the three stages and the one DataModule."""

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from rnr.data.datamodule import DegradationDataModule
from rnr.data.photos import PhotoError
from rnr.stages.stage import Stage

SHIPPED = {
    "class_path": "rnr.stages.RestorerSFT",
    "init_args": {
        "restorer": {
            "class_path": "rnr.models.compact.CompactRestorer",
            "init_args": {"checkpoint": "shipped/restorer"},
        },
        "reasoner": {
            "class_path": "rnr.models.qwen3vl.Qwen3VLReasoner",
            "init_args": {"checkpoint": "shipped/reasoner"},
        },
    },
}
"""What a command without ``--config`` evaluates."""


class StageCLI(LightningCLI):
    """LightningCLI with the shipped models as its default, and a run's folder for whatever it writes."""

    def __init__(self, args: ArgsType = None) -> None:
        super().__init__(
            Stage,
            DegradationDataModule,
            subclass_mode_model=True,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"parser_mode": "omegaconf"},
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults({"model": SHIPPED, "trainer.default_root_dir": "runs/shipped"})


def run(args: Sequence[str]) -> Stage:
    """Runs one command, e.g. ``["fit", "--config", FILE]``, and returns its stage. Exits with 1 and one line on what
    the user can mend: a photo, a missing or foreign checkpoint, a full disk, a loss that is no number."""
    try:
        return StageCLI(list(args)).model
    except (PhotoError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
    except ValueError as error:
        # Of a value that the parser could not know to be wrong; a traceback would bury it.
        sys.exit(f"error: {error}")


def weights_of(directory: Path) -> Path:
    """Where a run in ``directory`` left its trained model."""
    return directory / "weights"
