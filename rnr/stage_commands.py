"""``rnr fit | validate | test | predict``: LightningCLI over the three stages and the one DataModule."""

import json
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from rnr.data.datamodule import DegradationDataModule
from rnr.data.photos import PhotoError
from rnr.metrics.perceptual import Lpips
from rnr.records import named_weights, record
from rnr.signals import sigterm_raises
from rnr.stages.checkpoints import CHECKPOINTS, LAST, CheckpointError, locked, resumed_from
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
"""What ``rnr test``, ``validate`` and ``predict`` evaluate without ``--config``."""


class ConfigError(Exception):
    """A value that the parser could not know to be wrong, such as the weights of another model."""


class StageCLI(LightningCLI):
    """LightningCLI over the stages, its files read by omegaconf. Takes its arguments from ``sys.argv``."""

    def __init__(self) -> None:
        super().__init__(
            Stage,
            DegradationDataModule,
            subclass_mode_model=True,
            save_config_kwargs={"overwrite": True},
            # The parser's own way out would print its usage, hundreds of lines, before the one that matters.
            parser_kwargs={"parser_mode": "omegaconf", "exit_on_error": False},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--lpips", type=str | None, default=None,
            help="also measure LPIPS: weights of its network, a safetensors file with torchvision's names or a hub name "
            "that is in the cache, such as timm/vgg16.tv_in1k; needs torchvision",
        )  # fmt: skip

    def fit(
        self, model: Stage, datamodule: DegradationDataModule, ckpt_path: str | None, weights_only: bool
    ) -> None:
        """What ``rnr fit`` runs: one run at a time in a folder, from a checkpoint that is whole. ``--ckpt_path last`` goes
        on from the run's own, and begins if there is none: so a scheduler can start the same command again and again.
        Raises ``CheckpointError``."""
        folder = Path(self.trainer.default_root_dir)
        # The first process holds the folder for all of them.
        with locked(folder) if self.trainer.is_global_zero else nullcontext():
            start = resumed_from(ckpt_path, folder)
            if ckpt_path is None and self.trainer.is_global_zero and (folder / CHECKPOINTS / LAST).exists():
                print(f"{folder}: an earlier run is there, which this one replaces; --ckpt_path last would go on from it",
                      file=sys.stderr)  # fmt: skip
            try:
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=start, weights_only=weights_only)
            except UnpicklingError as error:
                raise CheckpointError(f"{start}: holds more than data, and could run code if it was loaded") from error
            if self.trainer.is_global_zero and weights_of(folder).is_dir():
                print(f"weights: {weights_of(folder)}")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """A checkpoint is data: one that would run code is refused, unless ``--weights_only false`` asks for it. Raises
        ``CheckpointError`` for an evaluation of the ``last`` one where there is none; Lightning would go on without."""
        given = super()._prepare_subcommand_kwargs(subcommand)
        folder, strategy = Path(self.trainer.default_root_dir), self.trainer.strategy
        if subcommand != "fit" and given.get("ckpt_path") == "last":
            given["ckpt_path"] = resumed_from("last", folder)
            if given["ckpt_path"] is None:
                raise CheckpointError(f"{folder / CHECKPOINTS}: no checkpoint is there to {subcommand}")
        sharded = isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3
        if subcommand != "fit" and given.get("ckpt_path") and sharded:
            raise CheckpointError(f"ZeRO-3 can {subcommand} by no checkpoint; name the weights: {weights_of(folder)}")
        return {**given, "weights_only": given["weights_only"] is not False}

    def instantiate_classes(self) -> None:
        """Builds the stage, the data module and the trainer; ``ConfigError`` for values that one of them refuses."""
        try:
            super().instantiate_classes()
            weights = self.config[self.subcommand].lpips
            self.model.lpips = Lpips(weights) if weights else None
        except (ValueError, ModuleNotFoundError) as error:
            raise ConfigError(_reason(str(error))) from error

    def record(self, typed: Sequence[str]) -> None:
        """Leaves what an evaluation found as ``test.json`` or ``validate.json`` in the run's folder. typed: the command."""
        weights = named_weights(self.config[self.subcommand].model.as_dict())
        told = record(typed, self.model.evaluation.tables(), self.datamodule.eval_seed, weights)
        told.write(Path(self.trainer.default_root_dir) / f"{self.subcommand}.json")


def run(args: Sequence[str]) -> Stage:
    """Runs one command, e.g. ``["fit", "--config", FILE]``, and returns its stage.

    Exits with 2 on a wrong command line or configuration, and with 1 and one line on what else the user can mend: a
    photo, a missing or foreign checkpoint, a full disk, a loss that is no number.
    """
    command, *options = args
    if not any(
        option.startswith(("--config", "-c", "--model", "-h", "--help", "--print_config")) for option in options
    ):
        if command == "fit":
            print("error: rnr fit needs --config, such as lightning_configs/restorer_sft.yaml", file=sys.stderr)
            sys.exit(2)
        defaults = [f"--model={json.dumps(SHIPPED)}", "--trainer.default_root_dir=runs/shipped", "--trainer.devices=1"]
        options = [*defaults, "--trainer.use_distributed_sampler=false", *options]
    if (fault := _no_yaml(options)) is not None:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for classes of one's own, named by their path
    sys.argv[1:] = [command, *options]  # LightningCLI warns of arguments that are given in another way
    # A fit ends after its step (KeepCheckpoint); the others at once, with what they have begun.
    try:
        with nullcontext() if command == "fit" else sigterm_raises():
            cli = StageCLI()
        if command in ("validate", "test") and cli.trainer.is_global_zero and cli.model.evaluation.seen:
            cli.record(args)
        return cli.model
    except ArgumentError as error:
        print(f"error: {_located(str(error))}", file=sys.stderr)
        sys.exit(2)
    except (ConfigError, MisconfigurationException, PhotoError, FloatingPointError, OSError) as error:
        message = str(error)
        if "Original Traceback" in message:  # of a loader's process, which ends in what it was about
            message = message.splitlines()[-1].partition(": ")[2]
        sys.exit(f"error: {message}")


def _no_yaml(options: Sequence[str]) -> str | None:
    """What is wrong with the first configuration that is none; the parser's own words would not name the file."""
    for word, following in pairwise([*options, ""]):
        name, equals, value = word.partition("=")
        path = value if equals else following
        if name in ("-c", "--config") and os.path.isfile(path):  # or it is the configuration itself
            try:
                with open(path, encoding="utf-8") as file:
                    yaml.safe_load(file)
            except yaml.MarkedYAMLError as error:
                line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
                return f"{path}: is no YAML{line}: {error.problem}"
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                return f"{path}: is no YAML: {' '.join(str(error).split())}"
    return None


KEY = re.compile(r"Parser key \"(.+)\":(.*)")
ASIDE = (
    "Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Expected a path but {",
    "Given value type:",
)  # fmt: skip
LONGEST = 100  # characters of a value
CLASS = re.compile(r"Problem with given class_path '(.+)':(.*)")


def _located(message: str) -> str:
    """What jsonargparse says of a value deep within, in a line: the key's whole name, the class, and what is wrong there.
    What has another form stays as it is."""
    keys, classes, reasons, values = [], [], [], []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ")
        for pattern, found in ((KEY, keys), (CLASS, classes)):
            if match := pattern.fullmatch(line):
                found.append(match[1])
                line = match[2].strip()
        if line.startswith("Given value: "):
            values.append(line)
        elif line and not line.startswith(ASIDE):
            reasons.append(line)
    if not keys or not reasons:
        return message
    if values and not any("Got value" in reason or "is not accepted" in reason for reason in reasons):
        reasons.append(values[0][:LONGEST])  # the innermost
    return f"{'.'.join(keys)}{f' ({classes[-1]})' if classes else ''}: {'; '.join(reasons)}"


def _reason(message: str) -> str:
    """The one line that matters of what jsonargparse says when no type of a union fits: not that it is no None."""
    reasons = [line.strip(" -") for line in message.splitlines() if line.lstrip().startswith("- ")]
    telling = [reason for reason in reasons if not reason.startswith(("Expected a", "Does not validate"))]
    return telling[0] if telling else message


def weights_of(directory: Path) -> Path:
    """Where a run in ``directory`` left its trained model."""
    return directory / "weights"
