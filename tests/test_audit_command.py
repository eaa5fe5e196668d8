"""``rnr audit-reward``, as a person uses it, on a reasoner that is right and on one that is fooled."""

import csv
import math

import numpy as np
import pytest
import torch
from fakes import Untrained
from PIL import Image

from rnr import audit_command
from rnr.audit_command import Audit, audit_reward
from rnr.diagnosis import KINDS, Diagnosis
from rnr.diagnosis.examination import Examination
from rnr.models.interfaces import TrainableRestorer
from rnr.records import Record
from rnr.stages.evaluation import markdown

STEPS = (0.1, 0.4, -0.05, 0.2)  # how far each candidate lies from the photo


class Opinion(Untrained):
    """Finds fault with the distance from what it likes: a photo's mean brightness."""

    def __init__(self, likes: float):
        super().__init__()
        self.likes = likes

    def examine(self, images, fields=(), lean=None):
        return [Examination(Diagnosis(), dict.fromkeys(KINDS, 0.3))] * len(images)

    def severities(self, images):
        fault = 100 * (images.mean(dim=(1, 2, 3)) - self.likes).abs()
        return torch.stack([fault, *[torch.zeros(len(images))] * 3], dim=1)


class Stepper(TrainableRestorer):
    """Knows the clean photo, a flat one, and misses it by STEPS."""

    def restore(self, images, diagnoses, seeds):
        return self.rollout(images, diagnoses, seeds, 1)[:, 0]

    def rollout(self, degraded, diagnoses, seeds, group):
        steps = torch.tensor(STEPS[:group]).view(1, -1, 1, 1, 1)
        return (degraded[:, None] * 0 + 0.5 + steps).clamp(0, 1)

    def loss(self, degraded, clean, diagnoses, generator):
        raise NotImplementedError

    def save(self, directory):
        raise NotImplementedError


@pytest.fixture
def photos(tmp_path):
    """Nearly flat photos of mean 0.5."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        levels = 127.5 + np.random.default_rng(i).normal(0, 8, (40, 48, 3))
        Image.fromarray(levels.round().astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def audited(monkeypatch, photos, tmp_path, likes, *options):
    monkeypatch.setattr(audit_command, "load_reasoner", lambda name: Opinion(likes))
    monkeypatch.setattr(audit_command, "load_restorer", lambda name: Stepper())
    assert audit_reward([str(photos), "--group", "4", "-o", str(tmp_path / "out"), *options]) == 0
    with (tmp_path / "out" / "candidates.csv").open(newline="") as file:
        candidates = list(csv.DictReader(file))
    text = (tmp_path / "out" / "audit.md").read_text()
    assert all(markdown(rows) in text for rows in Record.read(tmp_path / "out" / "audit.json").tables.values())
    return text, candidates


def test_a_reward_that_is_right_is_told_so(monkeypatch, photos, tmp_path, capsys):
    text, candidates = audited(monkeypatch, photos, tmp_path, 0.5, "--draws", "2")
    assert len(candidates) == 3 * 2 * 4 and {row["draw"] for row in candidates} == {"0", "1"}
    assert "| severity reward | +1.00 [+1.00, +1.00] |" in text
    row = next(line for line in text.splitlines() if line.startswith("| PSNR, picked by reward | 4 |"))
    first, picked, _, oracle = [cell.strip() for cell in row.strip("|").split("|")][2:]
    assert float(picked) == float(oracle) >= float(first)
    ranked = [line.split("|")[1].strip() for line in text.splitlines() if line.count("|") == 7][2:]
    assert ranked.index("clean") < ranked.index("restored") < ranked.index("input")
    assert "How the reward ranks photos: 3 photos, degraded 2 times each" in capsys.readouterr().out.replace("\n", " ")


def test_a_reward_that_likes_the_wrong_thing_is_found_out(monkeypatch, photos, tmp_path):
    text, candidates = audited(monkeypatch, photos, tmp_path, 1.0)  # the brighter, the better
    assert "| severity reward | -1.00 [-1.00, -1.00] |" in text
    over = next(line for line in text.splitlines() if line.startswith("| restored |"))
    assert "100%" in over, "it is rewarded more than the clean photo, in all of them"
    rewards = [float(row["reward"]) for row in candidates if row["photo"] == "0.png"]
    assert rewards.index(max(rewards)) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--jitter", "0.3"], "diagnoses jittered by 0.3"), (["--sampled"], "diagnoses as likely as the reasoner thinks")],
)
def test_candidates_can_be_spread_by_their_diagnosis(monkeypatch, photos, tmp_path, options, said):
    text, candidates = audited(monkeypatch, photos, tmp_path, 0.5, *options)
    assert said in text
    assert len({row["psnr"] for row in candidates if row["photo"] == "0.png"}) == 1, "this restorer does not listen"
    assert "0 of 3" in text


def test_what_cannot_be_used_is_passed_over_and_nonsense_refused(monkeypatch, photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"no photo")
    monkeypatch.setattr(audit_command, "load_reasoner", lambda name: Opinion(0.5))
    monkeypatch.setattr(audit_command, "load_restorer", lambda name: Stepper())
    assert audit_reward([str(photos), "--group", "2"]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "broken.png" in said.err
    assert "3 of 3" in said.out
    with pytest.raises(SystemExit) as stop:
        audit_reward([str(photos), "--group", "1"])
    assert stop.value.code == 2 and "--group: must be at least 2, got 1" in capsys.readouterr().err


def test_photos_without_a_reward_are_left_out_of_a_versions_figures():
    rewards = {"clean": (50.0, 40.0, 60.0), "input": (41.0, math.nan, 51.0), "unread": (math.nan,) * 3}
    rows = [
        {"version": version, "reward": reward, "psnr": 20.0, "ssim": 0.5}
        for version, each in rewards.items()
        for reward in each
    ]
    told = {row[""]: row for row in Audit(versions=rows, names=["a", "b", "c"]).version_rows()}
    assert list(told) == ["clean", "input", "unread"]
    assert (told["input"]["reward"], told["input"]["over clean"]) == ("+46.0", "0%")
    assert told["input"]["to clean"].startswith("-9.0")
    assert [told["unread"][column] for column in ("reward", "to clean", "over clean")] == ["", "", ""]
