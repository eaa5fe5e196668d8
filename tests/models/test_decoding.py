from functools import partial

import pytest
import torch
from test_qwen3vl import assert_same_tokens, photos, plainly, tiny

from rnr.diagnosis import FIELDS
from rnr.models import decoding
from rnr.models.decoding import read, write
from rnr.models.estimates import Reading

IMAGES = photos(4)


@pytest.fixture(scope="module", params=range(3))
def random_model(request):
    """A reasoner whose every digit hangs on all that stands before it, and what plain decoding has it write."""
    reasoner = tiny().eval()
    torch.manual_seed(request.param)
    with torch.no_grad():
        for parameter in reasoner.model.parameters():
            parameter.normal_(std=0.3)
    return reasoner, plainly(reasoner, IMAGES, FIELDS)


def written(reasoner, fields=FIELDS, form=None, memory=None, images=IMAGES):
    """The answers, and how many passes they took."""
    passes = []
    hook = reasoner.model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    try:
        with torch.no_grad():
            question = read(reasoner.model, reasoner._prompt(images))
            passes.clear()
            scripts = [partial(reasoner.form.write, fields)] * len(images)
            answers = write(reasoner.model, question, scripts, form, memory)
    finally:
        hook.remove()
    return answers, len(passes)


@pytest.mark.parametrize("ahead", [1, 100, 10_000])
def test_however_far_it_guesses_it_writes_what_plain_decoding_writes(random_model, ahead, monkeypatch):
    reasoner, plain = random_model
    monkeypatch.setitem(decoding.AHEAD, "cpu", ahead)
    answers, passes = written(reasoner)
    assert_same_tokens(reasoner, answers, plain)
    assert len({len(answer.tokens) for answer in answers}) > 1, "photos of a batch must part ways"
    assert passes <= max(len(answer.decisions) for answer in answers)


class Parrot(dict):
    """Remembers the same token everywhere."""

    def __init__(self, token):
        super().__init__()
        self.token = token

    def get(self, where, default=None):
        return self.token


@pytest.mark.parametrize("token", [0, 7, 500])
def test_bad_memories_do_no_harm(random_model, token):
    reasoner, plain = random_model
    assert_same_tokens(reasoner, written(reasoner, memory=Parrot(token))[0], plain)


def test_what_is_remembered_right_takes_one_pass(random_model, monkeypatch):
    monkeypatch.setitem(decoding.AHEAD, "cpu", 2048)
    reasoner, _ = random_model
    memory = {}
    first, slow = written(reasoner, FIELDS[:3], memory=memory, images=IMAGES[:1])
    again, fast = written(reasoner, FIELDS[:3], memory=memory, images=IMAGES[:1])
    assert again[0].tokens == first[0].tokens
    assert fast <= 2 < slow


def test_all_that_is_weighed_is_the_same_one_choice_at_a_time(random_model, monkeypatch):
    reasoner, _ = random_model
    far, _ = written(reasoner, FIELDS[:3], reasoner.form)
    monkeypatch.setitem(decoding.AHEAD, "cpu", 1)
    near, _ = written(reasoner, FIELDS[:3], reasoner.form)
    for one, other in zip(far, near, strict=True):
        for a, b in zip(one.decisions, other.decisions, strict=True):
            assert (a.choice.place, a.token, a.rivals.keys()) == (b.choice.place, b.token, b.rivals.keys())
            torch.testing.assert_close(a.log_probabilities, b.log_probabilities, atol=1e-4, rtol=0)
            torch.testing.assert_close(a.rivals, b.rivals, atol=1e-4, rtol=0)


def test_of_words_only_the_likeliest_is_kept(random_model):
    """Their log-probabilities would fill gigabytes, and nobody reads them."""
    reasoner, plain = random_model
    answers, _ = written(reasoner, FIELDS, reasoner.form)
    assert_same_tokens(reasoner, answers, plain)
    kept = {}
    for decision in (each for answer in answers for each in answer.decisions):
        kept.setdefault(decision.choice.place.key == "scene", set()).add(len(decision.log_probabilities) == 0)
    assert kept.pop(False) == {False}
    assert kept in ({True: {True}}, {}), "not every random model writes a scene"


def test_under_autocast_every_answer_is_a_diagnosis(random_model):
    reasoner, _ = random_model
    with torch.autocast("cpu", torch.bfloat16):
        answers = reasoner.weigh(IMAGES)
    assert all(isinstance(answer, Reading) for answer in answers)
