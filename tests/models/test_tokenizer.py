import json
import re

import pytest
from transformers import AutoTokenizer, Qwen2Tokenizer

from rnr.diagnosis import render
from rnr.diagnosis.prompt import EXAMPLE, SHORT
from rnr.models.tokenizer import SPECIAL_TOKENS, train_tokenizer, vocabulary


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(vocabulary(), vocab_size=1200)


@pytest.mark.parametrize("text", [render(EXAMPLE), "", " ", "héllo 雨 1½\n\n\tx", "b +05.0.\r\n", "<|im_end|>", "😀"])
def test_text_survives(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    spelled = tokenizer(text, split_special_tokens=True).input_ids
    assert tokenizer.decode(spelled) == text
    assert not set(spelled) & set(tokenizer.all_special_ids)


def test_every_digit_is_a_token_and_every_word_of_the_form_too(tokenizer):
    form = render(EXAMPLE.keep(("presence", "severity", "parameters")))
    pieces = [tokenizer.decode([token]) for token in tokenizer(form).input_ids]
    assert all(re.fullmatch(r"[0-9]|[^0-9]+", piece) for piece in pieces)
    words = re.findall(r" ?[A-Za-z]+", form)
    assert set(words) <= set(pieces)


def test_scene_words_become_whole_tokens(tmp_path):
    scenes = tmp_path / "scenes.jsonl"
    scenes.write_text("".join(json.dumps({"photo": "a.jpg", "scene": "A zyxomma hovers."}) + "\n" for _ in range(20)))
    tokenizer = train_tokenizer(vocabulary(scenes))
    assert tokenizer.tokenize(" zyxomma") == ["Ġzyxomma"]


def test_training_is_repeatable_and_bounded(tokenizer):
    again = train_tokenizer(vocabulary(), vocab_size=1200)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) + 1 <= 1200
    assert len(train_tokenizer([SHORT], vocab_size=263)) == 263
    with pytest.raises(ValueError, match="at least 263 "):
        train_tokenizer([SHORT], vocab_size=262)


@pytest.mark.parametrize("loader", [Qwen2Tokenizer, AutoTokenizer])
def test_saves_and_reloads_exactly(tokenizer, tmp_path, loader):
    tokenizer.save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is Qwen2Tokenizer
    assert loaded.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert loaded.chat_template == tokenizer.chat_template
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_chat_format_is_qwens(tokenizer):
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Look."}]
    chat = [{"role": "user", "content": parts}]
    asked = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert asked == f"<|im_start|>user\n{image}{image}Look.<|im_end|>\n<|im_start|>assistant\n"
    chat.append({"role": "assistant", "content": "Fine."})
    told = tokenizer.apply_chat_template(chat, tokenize=False)
    assert told == asked + "Fine.<|im_end|>\n"
    assert set(tokenizer.all_special_tokens) == set(SPECIAL_TOKENS)
