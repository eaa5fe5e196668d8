import math
import sys
import time

import torch

from rnr.stages import cost
from rnr.stages.cost import Meter

CPU = torch.device("cpu")


def measured(meter, photos, work):
    with meter.measuring(photos) as spent:
        work()
    return spent


def test_the_first_batch_warms_up_and_the_next_is_measured_a_photo():
    meter = Meter(CPU)
    first = measured(meter, 4, lambda: None)
    assert math.isnan(first.seconds) and math.isnan(first.peak_mib)
    second = measured(meter, 4, lambda: time.sleep(0.2))
    assert 0.05 <= second.seconds < 0.5


def test_the_peak_is_what_was_held_at_once_and_is_told_anew_each_time():
    meter = Meter(CPU)
    measured(meter, 1, lambda: None)
    large = measured(meter, 1, lambda: torch.ones(64 * cost.MIB).sum())  # 256 MiB, gone at the end
    small = measured(meter, 1, lambda: torch.ones(cost.MIB).sum())
    if sys.platform == "linux":
        assert 250 < large.peak_mib < 400
        assert small.peak_mib < large.peak_mib - 200
    else:
        assert math.isnan(large.peak_mib), "only Linux tells the peak of a process"


def test_what_the_system_does_not_tell_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "PROCESS", tmp_path / "nowhere")
    meter = Meter(CPU)
    measured(meter, 1, lambda: None)
    spent = measured(meter, 2, lambda: None)
    assert math.isnan(spent.peak_mib) and spent.seconds >= 0


def test_a_gpu_is_asked_for_its_own_memory_and_waited_for(monkeypatch):
    """By name: there is no such device here."""
    asked = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * cost.MIB)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    meter = Meter(torch.device("cuda", 0))
    for _ in range(2):
        spent = measured(meter, 1, lambda: asked.append("work"))
    assert asked == ["wait", "reset", "work", "wait"] * 2
    assert spent.peak_mib == 3 and meter.where == "a card"
