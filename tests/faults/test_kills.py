"""kill -9: whatever a run was about, the same command goes on from what was written, to the same weights."""

import random
import shutil
import signal
import time

import pytest
from faults import KilledAt, equal, step_of, weights

KILLS = 50
FAULTS = [
    KilledAt("save", 3),
    KilledAt("rename", 4),
    *(
        pytest.param(KilledAt(name, number), marks=pytest.mark.slow)
        for name, numbers in {"save": (1, 4, 5, 6), "fsync": (1, 3, 4, 5, 6), "rename": (1, 3, 5, 6)}.items()
        for number in numbers
    ),
]


@pytest.mark.slow
def test_kills_at_random_moments(runs, undisturbed, record_property):
    """Each run is killed again and again, started by the same command, and ends as if it never had been."""
    chance, kills, ends = random.Random(0), 0, 0
    begin = time.monotonic()
    assert runs.fit(runs.folder / "timed").code == 0
    length = time.monotonic() - begin
    while kills < KILLS:
        root, reached = runs.folder / f"run{ends}", 0
        while True:
            run = runs.start(root, "--ckpt_path=last")
            if kills < KILLS:
                run.process.join(chance.uniform(0.2, 1.1) * length)
                run.process.kill()
            if (end := run.end()).code == 0:
                break
            assert end.code == -signal.SIGKILL, end.said
            kills += 1
            written = [step_of(path) for path in (root / "checkpoints").glob("*.ckpt")]
            assert max(written, default=0) >= reached, "a checkpoint that was written is lost"
            reached = max(written, default=0)
        assert equal(weights(root), weights(undisturbed))
        ends += 1
        shutil.rmtree(root)
    record_property("kills", kills)
    print(f"{kills} kills survived by {ends} runs, whose weights equal the undisturbed run's to the bit")


@pytest.mark.parametrize("fault", FAULTS)
def test_kills_while_a_checkpoint_is_written(fault, runs, undisturbed):
    root = runs.folder / "run"
    assert runs.fit(root, before=fault).code == -signal.SIGKILL
    again = runs.fit(root, "--ckpt_path=last")
    assert again.code == 0, again.said
    assert equal(weights(root), weights(undisturbed))
