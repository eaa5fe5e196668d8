"""The third stage by parts: what is learned from, what is logged and measured, and its own start as a reference."""

import csv

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from tiny_stages import EXAMINED, opinionated, tiny_data, tiny_restorer, tiny_stage, tiny_trainer

from rnr.data.datamodule import Sources
from rnr.data.photos import shipped_photos
from rnr.diagnosis import KINDS, ParseFailure
from rnr.grpo import Anchored, PolicyGradient, Supervised
from rnr.metrics.judge import look
from rnr.models.reward import Reward
from rnr.stages import RestorerGRPO
from rnr.stages.aims import Clean, Cycle, Own, OwnFlow


def adapted():
    restorer = tiny_restorer()
    generator = torch.Generator().manual_seed(1)
    for parameter in restorer.parameters():  # a new one's heads are zero, and nothing would come of an adapter
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    layers = [name for name, module in restorer.named_modules() if isinstance(module, torch.nn.Conv2d)]
    restorer.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=layers, init_lora_weights="gaussian"), restorer)
    return restorer


@pytest.mark.parametrize(
    ("aim", "loss"),
    [(Clean(), Anchored(0.01, 175)), (Cycle(), Anchored(0.01, 175)), (Own(), PolicyGradient(0.01)), (Clean(), Supervised())],
    ids=repr,
)
def test_every_aim_trains_and_what_it_learned_from_is_logged(tmp_path, aim, loss):
    stage = opinionated(tiny_stage("grpo"))
    stage.aim, stage.loss, stage.reward = aim, loss, Reward(cycle_weight=100.0)
    judged, plain = [], stage.reasoner.severities  # of a step the photos, and then their candidates
    stage.reasoner.severities = lambda images: judged.append(plain(images)) or judged[-1]
    before = {name: value.clone() for name, value in stage.restorer.state_dict().items()}
    trainer = tiny_trainer(tmp_path, steps=2)
    trainer.fit(stage, tiny_data())
    assert any(not torch.equal(before[name], value) for name, value in stage.restorer.state_dict().items())
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["train/reward"] == pytest.approx(logged["train/reward_severity"] + logged["train/reward_cycle"], rel=1e-4)
    assert logged["train/reward_cycle"] < 0 < logged["train/reward_spread"]
    left = sum(logged[f"train/left_{kind}"] for kind in KINDS)
    assert logged["train/reward_severity"] == pytest.approx(judged[-2].sum(dim=1).mean().item() - left, rel=1e-3)
    assert (logged["train/groups_used"], logged["train/groups_skipped"]) == (1, 0)
    assert {"train/energy", "train/haze", "train/sharpness", "train/noise"} <= logged.keys()


def test_candidates_by_sampled_diagnoses_train_and_have_a_spread(tmp_path):
    stage = opinionated(tiny_stage("grpo"))
    stage.sampled = True
    stage.restorer.jitter = 0.0  # of its own rollout, which would leave no spread
    trainer = tiny_trainer(tmp_path, steps=2)
    trainer.fit(stage, tiny_data())
    logged = trainer.callback_metrics
    assert logged["train/reward_spread"] > 0 and (logged["train/groups_used"], logged["train/groups_skipped"]) == (1, 0)


def test_sampled_a_photo_without_a_diagnosis_is_skipped(tmp_path):
    stage = opinionated(tiny_stage("grpo"))
    stage.sampled, stage.group = True, 4
    unparsed = ParseFailure("", "no text")
    stage.reasoner.examine = lambda images, fields=None, lean=None: [EXAMINED, *[unparsed] * (len(images) - 1)]
    first, plain = [], stage.reasoner.severities

    def severities(images):  # of the photos that the step begins with, the second has none
        return plain(images) if first else first.append(1) or plain(images) * torch.tensor([[1.0], [float("nan")]])

    stage.reasoner.severities = severities
    trainer = tiny_trainer(tmp_path, steps=1)
    trainer.fit(stage, tiny_data())
    assert trainer.callback_metrics["train/groups_skipped"] == 1


def test_sampled_diagnoses_are_refused_where_a_photo_has_but_one():
    stage = tiny_stage("grpo")
    with pytest.raises(ValueError, match="sampled diagnoses do not go with the aim OwnFlow"):
        RestorerGRPO(stage.restorer, stage.reasoner, stage.loss, OwnFlow(), sampled=True)


def test_a_skipped_group_is_counted_and_teaches_nothing(tmp_path):
    stage = opinionated(tiny_stage("grpo"))
    stage.reasoner.severities = lambda images: torch.full((len(images), 4), 7.0)
    before = {name: value.clone() for name, value in stage.restorer.state_dict().items()}
    stage.schedule = type(stage.schedule)(learning_rate=1e-3, weight_decay=0.0, warmup=1)
    trainer = tiny_trainer(tmp_path, steps=2)
    trainer.fit(stage, tiny_data(visits=2))
    assert all(torch.equal(before[name], value) for name, value in stage.restorer.state_dict().items())
    assert trainer.callback_metrics["train/groups_skipped"] == 4, "two a step"


@pytest.mark.parametrize(("aim", "sampled"), [(Clean(), False), (Own(), False), (Clean(), True)], ids=repr)
def test_kl_is_zero_at_the_start_and_holds_the_policy_back(tmp_path, aim, sampled):
    moved = []
    for weight in (1e-9, 1e4):
        stage = tiny_stage("grpo")
        stage = opinionated(
            RestorerGRPO(adapted(), stage.reasoner, stage.loss, aim, kl_weight=weight, group=2, schedule=stage.schedule)
        )
        stage.sampled = sampled
        kl = []
        plain = stage.log
        stage.log = lambda name, value, plain=plain, kl=kl, **more: (
            kl.append(value.item()) if name == "train/kl" else None,
            plain(name, value, **more),
        )
        tiny_trainer(tmp_path / str(weight), steps=4, gradient_clip_val=1.0).fit(stage, tiny_data())
        assert kl[0] == 0 < kl[-1]
        moved.append(kl[-1])
    assert moved[1] < moved[0]


def test_kl_without_an_adapter_is_refused():
    stage = tiny_stage("grpo")
    with pytest.raises(ValueError, match=r"kl_weight is 0\.1, but CompactRestorer has no adapter"):
        RestorerGRPO(stage.restorer, stage.reasoner, stage.loss, kl_weight=0.1)


def test_the_table_of_photos_has_the_reward_and_the_second_judge(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(3):
        crop = Image.open(shipped_photos("train")[0].path).crop((90 * i, 40, 90 * i + 40, 80))
        crop.save(tmp_path / "photos" / f"{i}.png")
    stage, restored, given = opinionated(tiny_stage("grpo")), [], []
    plain = stage.restorer.restore

    def restore(degraded, *others):
        given.append(degraded)
        restored.append(plain(degraded, *others))
        return restored[-1]

    stage.restorer.restore = restore
    tiny_trainer(tmp_path).test(stage, tiny_data(sources=Sources(test=[str(tmp_path / "photos")])), verbose=False)
    with (tmp_path / "test.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["photo"])
    images = torch.cat(restored)
    assert [float(row["noise"]) for row in rows] == pytest.approx(look(images).noise.tolist(), abs=2e-3)
    before, after = (400 * torch.cat(each).mean(dim=(1, 2, 3)) for each in (given, restored))
    assert [float(row["reward"]) for row in rows] == pytest.approx((before - after).tolist(), abs=1.0)


def test_to_leave_a_photo_as_it_is_is_worth_nothing(tmp_path):
    stage = opinionated(tiny_stage("grpo"))

    def unchanged(images, given, seeds, group):
        return images.unsqueeze(1).repeat(1, group, 1, 1, 1).requires_grad_()

    stage.restorer.rollout = unchanged
    rewards, plain = [], stage.reward
    stage.reward = lambda *arguments: rewards.append(plain(*arguments)) or rewards[-1]
    tiny_trainer(tmp_path, steps=1).fit(stage, tiny_data())
    assert rewards[0].total.abs().max() < 1e-4


def test_a_candidate_that_is_no_number_stops_the_run_before_anyone_looks_at_it(tmp_path):
    stage = tiny_stage("grpo")
    stage.reasoner.examine = lambda images, fields=None, lean=None: [EXAMINED] * len(images)
    plain = stage.restorer.rollout
    stage.restorer.rollout = lambda *given: plain(*given) * float("nan")
    with pytest.raises(FloatingPointError, match="a candidate is not finite at step 0"):
        tiny_trainer(tmp_path).fit(stage, tiny_data())


def test_photos_too_small_for_the_second_judge_are_tested_like_any_other(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (2, 2), (90, 140, 60)).save(tmp_path / "photos/two.png")
    stage = opinionated(tiny_stage("grpo"))
    tiny_trainer(tmp_path).test(stage, tiny_data(sources=Sources(test=[str(tmp_path / "photos")])), verbose=False)
    with (tmp_path / "test.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["haze"]) >= 0 and float(row["psnr"]) > 0 and row["noise"] == row["sharpness"] == "nan"
