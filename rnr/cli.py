"""The ``rnr`` command."""

from lightning.pytorch.cli import LightningCLI

from rnr.data.datamodule import DegradationDataModule
from rnr.stages.stage import Stage


def main() -> None:
    LightningCLI(
        Stage,
        DegradationDataModule,
        subclass_mode_model=True,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"parser_mode": "omegaconf"},
    )
