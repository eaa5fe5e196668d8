"""The columns of the paper's figures: rows of Tables 2 and 3, each built from its configuration as ``rnr test`` would."""

from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from yaml import YAMLError

from rnr.ablations import BEFORE_RL
from rnr.ablations import REFERENCE as FULL
from rnr.ablations import ROWS as PARTS
from rnr.baselines import FIRST as INPUT
from rnr.baselines import REFERENCE
from rnr.models.weights import locate
from rnr.row_runs import Run
from rnr.stage_commands import weights_of
from rnr.stages import published
from rnr.stages.stage import Stage

TOLD = "{}, told"
"""Label of a row that has a ``_blind`` one beside it: it goes by the truth."""

SHIPPED = (
    "All rows have the shipped weights, trained on whole diagnoses; what a row goes without is withheld from them."
)
TRAINED = "Each row has the weights that rnr ablations trained for it."


@dataclass(frozen=True)
class System:
    """A column. configs: of a stage; a later file overrules an earlier one. checkpoint: of its restorer, overrules both."""

    label: str
    configs: tuple[Path, ...]
    checkpoint: Path | None = None

    def lacking(self) -> str | None:
        """What it names that is not here, in a line; None: it can run."""
        return Run("test", Path(), self.configs).lacking() if self.checkpoint is None else None

    def load(self) -> Stage:
        """The stage, in evaluation. A model without weights is the same each time. ``ValueError`` names the file of a
        configuration that the code does not take, or that names weights which cannot be read."""
        parser = ArgumentParser(parser_mode="omegaconf", exit_on_error=False)
        parser.add_subclass_arguments(Stage, "model", required=True)
        given, models = None, [*map(_model, self.configs), *self._own()]
        try:
            for model in models:
                given = parser.parse_object({"model": model}, namespace=given)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return parser.instantiate(given).model.eval()
        except (ArgumentError, OSError, RuntimeError, SafetensorError, ValueError) as error:
            # The cause of the parser's own error is the first of many lines, and the one that matters.
            raise ValueError(f"{self.configs[-1]}: {error.__cause__ or error}") from error

    def _own(self) -> list[dict[str, Any]]:
        weights = {"checkpoint": str(self.checkpoint)}
        return [] if self.checkpoint is None else [{"init_args": {"restorer": {"init_args": weights}}}]


def named(rows: Sequence[str], configs: Path) -> list[System]:
    """``NAME`` in ``configs``' ``baselines``, or a file ``PATH.yaml``, each perhaps with ``=LABEL``. ``ValueError`` names one
    that is not there."""
    systems = []
    for row in rows:
        name, _, label = row.partition("=")
        path = Path(name) if name.endswith((".yaml", ".yml")) else configs / "baselines" / f"{name}.yaml"
        if not path.is_file():
            raise ValueError(f"{path}: no such row; {configs / 'baselines'} has {', '.join(_found(configs)) or 'none'}")
        systems.append(System(label or _label(path), (path,)))
    return systems


def of_table_2(configs: Path, told: bool) -> tuple[list[System], list[str]]:
    """All rows that can run here, rnr's own last, and why each of the others cannot. The input is a column anyhow. Where
    nothing is known that a row could be ``told``, its blind one stands for both."""
    names = [name for name in _found(configs) if name not in (INPUT, REFERENCE)]
    names = [name for name in names if told or f"{name}_blind" not in names]
    systems = {name: system for name, system in zip(names, named(names, configs), strict=True)}
    reasons = {name: system.lacking() for name, system in systems.items()}
    run = [system for name, system in systems.items() if reasons[name] is None]
    return [*run, *named([REFERENCE], configs)], [f"{name}: {why}" for name, why in reasons.items() if why]


def of_table_3(configs: Path, runs: Path) -> tuple[list[System], str]:
    """The rows as ``rnr ablations`` trained them in ``runs``, if the full model is there; else the shipped models, from which
    is withheld what each row goes without. Also says which."""
    labels = dict(zip((*PARTS, FULL), (name for name, *_ in published.TABLE_3[1:]), strict=True))
    trained = {row: weights_of(runs / (f"{FULL}/sft" if row == BEFORE_RL else f"{row}/grpo")) for row in labels}
    trained = {row: weights for row, weights in trained.items() if _there(weights)}
    if FULL in trained:
        overlays = {row: configs / "ablations" / f"{FULL if row == BEFORE_RL else row}.yaml" for row in trained}
        base = configs / "grpo.yaml"
        return [System(labels[row], (base, overlays[row]), weights) for row, weights in trained.items()], TRAINED
    base, folder = configs / "baselines" / f"{REFERENCE}.yaml", configs / "ablations"
    # What ships is stage 2, so that the row without the third would be the full one once more.
    rows = {row: folder / f"{row}.yaml" for row in labels if row != BEFORE_RL}
    return [System(labels[row], (base, overlay)) for row, overlay in rows.items()], SHIPPED


def _model(path: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        return content["model"]
    except (OmegaConfBaseException, YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no configuration of a stage ({str(error).splitlines()[0]})") from error


def _found(configs: Path) -> list[str]:
    return sorted(path.stem for path in (configs / "baselines").glob("*.yaml"))


def _label(path: Path) -> str:
    name = path.stem.replace("three_d", "3D")
    if path.with_stem(f"{path.stem}_blind").is_file():
        return TOLD.format(name)
    return name.replace("_blind", ", blind").replace("_", " ")


def _there(weights: Path) -> bool:
    try:
        return bool(locate(str(weights)))
    except FileNotFoundError:
        return False
