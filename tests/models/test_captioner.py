import json

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from rnr.diagnosis.prompt import FULL
from rnr.models.captioner import QUESTION, Captioner, _assistant, _user, objection
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.small_reasoner import SmallReasoner
from rnr.models.tokenizer import IMAGE, train_tokenizer, vocabulary
from rnr.models.views import Views

GOOD, FOGGY, LONG = "A dog on grass.", "A dog in fog.", " ".join(f"w{i}" for i in range(35))
MANY_LINES = "A dog.\nA cat."


def photos(count, height=64, width=96):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def talkative(model):
    """Random weights so large that what the model says depends on all that it is told."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def save_qwen(folder):
    """A folder as the public Qwen3-VL are: the processors' settings in two files, one of them for videos."""
    tokenizer = train_tokenizer(vocabulary(), 800)
    small = SmallReasoner(vision_depth=2, vision_width=64, patch=16, text_depth=2, text_width=64)
    config = small.config(tokenizer, view_size=64)
    config.vision_config.temporal_patch_size = 2
    talkative(Qwen3VLForConditionalGeneration(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shared = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    shared |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for name, kind, sizes in (
        ("preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessorFast"}, (64**2, 160**2)),
        ("video_preprocessor_config.json", {"video_processor_type": "Qwen3VLVideoProcessor"}, (4096, 25165824)),
    ):
        size = {"shortest_edge": sizes[0], "longest_edge": sizes[1]}
        content = {**shared, **kind, "size": size, "processor_class": "Qwen3VLProcessor"}
        (folder / name).write_text(json.dumps(content))


def save_llava(folder):
    tokenizer = train_tokenizer(vocabulary(), 800)
    template = (
        "{% for m in messages %}{{ m.role }}: {% for p in m.content %}{% if p.type == 'image' %}" + IMAGE + "\n"
        "{% else %}{{ p.text }}{% endif %}{% endfor %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=32, patch_size=8),
        text_config=LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    talkative(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", image_token=IMAGE,
        num_additional_image_tokens=1, chat_template=template,
    ).save_pretrained(folder)  # fmt: skip


@pytest.fixture(scope="module", params=[save_qwen, save_llava])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    request.param(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(checkpoint):
    return Captioner(str(checkpoint))


class Script:
    """In the place of a model's ``generate``: answers by script, and keeps what it was told."""

    def __init__(self, processor, *rounds):
        self.processor, self.rounds, self.told, self.images = processor, list(rounds), [], []

    def __call__(self, input_ids, pixel_values, **rest):
        self.told.append(self.processor.batch_decode(input_ids))
        self.images.append(pixel_values)
        tokenizer = self.processor.tokenizer
        texts = [text + tokenizer.eos_token for text in self.rounds.pop(0)]
        answers = tokenizer(texts, padding=True, padding_side="right")
        return torch.cat([input_ids, torch.tensor(answers.input_ids)], dim=1)


@pytest.fixture
def script(captioner, monkeypatch):
    def use(*rounds):
        script = Script(captioner.processor, *rounds)
        monkeypatch.setattr(captioner.model, "generate", script)
        return script

    return use


def test_the_question_is_that_of_the_paper():
    for words in ("at most 30 words: the main subjects", "what lies in front of what. Say nothing of fog, blur, rain,"):
        assert words in QUESTION and words in FULL
    assert "\n" not in QUESTION


def test_a_good_answer_is_taken_at_once(captioner, script):
    talk = script([GOOD, f'"{GOOD}"\n'])
    assert captioner.describe(photos(2)) == [GOOD, GOOD]
    assert len(talk.told) == 1 and all(QUESTION in told for told in talk.told[0])


def test_a_bad_answer_is_asked_again_once_and_alone_with_its_fault_named(captioner, script):
    talk = script([FOGGY, GOOD, MANY_LINES], ["A cat.", GOOD])
    assert captioner.describe(photos(3)) == ["A cat.", GOOD, GOOD]
    first, second = talk.told[1]
    assert FOGGY in first and "speaks of degradation (fog)" in first and objection(FOGGY) in first
    assert "has 2 lines" in second and objection(MANY_LINES) in second
    thirds = talk.images[0].flatten().chunk(3)
    torch.testing.assert_close(talk.images[1].flatten(), torch.cat([thirds[0], thirds[2]]))  # each with its own photo


@pytest.mark.parametrize(
    ("second", "scene"),
    [(LONG, " ".join(LONG.split()[:30])), (LONG + " fog", None), (LONG + "\nA cat.", None), (FOGGY, None), ("", None)],
)
def test_what_is_only_too_long_is_cut_and_the_rest_given_up(captioner, script, second, scene):
    talk = script([LONG], [second])
    assert captioner.describe(photos(1)) == [scene]
    assert len(talk.told) == 2


def test_talks_of_different_length_do_not_disturb_each_other(captioner):
    one, two = photos(2)
    talks = [[_user(QUESTION, one)], [_user(QUESTION, two), _assistant(FOGGY), _user(objection(FOGGY))]]
    alone = [captioner._answer([talk])[0] for talk in talks]
    assert captioner._answer(talks) == alone
    assert alone[0] and alone[0] != alone[1]


def test_qwen_is_asked_as_the_reasoner_is(tmp_path):
    save_qwen(tmp_path)
    views = Views(size=None, tiles=0, min_pixels=64**2, max_pixels=160**2)
    reasoner = Qwen3VLReasoner(str(tmp_path), views=views, prompt=QUESTION)
    [photo] = photos(1)  # of a size that neither resizes
    prompt = reasoner._prompt(torch.from_numpy(photo).permute(2, 0, 1)[None] / 255)
    tokens = reasoner.model.generate(**prompt, max_new_tokens=128, do_sample=False)
    expected = reasoner.tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert expected.strip()
    assert Captioner(str(tmp_path))._answer([[_user(QUESTION, photo)]]) == [expected.strip()]


def test_checkpoints_that_cannot_answer_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights in"):
        Captioner(str(tmp_path / "nowhere"))
    save_qwen(tmp_path)
    template = tmp_path / "chat_template.jinja"
    whole = template.read_text()
    template.write_text(whole + "<think>\n")
    with pytest.raises(ValueError, match="thinks aloud"):
        Captioner(str(tmp_path))
    template.unlink()
    with pytest.raises(ValueError, match="no chat template"):
        Captioner(str(tmp_path))
    template.write_text(whole)
    weights = tmp_path / "model.safetensors"
    torch.save({}, tmp_path / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        Captioner(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="holds a bert"):
        Captioner(str(tmp_path))
