import dataclasses
import math
from functools import partial

import pytest
import torch
from test_qwen3vl import photos, tiny

from rnr.diagnosis.types import FINDINGS, quantities
from rnr.models.decoding import read, write
from rnr.models.estimates import Calibration, Estimate, chance, estimate, middle
from rnr.models.form import next_characters

SEVERITY = quantities(FINDINGS["fog"])["severity"]
SLANT = quantities(FINDINGS["rain"])["slant"]
NUMBERS = [f"{n / 10:05.1f}" for n in range(10, 1001)]


def only_fog(form):
    """The form of presence and severity, with presence taken out of the model's hands."""
    script = form.write(("presence", "severity"))
    choice = next(script)
    try:
        while True:
            if choice.place.key == "presence":
                there = choice.place.kind == "fog"
                choice = dataclasses.replace(choice, allowed=choice.allowed[int(there)].view(1))
            choice = script.send((yield choice))
    except StopIteration as stop:
        return stop.value


@torch.no_grad()
def chances_of_all(reasoner, image):
    """(991,): how likely each severity of fog is, each one written out and scored by the whole model."""
    model, form = reasoner.model, reasoner.form
    line = "Degradations: fog yes, motion blur no, rain streaks no, sensor noise no.\nSeverity: fog "
    answers = torch.tensor([form.tokens(f"{line}{number}.") for number in NUMBERS])
    prompt = reasoner._prompt(image.expand(len(NUMBERS), -1, -1, -1))
    ids = torch.cat([prompt["input_ids"], answers], dim=1)
    kinds = torch.nn.functional.pad(prompt["mm_token_type_ids"], (0, answers.shape[1]))
    logits = model(
        input_ids=ids, mm_token_type_ids=kinds, pixel_values=prompt["pixel_values"],
        image_grid_thw=prompt["image_grid_thw"], use_cache=False,
    ).logits.float()  # fmt: skip
    chances = torch.zeros(len(NUMBERS))
    for row, number in enumerate(NUMBERS):
        for at in (0, 1, 2, 4):  # its digits; the text ends with the number and a full stop
            allowed = next_characters(SEVERITY, number[:at])
            scores = logits[row, at - 7, [form.digits[int(c)] for c in allowed]]
            chances[row] += scores.log_softmax(dim=0)[allowed.index(number[at])]
    return chances.exp()


@pytest.mark.parametrize("seed", range(3))
def test_the_distribution_is_that_of_all_numbers_that_could_be_written(seed):
    reasoner = tiny().eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        reasoner.model.get_input_embeddings().weight.normal_(std=0.05)  # opinions, none of them firm
    image = photos(1, seed=seed)
    chances, numbers = chances_of_all(reasoner, image), torch.tensor([float(number) for number in NUMBERS])
    assert chances.sum().item() == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        question = read(reasoner.model, reasoner._prompt(image))
        [answer] = write(reasoner.model, question, [partial(only_fog, reasoner.form)], reasoner.form)
    decisions = [decision for decision in answer.decisions if decision.choice.place.key == "severity"]
    assert sum(decision.log_probabilities.max().item() for decision in decisions) < math.log(0.8), "too sure to test"
    found = estimate(decisions, reasoner.form, SEVERITY, stated=50.0)
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-4)
    # The last digits of what greedy decoding leaves aside are not looked at, but taken at their middle.
    assert found.mean == pytest.approx((chances * numbers).sum().item(), abs=1.0)
    below = chances.cumsum(dim=0)
    low, high = (numbers[int((below < end).sum())].item() for end in (0.05, 0.95))
    assert found.interval(0.9) == pytest.approx((low, high), abs=2.0)


def test_rivals_leave_the_answer_alone():
    reasoner, images = tiny().eval(), photos(2)
    with torch.no_grad():
        plain, watched = (
            write(
                reasoner.model,
                read(reasoner.model, reasoner._prompt(images)),
                [partial(reasoner.form.write, ("presence", "severity", "parameters"))] * len(images),
                form,
            )
            for form in (None, reasoner.form)
        )
    for one, other in zip(plain, watched, strict=True):
        assert one.tokens == other.tokens
        for a, b in zip(one.decisions, other.decisions, strict=True):
            torch.testing.assert_close(a.log_probabilities, b.log_probabilities, atol=1e-4, rtol=0)


def test_no_temperature_turns_yes_into_no():
    for odds in (-9.0, -0.1, 1e-3, 5.0):
        scores = torch.tensor([0.0, odds]).log_softmax(dim=0)
        assert chance(scores) == pytest.approx(scores[1].exp().item())
        assert all((chance(scores, temperature) > 0.5) == (odds > 0) for temperature in (0.5, 2.0, 10.0))
        assert abs(chance(scores, 2.0) - 0.5) < abs(chance(scores) - 0.5) < abs(chance(scores, 0.5) - 0.5)


def test_a_calibration_that_cannot_be_is_refused():
    ones = Calibration().presence
    with pytest.raises(ValueError, match=r"presence.fog must be a finite number above 0, got 0"):
        Calibration(presence=ones | {"fog": 0})
    with pytest.raises(ValueError, match="presence must be given for each of fog, shake, rain, noise"):
        Calibration(presence={"fog": 1.0})
    with pytest.raises(ValueError, match=r"margins of fog.length: there is no such quantity"):
        Calibration(margins={"fog": {"length": [0.0] * 3}})
    for margins in ([0.0], [0.0, 0.0, math.nan]):
        with pytest.raises(ValueError, match=r"margins of fog.severity must be 3 finite numbers"):
            Calibration(margins={"fog": {"severity": margins}})


def test_the_mean_of_an_angle_goes_around():
    across = Estimate([5.0, 175.0], [0.5, 0.5], 180)
    assert across.mean == pytest.approx(0, abs=1e-3) or across.mean == pytest.approx(180, abs=1e-3)
    assert across.interval(0.9)[1] - across.interval(0.9)[0] == pytest.approx(10, abs=1e-3)
    plain = Estimate([5.0, 175.0], [0.25, 0.75])
    assert plain.mean == pytest.approx(132.5)


def test_the_middle_of_what_begins_so():
    cases = {"0": 50.4, "05": 54.95, "055": 55.45, "055.9": 55.9, "1": 100.0, "00": 5.45}
    assert {prefix: middle(SEVERITY, prefix) for prefix in cases} == pytest.approx(cases | {"0": (1 + 99.9) / 2})
    assert [middle(SLANT, prefix) for prefix in ("+", "-", "-1")] == pytest.approx([45, -45.5, -14.5])
