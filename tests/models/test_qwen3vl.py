import dataclasses
import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import scipy.fft
import torch
from peft import PeftModel
from PIL import Image
from transformers import Qwen2Tokenizer, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from rnr.diagnosis import FIELDS, KINDS, Diagnosis, Fog, Noise, ParseFailure, Rain, Shake, parse, render
from rnr.diagnosis.afar import completed
from rnr.diagnosis.consensus import consensus, mirrored
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.prompt import FULL, SHORT
from rnr.diagnosis.vector import encode
from rnr.models.estimates import Calibration
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.small_reasoner import SmallReasoner, cosine_filters
from rnr.models.tokenizer import CHAT_TEMPLATE, END_OF_TURN
from rnr.models.views import Views, crop, look

TINY = SmallReasoner(vision_depth=2, vision_width=64, patch=8, text_depth=2, text_width=64, vocab_size=800)
VIEWS = Views(size=32, tiles=1)

TRUTH = [
    Diagnosis(fog=Fog(55.9, (0.86, 0.91, 0.79), 0.43), scene="A red bus before a brick building."),
    Diagnosis(scene="A dog on grass."),
    Diagnosis(
        shake=Shake(20.5, 35, 2.8, 0.21),
        rain=Rain(12.4, 0.002, -12, 21, 1.5, 0.6, (0.9, 0.9, 0.9)),
        noise=Noise(31.0, 0.12, 5.0),
    ),
]


def photos(count, height=40, width=48, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def tiny(**arguments):
    torch.manual_seed(0)
    return Qwen3VLReasoner(small=TINY, views=VIEWS, **arguments)


def said(reasoner, images, fields=FIELDS):
    """The greedy text, as a diagnosis."""
    answers = reasoner.write(images, [partial(reasoner.form.write, fields)] * len(images))
    return [parse(reasoner.tokenizer.decode(answer.tokens).removesuffix(END_OF_TURN)) for answer in answers]


def off(found, truth):
    """The mean difference between diagnoses, as numbers of about unit size."""
    like = torch.zeros(())
    return (encode(found, like) - encode(truth, like)).abs().mean().item()


@pytest.fixture(scope="module")
def learned():
    """A reasoner that knows TRUTH by heart, and the loss of each step on the way there."""
    reasoner, images = tiny(), photos(3)
    optimizer = torch.optim.AdamW(reasoner.parameters(), lr=2e-3)
    losses = []
    for _ in range(150):
        loss = reasoner.loss(images, TRUTH)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reasoner.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < 0.01:
            break
    return reasoner, losses


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A folder as the public checkpoints are: transformers' files and nothing of ours."""
    folder = tmp_path_factory.mktemp("public")
    tokenizer = tiny().tokenizer
    config = dataclasses.replace(TINY, patch=16).config(tokenizer, view_size=64)
    config.vision_config.temporal_patch_size = 2
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_learns_by_heart_and_says_it_word_for_word(learned):
    reasoner, losses = learned
    assert losses[-1] < 0.05 < 3 < losses[0]
    assert said(reasoner, photos(3)) == TRUTH
    # Numbers are expectations: what little chance is left to other digits moves them a little.
    assert off(reasoner.diagnose(photos(3)), TRUTH) < 0.01


def test_an_examination_says_how_sure_it_is(learned):
    for examined, truth in zip(learned[0].examine(photos(3)), TRUTH, strict=True):
        for kind in KINDS:
            assert (examined.presence[kind] > 0.98) == (truth[kind] is not None)
            assert (examined.presence[kind] < 0.02) == (truth[kind] is None)
            if truth[kind] is not None:
                low, high = examined.intervals[kind]["severity"][0]
                assert low - 0.1 < truth[kind].severity < high + 0.1 < low + 5
                assert examined.diagnosis[kind].chance == round(examined.presence[kind], 4)


def test_what_it_leans_to_counts_as_odds(learned):
    reasoner, images = learned[0], photos(3)
    lean = torch.tensor([0.5, -0.4, 0.3, -0.2]).repeat(3, 1)
    before, after = reasoner.examine(images), reasoner.examine(images, lean=lean)
    assert [render(each.diagnosis) for each in after] == [render(each.diagnosis) for each in before]
    odds = [torch.tensor([list(each.presence.values()) for each in found]).logit() for found in (before, after)]
    torch.testing.assert_close(odds[1] - odds[0], lean, atol=0.02, rtol=0)


@pytest.mark.parametrize("towards", [-50.0, 50.0])
def test_who_leans_far_enough_finds_all_or_nothing(learned, towards):
    lean = torch.zeros(3, 4)
    lean[1] = towards
    found, as_ever = (learned[0].diagnose(photos(3), lean=each) for each in (lean, None))
    assert [found[0], found[2]] == [as_ever[0], as_ever[2]], "the other photos keep theirs"
    for kind in KINDS:
        assert (found[1][kind] is not None) == (towards > 0)
        if towards > 0:
            assert found[1][kind].severity >= 1 and found[1][kind].chance > 0.99


@pytest.mark.parametrize(
    "fields", [("presence",), ("presence", "severity"), ("presence", "parameters"), FIELDS[:3], ("presence", "scene")]
)
def test_says_what_it_is_asked_and_stops_there(learned, fields):
    reasoner, _ = learned
    assert [answer.keep(fields) for answer in said(reasoner, photos(3), fields)] == [t.keep(fields) for t in TRUTH]
    assert off(reasoner.diagnose(photos(3), fields), [truth.keep(fields) for truth in TRUTH]) < 0.01
    lines = render(TRUTH[0], FIELDS[: FIELDS.index(fields[-1]) + 1])
    end = END_OF_TURN * ("scene" in fields)
    [answer] = reasoner.write(photos(3)[:1], [partial(reasoner.form.write, fields)])
    assert reasoner.tokenizer.decode(answer.tokens) == lines + end


class Replay:
    """The form as transformers' own generation knows grammars: which tokens may follow these."""

    def __init__(self, form, fields, start):
        self.form, self.fields, self.start = form, fields, start

    def __call__(self, row, ids):
        script, done = self.form.write(self.fields), ids[self.start :].tolist()
        try:
            choice = next(script)
            while True:
                fixed = choice.feed
                if len(done) < len(fixed):
                    return [fixed[len(done)]]
                if len(done) == len(fixed):
                    return choice.allowed.tolist()
                token, done = done[len(fixed)], done[len(fixed) + 1 :]
                choice = script.send(token)
        except StopIteration as stop:
            return [*stop.value, self.form.end][len(done) : len(done) + 1] or [self.form.end]


def plainly(reasoner, images, fields):
    """What transformers writes token by token, held to the form; whatever follows its end is left."""
    prompt = reasoner._prompt(images)
    start = prompt["input_ids"].shape[1]
    plain = reasoner.model.generate(
        **prompt,
        attention_mask=torch.ones_like(prompt["input_ids"]),
        prefix_allowed_tokens_fn=Replay(reasoner.form, fields, start),
        do_sample=False,
        max_new_tokens=400,
        eos_token_id=reasoner.form.end,
        pad_token_id=reasoner.tokenizer.pad_token_id,
    )
    return plain[:, start:].tolist()


def assert_same_tokens(reasoner, answers, plain):
    for answer, ids in zip(answers, plain, strict=True):
        assert ids[: len(answer.tokens)] == answer.tokens
        assert set(ids[len(answer.tokens) :]) <= {reasoner.form.end, reasoner.tokenizer.pad_token_id}


@pytest.mark.parametrize("fields", [("presence", "severity"), FIELDS[:3], FIELDS])
@pytest.mark.parametrize("trained", [True, False])
def test_writing_equals_plain_greedy_decoding_under_the_same_grammar(learned, fields, trained):
    reasoner = learned[0] if trained else tiny()
    images = photos(3)
    answers = reasoner.write(images, [partial(reasoner.form.write, fields)] * len(images))
    assert_same_tokens(reasoner, answers, plainly(reasoner, images, fields))


def test_severities_are_those_of_the_text_up_to_what_is_not_sure(learned):
    expected = torch.tensor([truth.severities for truth in TRUTH])
    found = learned[0].severities(photos(3))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.5)
    assert len(found.unique()) == found.numel(), "continuous: no ties"


def test_an_answer_does_not_depend_on_the_batch(learned):
    reasoner, images = learned[0], photos(3)
    together = reasoner.diagnose(images)
    others = [reasoner.diagnose(image.unsqueeze(0))[0] for image in images], reasoner.diagnose(images.flip(0))[::-1]
    for other in others:
        assert [render(each) for each in other] == [render(each) for each in together]
        assert encode(other, images).allclose(encode(together, images), atol=1e-5)
    alone = torch.stack([reasoner.loss(images[i : i + 1], TRUTH[i : i + 1]) for i in range(3)])
    lengths = torch.tensor([len(reasoner.tokenizer(render(truth)).input_ids) + 1 for truth in TRUTH])
    torch.testing.assert_close((alone * lengths).sum() / lengths.sum(), reasoner.loss(images, TRUTH))


def test_loss_is_transformers_own_with_labels_on_the_answer_alone():
    reasoner, images = tiny(), photos(3)
    prompt = reasoner._prompt(images)
    answers = [reasoner.tokenizer(render(truth) + END_OF_TURN).input_ids for truth in TRUTH]
    length = max(map(len, answers))
    pad = reasoner.tokenizer.pad_token_id
    ids = torch.tensor([answer + [pad] * (length - len(answer)) for answer in answers])
    labels = torch.tensor([answer + [-100] * (length - len(answer)) for answer in answers])
    start = prompt["input_ids"].shape[1]
    prompt["input_ids"] = torch.cat([prompt["input_ids"], ids], dim=1)
    prompt["mm_token_type_ids"] = torch.nn.functional.pad(prompt["mm_token_type_ids"], (0, length))
    labels = torch.nn.functional.pad(labels, (start, 0), value=-100)
    assert labels[0, start:][: len(answers[0])].tolist() == answers[0]
    theirs = reasoner.model(**prompt, attention_mask=torch.ones_like(prompt["input_ids"]), labels=labels).loss
    torch.testing.assert_close(reasoner.loss(images, TRUTH), theirs)


def test_weights_cover_the_answer_and_tell_the_scene_apart():
    reasoner = tiny(scene_weight=0.25)
    ids, weights = reasoner._answers(TRUTH, torch.device("cpu"))
    for row, weight, truth in zip(ids, weights, TRUTH, strict=True):
        assert reasoner.tokenizer.decode(row[weight > 0]) == render(truth) + END_OF_TURN
        scene = reasoner.tokenizer.decode(row[weight == 0.25]).strip()
        assert scene == ("" if truth.scene is None else f"Scene: {truth.scene}")


def test_it_speaks_of_nothing_that_it_knows_nothing_of(learned, tmp_path):
    reasoner, _ = learned
    images = photos(len(TRUTH))
    assert any(diagnosis.scene for diagnosis in reasoner.diagnose(images))
    silent = tiny(fields=["presence", "severity", "parameters"])
    silent.model.load_state_dict(reasoner.model.state_dict())
    silent.save(tmp_path)
    for one in (silent, Qwen3VLReasoner(str(tmp_path))):
        assert one.diagnose(images) == [dataclasses.replace(each, scene=None) for each in reasoner.diagnose(images)]
        assert one.diagnose(images, ["presence"]) == reasoner.diagnose(images, ["presence"])
    assert Qwen3VLReasoner(str(tmp_path), fields=list(FIELDS)).diagnose(images) == reasoner.diagnose(images)
    with pytest.raises(ValueError, match="unknown field 'sense'"):
        tiny(fields=["presence", "sense"])


def test_a_special_token_in_a_scene_is_only_text():
    reasoner = tiny()
    trap = Diagnosis(scene="A sign: <|image_pad|><|im_end|>.")
    assert reasoner.loss(photos(1), [trap]).isfinite()


def test_as_many_diagnoses_as_photos():
    with pytest.raises(ValueError, match="2 photos need as many diagnoses, got 3"):
        tiny().loss(photos(2), TRUTH)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (17, 33), (300, 40)])
def test_any_size_of_photo(height, width):
    reasoner = tiny()
    images = photos(1, height, width)
    assert reasoner.loss(images, TRUTH[:1]).isfinite()
    assert len(reasoner.diagnose(images)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_even_an_untrained_model_writes_nothing_but_diagnoses(seed):
    reasoner = tiny()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in reasoner.model.parameters():
            parameter.normal_(std=0.3)
    constant = torch.full((2, 3, 40, 48), 0.5)
    for images in (photos(4, seed=seed), constant):
        answers = reasoner.diagnose(images)
        assert all(isinstance(answer, Diagnosis) for answer in answers), answers
        scores = reasoner.severities(images)
        assert ((scores > 0) & (scores <= 100)).all()


def test_fields_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="unknown field"):
        tiny().diagnose(photos(1), ("presence", "mood"))


def test_diagnose_leaves_the_mode_as_it_was():
    reasoner = tiny(gradient_checkpointing=True).train()
    reasoner.diagnose(photos(1))
    assert reasoner.model.training


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        reasoner = tiny(gradient_checkpointing=checkpointing).train()
        reasoner.loss(photos(2), TRUTH[:2]).backward()
        gradients.append([p.grad for p in reasoner.parameters()])
    assert all(gradient is not None for gradient in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradient_checkpointing_counts_for_a_checkpoint_too(tmp_path):
    tiny().save(tmp_path)
    reasoner = Qwen3VLReasoner(checkpoint=str(tmp_path), gradient_checkpointing=True)
    runs = []
    layer = reasoner.model.model.language_model.layers[0]
    layer.self_attn.register_forward_hook(lambda *_: runs.append(1))
    reasoner.loss(photos(2), TRUTH[:2]).backward()
    assert len(runs) == 2, "once forward, once more on the way back"


def test_where_no_answer_is_written_only_what_looks_is_trained():
    reasoner = tiny(answer_weight=0.0, probe_weight=1.0)
    reasoner.loss(photos(2), TRUTH[:2]).backward()
    for name, parameter in reasoner.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_saves_and_reloads_the_same(learned, tmp_path):
    reasoner, images = learned[0], photos(3)
    reasoner.save(tmp_path)
    loaded = Qwen3VLReasoner(checkpoint=str(tmp_path))
    assert (loaded.views, loaded.prompt) == (VIEWS, SHORT)
    assert torch.equal(loaded.loss(images, TRUTH), reasoner.loss(images, TRUTH))
    assert loaded.diagnose(images) == reasoner.diagnose(images)
    assert (tmp_path / "model.safetensors").exists()
    assert json.loads((tmp_path / "reasoner.json").read_text())["views"]["size"] == 32


def test_calibration_says_how_sure_it_is_and_changes_nothing_that_is_said(learned, tmp_path):
    learned[0].save(tmp_path)
    images, loaded = photos(3), Qwen3VLReasoner(checkpoint=str(tmp_path))
    assert loaded.calibration == Calibration()
    before = loaded.examine(images)
    margins = {"fog": {"severity": [1.0, 2.0, 3.0]}, "shake": {"severity": [0.0, 0.0, 400.0], "direction": [0.0, 0.0, 400.0]}}
    loaded.calibration = Calibration(dict.fromkeys(KINDS, 2.0), margins | {"noise": {"severity": [-50.0] * 3}})
    loaded.save(tmp_path)
    after = Qwen3VLReasoner(checkpoint=str(tmp_path)).examine(images)
    assert [render(examined.diagnosis) for examined in after] == [render(examined.diagnosis) for examined in before]
    for old, new in zip(before, after, strict=True):
        for kind in KINDS:
            odds = [math.log(at.presence[kind] / (1 - at.presence[kind])) for at in (old, new)]
            assert odds[1] == pytest.approx(odds[0] / 2, rel=0.02)
        assert new.intervals.get("rain") == old.intervals.get("rain")
        for kind in old.intervals.keys() - {"rain"}:
            (low, high), (lower, higher) = (at.intervals[kind]["severity"][0] for at in (old, new))
            middle = (low + high) / 2
            wanted = {"fog": (max(low - 3, 1), min(high + 3, 100)), "shake": (1, 100), "noise": (middle, middle)}
            assert (lower, higher) == pytest.approx(wanted[kind])
        for (low, high), (lower, higher) in (
            [each.intervals["shake"]["direction"][0] for each in (old, new)] for _ in range("shake" in old.intervals)
        ):
            assert higher - lower == 180 and (lower + higher) / 2 == pytest.approx((low + high) / 2)
    assert {"fog", "shake", "noise"} <= {kind for each in before for kind in each.intervals}


def test_of_several_looks_the_consensus_is_said(learned, tmp_path):
    learned[0].save(tmp_path)
    images, once = photos(3), Qwen3VLReasoner(checkpoint=str(tmp_path))
    thrice = Qwen3VLReasoner(checkpoint=str(tmp_path), looks=3)
    first, second, third = (once.examine(look(images, number)) for number in (1, 2, 3))
    wanted = [consensus([a, mirrored(b), c]) for a, b, c in zip(first, second, third, strict=True)]
    said, (assessed, severities) = thrice.examine(images), thrice.assess(images)
    for each in (said, assessed):
        assert [render(one.diagnosis) for one in each] == [render(one.diagnosis) for one in wanted]
        assert [one.presence for one in each] == [pytest.approx(one.presence, abs=1e-3) for one in wanted]
    assert torch.equal(severities, once.severities(images)), "of one look at the whole photo"
    thrice.save(tmp_path / "thrice")
    assert Qwen3VLReasoner(checkpoint=str(tmp_path / "thrice")).looks == 3
    with pytest.raises(ValueError, match="looks must be at least 1, got 0"):
        Qwen3VLReasoner(checkpoint=str(tmp_path), looks=0)


def test_a_look_that_makes_no_sense_does_not_count(learned, monkeypatch):
    reasoner, images = learned[0], photos(2)
    plain = reasoner.weigh(images, looks=(1, 2))
    failure = ParseFailure("nonsense", "no diagnosis")
    monkeypatch.setattr(reasoner, "looks", 2)
    monkeypatch.setattr(reasoner, "weigh", lambda *_: [failure, plain[1], failure, plain[3]])
    first, second = reasoner.examine(images)
    assert first is failure and isinstance(second, Examination)


def shake(severity, direction=30.0):
    return Shake(severity, direction, severity / 5, 0.3) if severity else None


def seen(severity, direction=30.0, **others):
    chances = dict.fromkeys(KINDS, 0.3) | ({"shake": 0.95} if severity else {})
    return Examination(Diagnosis(shake=shake(severity, direction), **others), chances)


def test_where_no_shake_is_found_smaller_copies_are_asked_for_it(learned, monkeypatch):
    """Photos by what is seen of them, of their quarter, and of their half: shaken; never; in both copies; only in the
    quarter; in both, in other directions; an answer that does not parse."""
    reasoner, fog = learned[0], TRUTH[0].fog
    shown = {
        1: [seen(20), seen(0, fog=fog), seen(0, fog=fog), seen(0), seen(0), ParseFailure("?", "no form")],
        4: [seen(9), seen(0), seen(6), seen(30), seen(9, 90), seen(9)],
        2: [seen(9), seen(0), seen(11, scene="A dog."), seen(0), seen(15), seen(9)],
    }
    asked = []

    def examined(images, fields, lean):
        times = round(300 / images.shape[-2])
        rows = (images[:, 0, 0, 0] * 10).round().long().tolist()
        asked.append((times, rows, tuple(fields), None if lean is None else lean[:, 0].tolist()))
        return [shown[times][row] for row in rows]

    monkeypatch.setattr(reasoner, "_examined", examined)
    images = (torch.arange(6) / 10).view(6, 1, 1, 1).expand(6, 3, 300, 400)
    assert reasoner.examine(images) == shown[1], "it does so only where it is to"
    monkeypatch.setattr(reasoner, "afar", True)
    asked.clear()
    found = reasoner.examine(images, FIELDS, torch.arange(6.0).view(6, 1).expand(6, 4))
    assert asked == [
        (1, [0, 1, 2, 3, 4, 5], FIELDS, [0, 1, 2, 3, 4, 5]),
        (4, [1, 2, 3, 4], FIELDS[:3], [1, 2, 3, 4]),
        (2, [2, 3, 4], FIELDS[:3], [2, 3, 4]),
    ]
    assert found[2] == completed(shown[1][2], shown[2][2])
    added = Shake(21.0, 30.0, 4.4, 0.212, chance=0.95)
    assert found[2].diagnosis == Diagnosis(fog=dataclasses.replace(fog, chance=0.3), shake=added)
    assert [found[row] == shown[1][row] for row in range(6)] == [True, True, False, True, True, True]
    assert reasoner.examine(images[2:3], ["presence"])[0].diagnosis.shake == Shake(None, None, None, None, chance=0.95)
    asked.clear()
    reasoner.examine(images[..., :270, :])
    assert [times for times, *_ in asked] == [1], "smaller photos have no copies that show enough"


def test_whether_it_looks_from_afar_is_kept(learned, tmp_path):
    learned[0].save(tmp_path)
    assert not Qwen3VLReasoner(checkpoint=str(tmp_path)).afar
    Qwen3VLReasoner(checkpoint=str(tmp_path), afar=True).save(tmp_path / "afar")
    assert Qwen3VLReasoner(checkpoint=str(tmp_path / "afar")).afar
    assert not Qwen3VLReasoner(checkpoint=str(tmp_path / "afar"), afar=False).afar


def test_a_folder_from_before_there_was_a_calibration(learned, tmp_path):
    learned[0].save(tmp_path)
    settings = json.loads((tmp_path / "reasoner.json").read_text())
    del settings["calibration"]
    (tmp_path / "reasoner.json").write_text(json.dumps(settings))
    assert Qwen3VLReasoner(checkpoint=str(tmp_path)).calibration == Calibration()


def test_plain_transformers_reads_what_was_saved(learned, tmp_path):
    reasoner = learned[0]
    reasoner.save(tmp_path)
    model = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path)
    tokenizer = Qwen2Tokenizer.from_pretrained(tmp_path)
    prompt = reasoner._prompt(photos(1))
    tokens = model.generate(**prompt, max_new_tokens=200, do_sample=False)
    text = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == render(TRUTH[0])


HOMES = {
    "vision": ("model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks."),
    "merger": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
    "language": ("model.language_model.",),
}


@pytest.mark.parametrize("part", ["vision", "merger", "language"])
@pytest.mark.parametrize("rank", [None, 4])
def test_just_the_chosen_part_is_trained(part, rank):
    others = {f"train_{name}": name == part for name in ("vision", "merger", "language")}
    reasoner = tiny(**others, lora_rank=rank)
    trained = {name for name, p in reasoner.model.named_parameters() if p.requires_grad}
    if rank is None:
        assert trained == {name for name, _ in reasoner.model.named_parameters() if name.startswith(HOMES[part])}
    else:
        linear = {
            name.removesuffix(".base_layer.weight")
            for name, p in reasoner.model.named_parameters()
            if name.startswith(HOMES[part]) and name.endswith(".base_layer.weight")
        }
        layers = {"vision": 2 * 4, "merger": 2 * 2, "language": 2 * 7}  # blocks or mergers times their linear layers
        assert len(linear) == layers[part]
        assert trained == {f"{name}.lora_{ab}.default.weight" for name in linear for ab in "AB"}
    reasoner.loss(photos(1), TRUTH[:1]).backward()
    assert {name for name, p in reasoner.model.named_parameters() if p.grad is not None} == trained


def assert_read_by_others(reasoner, base, folder, *more):
    """peft on ``base``, transformers on what was saved to ``folder``, and ``more`` models say what ``reasoner`` does."""
    prompt = reasoner._prompt(photos(1, 64, 64))
    plain, onto = (Qwen3VLForConditionalGeneration.from_pretrained(base).eval() for _ in range(2))
    adapted = PeftModel.from_pretrained(onto, folder / "adapter").eval()
    whole = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        before, ours, *others = (model(**prompt).logits for model in (plain, reasoner.model, adapted, whole, *more))
    assert (ours - before).abs().max() > 0.05
    for logits in others:
        torch.testing.assert_close(logits, ours, atol=1e-4, rtol=0)


@pytest.mark.parametrize("part", ["vision", "merger", "language"])
def test_one_part_may_be_trained_in_full_beside_adapters_of_another(public, tmp_path, part):
    other = "vision" if part == "language" else "language"
    parts = {f"train_{name}": {part: "full", other: True}.get(name, False) for name in ("vision", "merger", "language")}
    reasoner = Qwen3VLReasoner(str(public), lora_rank=4, **parts).eval()
    trained = {name: p for name, p in reasoner.model.named_parameters() if p.requires_grad}
    full = {name for name, _ in reasoner.model.named_parameters() if name.startswith(HOMES[part])}
    adapters = trained.keys() - full
    assert full <= trained.keys() and len(adapters) == 2 * {"vision": 2 * 4, "language": 2 * 7}[other]
    assert all(name.startswith(HOMES[other]) and ".lora_" in name for name in adapters)
    for name, parameter in trained.items():
        if "lora_A" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    reasoner.save(tmp_path)
    assert_read_by_others(reasoner, public, tmp_path)


@pytest.mark.parametrize(
    ("how", "said"), [("full", "every part is trained in full: leave out lora_rank"), ("none", "got 'none'")]
)
def test_what_cannot_be_trained_so_is_refused(how, said):
    with pytest.raises(ValueError, match=said):
        tiny(train_vision=how, train_merger=how, train_language=how, lora_rank=4)


def test_what_was_loaded_in_half_precision_is_saved_so_whatever_it_was_trained_in(tmp_path):
    """FSDP2 trains in float32; the next stages hold the reasoner as it was saved."""
    tiny().to(torch.bfloat16).model.save_pretrained(tmp_path / "public")
    tiny().tokenizer.save_pretrained(tmp_path / "public")
    reasoner = Qwen3VLReasoner(str(tmp_path / "public"), views=VIEWS)
    assert reasoner.dtype == torch.bfloat16
    for parameter in reasoner.parameters():
        parameter.data = parameter.data.float()
    reasoner.save(tmp_path / "saved")
    again = Qwen3VLReasoner(str(tmp_path / "saved"))
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}


def test_adapters_start_at_nothing_and_are_merged_when_saved(tmp_path):
    images = photos(2)
    reasoner = tiny(lora_rank=4)
    torch.testing.assert_close(reasoner.loss(images, TRUTH[:2]), tiny().loss(images, TRUTH[:2]))
    for name, parameter in reasoner.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    reasoner.save(tmp_path)
    loaded = Qwen3VLReasoner(checkpoint=str(tmp_path))
    assert not any("lora" in name for name, _ in loaded.named_parameters())
    torch.testing.assert_close(loaded.loss(images, TRUTH[:2]), reasoner.loss(images, TRUTH[:2]))


def test_adapters_are_read_by_peft_and_by_transformers_alone(public, tmp_path):
    reasoner = Qwen3VLReasoner(str(public), lora_rank=4).eval()
    for name, parameter in reasoner.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    reasoner.save(tmp_path)
    again = Qwen3VLForConditionalGeneration.from_pretrained(public).eval()
    again.load_adapter(str(tmp_path / "adapter"))
    assert_read_by_others(reasoner, public, tmp_path, again)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == str(public)


def test_a_public_checkpoint_sees_the_photo_as_qwens_processor_shows_it(public):
    reasoner = Qwen3VLReasoner(str(public), views=Views(size=None, tiles=0, min_pixels=64**2, max_pixels=160**2))
    processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        size={"shortest_edge": 64**2, "longest_edge": 160**2},
    )
    # As it is; rounded to whole blocks; too large; too small, and smooth as photos are.
    for height, width in [(96, 128), (90, 131), (240, 200), (20, 31)]:
        coarse = torch.nn.functional.interpolate(photos(1, 5, 6), (height, width), mode="bicubic").clamp(0, 1)
        photo = (coarse * 255).round().to(torch.uint8)
        theirs = processor(images=[photo[0].permute(1, 2, 0).numpy()], return_tensors="pt")
        ours = reasoner._prompt(photo / 255)
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
        levels = 2 * 2 / 255  # theirs rounds to whole levels after each pass of the resize
        tolerance = 1e-6 if height % 32 == width % 32 == 0 else levels
        torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, "{{- '<|im_start|>system\nBe brief.<|im_end|>\n' -}}" + CHAT_TEMPLATE])
def test_a_public_checkpoint_is_asked_as_qwens_processor_asks(public, monkeypatch, template):
    """Ids, their kinds, patches and grid, by the chat template that the checkpoint brings along."""
    reasoner = Qwen3VLReasoner(str(public), prompt="What is wrong?")
    reasoner.tokenizer.chat_template = template
    # Its half for videos needs torchvision.
    monkeypatch.setattr(Qwen3VLProcessor, "check_argument_for_proper_class", lambda self, name, given: type(given))
    limits = {"shortest_edge": reasoner.views.min_pixels, "longest_edge": reasoner.views.max_pixels}
    images = Qwen2VLImageProcessorPil(
        patch_size=16, temporal_patch_size=2, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3, size=limits
    )
    processor = Qwen3VLProcessor(images, reasoner.tokenizer, SimpleNamespace(merge_size=2), template)
    photo = (photos(1, 320, 288) * 255).round() / 255
    picture = Image.fromarray((photo[0].permute(1, 2, 0) * 255).round().byte().numpy())
    question = [{"type": "image", "image": picture}, {"type": "text", "text": "What is wrong?"}]
    theirs = processor.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt",
    )  # fmt: skip
    ours = reasoner._prompt(photo)
    for name in ("input_ids", "mm_token_type_ids", "image_grid_thw"):
        assert ours[name].tolist() == theirs[name].tolist(), name
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=1e-6, rtol=0)


def test_a_public_checkpoint_gets_the_full_prompt(public):
    reasoner = Qwen3VLReasoner(str(public))
    assert (reasoner.prompt, reasoner.views) == (FULL, Views(size=None, tiles=0))
    ids = reasoner._prompt(photos(2, 100, 60))["input_ids"]
    assert FULL in reasoner.tokenizer.decode(ids[0]) and torch.equal(ids[0], ids[1])
    assert isinstance(reasoner.diagnose(photos(1, 100, 60))[0], Diagnosis)


def test_the_patch_embedding_starts_as_a_cosine_transform():
    filters = cosine_filters(8)
    patch = photos(1, 8, 8)[0]
    coefficients = torch.from_numpy(scipy.fft.dctn(patch.sum(0).numpy() / 3**0.5, norm="ortho"))
    frequency = torch.arange(8)[:, None] + torch.arange(8)
    grey = torch.einsum("nchw,chw->n", filters, patch)[[0, 3, 4]]  # behind the means of the three colours
    expected = (coefficients * (1 + frequency))[[0, 0, 1], [0, 1, 0]]
    torch.testing.assert_close(grey, expected.float())
    unit = torch.nn.functional.normalize(filters.flatten(1), dim=1)
    torch.testing.assert_close(unit @ unit.T, torch.eye(192), atol=1e-5, rtol=0)
    embedding = tiny().model.model.visual.patch_embed.proj.weight
    torch.testing.assert_close(embedding[:, :, 0], filters[: len(embedding)] / 4)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="text_width must be a multiple of 64, got 100"):
        SmallReasoner(text_width=100)
    with pytest.raises(ValueError, match="views of a fixed size"):
        Qwen3VLReasoner(small=TINY, views=Views(size=None, tiles=0))


def test_crops_are_exact_slices():
    images = photos(2, 60, 100)
    assert torch.equal(crop(images, 0.0, 32), images[..., :32, :32])
    assert torch.equal(crop(images, 1.0, 32), images[..., -32:, -32:])
    assert torch.equal(crop(images, 0.5, 32), images[..., 14:46, 34:66])
    views = Views(size=32, tiles=2).take(images, 16)
    assert views.shape == (2, 3, 3, 32, 32)
    assert torch.equal(views[:, 1], images[..., :32, 9:41]) and torch.equal(views[:, 2], images[..., 28:, 59:91])


def test_a_small_photo_is_continued_by_its_mirror_image():
    image = torch.arange(3.0).expand(1, 3, 1, 3)
    assert crop(image, 0.5, 8)[0, 0, 5].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    point = torch.full((1, 3, 1, 1), 0.3)
    assert torch.equal(Views(size=32, tiles=1).take(point, 16), point.expand(1, 2, 3, 32, 32))


def test_views_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="size must be at least 1"):
        Views(size=0)
    with pytest.raises(ValueError, match="tiles"):
        Views(size=None, tiles=2)
    with pytest.raises(ValueError, match="min_pixels <= max_pixels"):
        Views(min_pixels=10, max_pixels=5)
    with pytest.raises(ValueError, match="40 pixels do not divide into units of 16"):
        Views(size=40).take(photos(1), 16)
