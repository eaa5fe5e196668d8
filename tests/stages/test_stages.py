"""Each stage trains, leaves weights that the next one starts from, and evaluates the same way twice."""

import copy
import csv
import dataclasses
import re

import numpy as np
import pytest
import torch
from lightning import Callback
from PIL import Image
from safetensors.torch import load_file
from tiny_stages import opinionated, tiny_data, tiny_restorer, tiny_stage, tiny_trainer

from rnr.data.batch import DegradedBatch
from rnr.data.datamodule import Sources, degrade
from rnr.data.photos import shipped_photos
from rnr.diagnosis import Diagnosis, Fog, Noise, ParseFailure
from rnr.models.compact import CompactRestorer
from rnr.models.qwen3vl import Qwen3VLReasoner, SmallReasoner
from rnr.models.views import Views
from rnr.stages import ReasonerSFT, RestorerSFT
from rnr.stages.callbacks import KeepCheckpoint, SaveWeights
from rnr.stages.checkpoints import CheckpointError
from rnr.stages.conditioning import Conditioning
from rnr.stages.evaluation import COST
from rnr.stages.optimizer import Schedule

STAGES = ("reasoner_sft", "restorer_sft", "grpo")


@pytest.fixture
def photos(tmp_path) -> Sources:
    """Test photos of two sizes, small enough to be quick."""
    (tmp_path / "photos").mkdir()
    for i, size in enumerate([(48, 40), (48, 40), (40, 56), (48, 40)]):
        pixels = Image.open(shipped_photos("train")[0].path).crop((90 * i, 40, 90 * i + size[0], 40 + size[1]))
        pixels.save(tmp_path / "photos" / f"{i}.png")
    return Sources(test=[str(tmp_path / "photos")])


@pytest.mark.parametrize("name", STAGES)
def test_training_changes_the_trained_model_alone_and_saves_it(name, tmp_path):
    stage = tiny_stage(name)
    frozen = None if name == "reasoner_sft" else {k: v.clone() for k, v in stage.reasoner.state_dict().items()}
    before = {k: v.clone() for k, v in stage.state_dict().items()}
    if name == "grpo":
        opinionated(stage)
    trainer = tiny_trainer(tmp_path)
    trainer.fit(stage, tiny_data())
    assert trainer.global_step == 3
    assert any(not torch.equal(before[k], v) for k, v in stage.state_dict().items())
    if frozen is not None:
        assert not any(k.startswith("judge") for k in stage.state_dict()), "the frozen reasoner is not saved again"
        assert all(torch.equal(frozen[k], v) for k, v in stage.reasoner.state_dict().items())
    assert load_file(tmp_path / "weights" / "model.safetensors")
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert not list(tmp_path.glob("weights.*")), "nothing half-written is left"


def test_each_stage_starts_from_what_the_one_before_left(tmp_path):
    tiny_trainer(tmp_path / "1").fit(tiny_stage("reasoner_sft"), tiny_data())
    reasoner = str(tmp_path / "1" / "weights")
    tiny_trainer(tmp_path / "2").fit(tiny_stage("restorer_sft", reasoner), tiny_data())
    restorer = str(tmp_path / "2" / "weights")
    stage = tiny_stage("grpo", reasoner, restorer)
    left = load_file(tmp_path / "2" / "weights" / "model.safetensors")
    assert all(torch.equal(left[k], v) for k, v in stage.restorer.state_dict().items())
    tiny_trainer(tmp_path / "3", steps=1).fit(stage, tiny_data())
    CompactRestorer(checkpoint=str(tmp_path / "3" / "weights"))


def test_training_lowers_the_restorers_loss_on_the_same_photos(tmp_path):
    torch.manual_seed(0)
    stage = RestorerSFT(tiny_restorer(), None, Conditioning(none=0, drop=0, jitter=0), Schedule(3e-3, warmup=1))
    data = tiny_data(batch_size=8, visits=60)
    data.setup("fit")
    clean = next(iter(data.train_dataloader()))
    batch = degrade(clean.photo / 255, clean, data.degrader, [None] * 8, [""] * 8)

    def loss() -> float:
        with torch.no_grad():
            return stage.restorer.loss(batch.degraded, batch.clean, batch.truth, torch.Generator()).item()

    before = loss()
    tiny_trainer(tmp_path, steps=40).fit(stage, data)
    assert loss() < 0.995 * before


@pytest.mark.parametrize("name", STAGES)
def test_a_second_test_run_and_another_batch_size_give_the_same_table(name, tmp_path, photos):
    tables = []
    for i, batch in enumerate((1, 1, 3)):
        trainer = tiny_trainer(tmp_path / str(i))
        trainer.test(tiny_stage(name), tiny_data(eval_batch_size=batch, sources=photos), verbose=False)
        text = (tmp_path / str(i) / "test.md").read_text()
        tables.append(text.split(f"## {COST}")[0])
        assert COST in text, "which differs from run to run"
    assert tables[0] == tables[1] == tables[2]
    assert "always-yes" in tables[0] and "input" in tables[0]


def test_the_table_states_what_the_photos_say(tmp_path, photos):
    stage = RestorerSFT(tiny_restorer(), None)
    tiny_trainer(tmp_path).test(stage, tiny_data(sources=photos), verbose=False)
    with (tmp_path / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    gains = [float(row["psnr"]) - float(row["input_psnr"]) for row in rows]
    gain = re.search(r"\| gain \| ([+-][\d.]+) \[", (tmp_path / "test.md").read_text())
    assert float(gain[1]) == pytest.approx(sum(gains) / len(gains), abs=0.006)
    assert len(rows) == 4


def test_batches_of_one_step_draw_anew_and_again_the_same(tmp_path):
    def drawn(folder, steps, together):
        stage, numbers = RestorerSFT(tiny_restorer(), None), []
        plain = stage.generator
        stage.generator = lambda index: numbers.append(torch.rand((), generator=plain(index)).item()) or plain(index)
        tiny_trainer(folder, steps, accumulate_grad_batches=together).fit(stage, tiny_data())
        return numbers

    alone = drawn(tmp_path / "alone", 4, 1)
    together = drawn(tmp_path / "together", 2, 2)
    assert len(set(together)) == 4 and together == alone


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_weights(tmp_path):
    stage = RestorerSFT(tiny_restorer(), None)
    before = {k: v.clone() for k, v in stage.state_dict().items()}
    stage.restorer.loss = lambda *a: next(stage.restorer.parameters()).sum() * float("nan")
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        tiny_trainer(tmp_path).fit(stage, tiny_data())
    assert all(torch.equal(before[k], v) for k, v in stage.state_dict().items())


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_clipped_into_every_weight(tmp_path):
    stage = RestorerSFT(tiny_restorer(), None)
    poisoned = list(stage.restorer.parameters())[-1]
    poisoned.register_hook(lambda gradient: gradient * (float("nan") if stage.global_step == 1 else 1))
    with pytest.raises(
        FloatingPointError, match="a gradient is not finite at step 1; weights are those of the step before"
    ):
        tiny_trainer(tmp_path, gradient_clip_val=1.0).fit(stage, tiny_data())
    assert stage.global_step == 1 and not torch.backends.cuda.cudnn_sdp_enabled()
    assert all(value.isfinite().all() for value in stage.state_dict().values())


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    tiny_trainer(tmp_path / "1", steps=1).fit(tiny_stage("restorer_sft"), tiny_data())
    other = tmp_path / "1/checkpoints/last.ckpt"
    with pytest.raises(CheckpointError, match=r"that of another model: \d+ names differ, such as "):
        tiny_trainer(tmp_path / "2").fit(tiny_stage("reasoner_sft"), tiny_data(), ckpt_path=other)


def test_a_run_that_a_validation_ends_leaves_its_last_state(tmp_path):
    class Enough(Callback):
        def on_validation_end(self, trainer, pl_module):
            trainer.should_stop = True

    settings = {"limit_val_batches": 1, "num_sanity_val_steps": 0}
    trainer = tiny_trainer(tmp_path, 50, callbacks=[Enough(), SaveWeights(), KeepCheckpoint()], **settings)
    trainer.fit(tiny_stage("restorer_sft"), tiny_data(visits=2))
    assert trainer.global_step == torch.load(tmp_path / "checkpoints/last.ckpt")["global_step"] == 3


def test_a_checkpoint_holds_what_is_trained_and_no_more(tmp_path):
    def adapted():
        small = SmallReasoner(vision_depth=1, vision_width=64, patch=8, text_depth=1, text_width=64, vocab_size=400)
        return ReasonerSFT(Qwen3VLReasoner(small=small, views=Views(size=32, tiles=1), lora_rank=2))

    torch.manual_seed(0)
    tiny_trainer(tmp_path, steps=1).fit(first := adapted(), tiny_data())
    held = torch.load(tmp_path / "checkpoints/last.ckpt")["state_dict"]
    assert {n for n, p in first.named_parameters() if p.requires_grad} == {n for n in held if ".lora_" in n} == held.keys()
    torch.manual_seed(0)  # as a checkpoint of weights would be loaded again
    trainer = tiny_trainer(tmp_path, steps=1)
    trainer.fit(second := adapted(), tiny_data(), ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_training_in_bfloat16_leaves_the_angles_of_positions_exact():
    stage = tiny_stage("reasoner_sft")
    before = {name: buffer.clone() for name, buffer in stage.named_buffers() if name.endswith("inv_freq")}
    stage.to(torch.bfloat16)
    assert before and all(torch.equal(buffer, stage.get_buffer(name)) for name, buffer in before.items())
    assert all(parameter.dtype == torch.bfloat16 for parameter in stage.parameters())


def test_predict_writes_a_photo_and_a_name_for_each(tmp_path):
    tiny_trainer(tmp_path).predict(RestorerSFT(tiny_restorer(), None), tiny_data(eval_batch_size=1))
    written = sorted(p.name for p in (tmp_path / "predictions").iterdir())
    assert written == ["camera.png", "motorcycle_left.png"]


def test_predictions_of_grey_photos_are_grey(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)).save(tmp_path / "in/grey.png")
    stage = RestorerSFT(tiny_restorer(), None)
    torch.nn.init.normal_(stage.restorer.network.head.weight, std=0.3)
    data = tiny_data(eval_batch_size=1, sources=Sources(predict=str(tmp_path / "in")))
    tiny_trainer(tmp_path).predict(stage, data)
    pixels = np.asarray(Image.open(tmp_path / "predictions/grey.png")).astype(int)
    assert np.ptp(pixels, axis=2).max() == 0


def test_diagnoses_of_nobody_are_refused():
    with pytest.raises(ValueError, match=r"conditioning.predicted is 0.5, but there is no reasoner"):
        RestorerSFT(tiny_restorer(), None, Conditioning(predicted=0.5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_of_too_few_digits_are_warned_of(dtype, tmp_path, recwarn):
    stage = tiny_stage("restorer_sft")
    stage.restorer.network.head.to(dtype)
    tiny_trainer(tmp_path, steps=0).fit(stage, tiny_data())
    assert any("trained in torch.bfloat16" in str(each.message) for each in recwarn) == (dtype == torch.bfloat16)


def test_a_moving_average_keeps_the_one_frozen_reasoner():
    stage = tiny_stage("restorer_sft")
    assert copy.deepcopy(stage).judge is stage.judge


def test_a_group_of_one_is_refused():
    stage = tiny_stage("grpo")
    with pytest.raises(ValueError, match="group must be at least 2, got 1"):
        type(stage)(stage.restorer, stage.reasoner, stage.loss, group=1)


def batch_of(truth: list[Diagnosis]) -> DegradedBatch:
    images = torch.zeros(len(truth), 3, 16, 16)
    return DegradedBatch(images, images, truth, list(range(len(truth))), [str(i) for i in range(len(truth))])


TRUTH = [Diagnosis(Fog(50, (0.8, 0.8, 0.8), 0.5), noise=Noise(20, 0.1, 5), scene="A red door.")] * 200


def test_conditioning_withholds_as_often_as_it_says():
    given = Conditioning(none=0.3, drop=0, jitter=0).train(batch_of(TRUTH), None, torch.Generator().manual_seed(0))
    assert sum(d is None for d in given) == pytest.approx(60, abs=20)
    assert all(d == TRUTH[0] for d in given if d is not None)
    given = Conditioning(none=0, drop=0.5, jitter=0).train(batch_of(TRUTH), None, torch.Generator().manual_seed(0))
    assert sum(d.fog is None or d.noise is None for d in given) == pytest.approx(100, abs=25)


def test_conditioning_states_only_its_fields():
    fields = ("presence", "parameters")
    given = Conditioning(fields=fields, jitter=0).train(batch_of(TRUTH), None, torch.Generator())
    stated = [d for d in given if d is not None]
    assert all(d.scene is None and all(d[k] is None or d[k].severity is None for k in ("fog", "noise")) for d in stated)
    assert stated[0].fog.transmission == 0.5


@pytest.mark.parametrize("predicted", [0, 1])
def test_without_fields_a_restorer_is_blind_and_no_reasoner_is_asked(predicted):
    blind = Conditioning(fields=[], predicted=predicted)
    assert blind.train(batch_of(TRUTH[:3]), object(), torch.Generator()) == [None] * 3
    assert blind.keep(TRUTH[:2]) == [None] * 2


@pytest.mark.parametrize("predicted", [0, 1], ids=["the truth", "the reasoner's word"])
def test_conditioning_withholds_each_field_by_itself(predicted):
    class Says:
        def diagnose(self, images, fields, lean):
            return [TRUTH[0]] * len(images)

    conditioning = Conditioning(predicted=predicted, none=0, drop=0, jitter=0, withhold=0.3)
    given = conditioning.train(batch_of(TRUTH), Says(), torch.Generator().manual_seed(0))
    assert all(d.fog is not None and d.noise is not None for d in given)
    lost = {(d.fog.severity is None, d.fog.transmission is None, d.scene is None) for d in given}
    assert len(lost) == 8
    for losses in zip(*((d.fog.severity, d.noise.k, d.scene) for d in given), strict=True):
        assert sum(each is None for each in losses) == pytest.approx(60, abs=20)


def test_conditioning_takes_the_reasoners_word():
    class Says:
        def diagnose(self, images, fields, lean):
            assert lean is None
            return [ParseFailure("?", "nonsense"), Diagnosis()]

    conditioning = Conditioning(predicted=1)
    assert conditioning.train(batch_of(TRUTH[:2]), Says(), torch.Generator()) == [None, Diagnosis()]


def test_conditioning_doubts_what_the_reasoner_finds():
    leans = []

    class Doubted:
        def diagnose(self, images, fields, lean):
            leans.append(lean)
            return [Diagnosis()] * len(images)

    conditioning, batch = Conditioning(predicted=1, doubt=2), batch_of(TRUTH)
    for seed in (0, 0, 1):
        conditioning.train(batch, Doubted(), torch.Generator().manual_seed(seed))
    assert leans[0].shape == (200, 4)
    assert leans[0].std() == pytest.approx(2, rel=0.1) and abs(leans[0].mean()) < 0.3
    assert leans[0].equal(leans[1]) and not leans[0].equal(leans[2])


@pytest.mark.parametrize(
    "change", [{"fields": ("severity",)}, {"fields": ("presence", "mood")}, {"none": 1.5}, {"withhold": 2}, {"doubt": -1.0}]
)
def test_conditioning_refuses_nonsense(change):
    with pytest.raises(ValueError):
        dataclasses.replace(Conditioning(), **change)
