import multiprocessing
from pathlib import Path

import pytest
from runs import Runs


@pytest.fixture(scope="session", autouse=True)
def imported():
    """What every run needs, imported once."""
    names = ["rnr.stage_commands", "rnr.stages", "rnr.models.compact", "lightning.pytorch.loggers.tensorboard"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(names)


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    end = Runs(folder).fit(folder / "run")
    assert end.code == 0, end.said
    return folder / "run"
