import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnr.diagnosis import FIELDS, Diagnosis, parse, render
from rnr.diagnosis.prompt import EXAMPLE
from rnr.diagnosis.types import FINDINGS, quantities
from rnr.models.form import Form, next_characters
from rnr.models.tokenizer import END_OF_TURN, train_tokenizer, vocabulary

TOKENIZER = train_tokenizer(vocabulary(), 2048)
FORM = Form(TOKENIZER)


def written(choose, fields=FIELDS):
    """The tokens of a whole answer, each choice made by ``choose(choice)``."""
    script, tokens = FORM.write(fields), []
    try:
        choice = next(script)
        while True:
            assert len(choice.allowed) > 1
            token = choose(choice)
            tokens += [*choice.feed, token]
            choice = script.send(token)
    except StopIteration as stop:
        return tokens + stop.value


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.sampled_from([FIELDS[:n] for n in range(1, 5)]))
def test_whatever_is_chosen_parses(seed, fields):
    generator = torch.Generator().manual_seed(seed)

    def choose(choice):
        return int(choice.allowed[torch.randint(len(choice.allowed), (), generator=generator)])

    tokens = written(choose, fields)
    text = TOKENIZER.decode(tokens).removesuffix(END_OF_TURN)
    if "scene" not in fields:
        assert TOKENIZER(text).input_ids == tokens, "the pieces are not the tokens of the whole"
    answer = parse(text)
    assert isinstance(answer, Diagnosis), answer
    assert answer.scene is None or "scene" in fields
    for kind in FINDINGS:
        if answer[kind] is not None:
            for key in quantities(FINDINGS[kind]):
                asked = ("severity" if key == "severity" else "parameters") in fields
                assert (getattr(answer[kind], key) is not None) == asked
    assert answer.keep(fields) == answer


@pytest.mark.parametrize(
    "truth",
    [
        EXAMPLE,
        Diagnosis(scene="A dog."),
        Diagnosis(),
        Diagnosis(fog=EXAMPLE.fog),
        Diagnosis(noise=EXAMPLE.noise, scene="A semi-open door, left of the carpet; 2 lamps."),
        Diagnosis(shake=FINDINGS["shake"](100, 0, 64, 1), rain=FINDINGS["rain"](1, 0, -90, 1, 0.5, 1, (0, 1, 0)), scene="x"),
    ],
    ids=render,
)
def test_every_diagnosis_can_be_written_in_the_tokens_that_a_model_learns(truth):
    target = [*TOKENIZER(render(truth)).input_ids, TOKENIZER.convert_tokens_to_ids(END_OF_TURN)]
    done = 0

    def follow(choice):
        nonlocal done
        assert choice.feed == target[done : done + len(choice.feed)]
        done += len(choice.feed) + 1
        assert target[done - 1] in choice.allowed
        return target[done - 1]

    assert written(follow) == target


def test_numbers_keep_to_their_bounds():
    severity, direction, b = (
        quantities(FINDINGS[kind])[key] for kind, key in (("fog", "severity"), ("shake", "direction"), ("noise", "b"))
    )
    assert [next_characters(severity, p) for p in ("", "0", "1", "00", "10", "001", "100", "100.", "100.0")] == [
        "01", "0123456789", "0", "123456789", "0", ".", ".", "0", None,
    ]  # fmt: skip
    assert [next_characters(direction, p) for p in ("", "1", "17", "179")] == ["01", "01234567", "0123456789", None]
    assert [next_characters(b, p) for p in ("", "-", "-0", "-00", "-00.", "+00.", "-99", "-99.", "-99.0")] == [
        "+-", "0123456789", "0123456789", ".", "123456789", "0123456789", ".", "0", None,
    ]  # fmt: skip
