import multiprocessing
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "stages"))


@pytest.fixture(scope="session", autouse=True)
def imported():
    """What every run needs, imported once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["rnr.stage_commands", "rnr.stages", "deepspeed"])
