"""The severity to be expected: that of all courses an answer may take, without a leap where one overtakes another."""

import math
from functools import partial
from itertools import product
from unittest import mock

import pytest
import torch

from rnr.diagnosis import FIELDS, KINDS, Diagnosis, Fog, parse
from rnr.models import expected_severity
from rnr.models.decoding import Answer, Decision, Question
from rnr.models.estimates import Calibration, Reading, chance, estimates, presence
from rnr.models.expected_severity import Course, expectation, likely_courses
from rnr.models.form import Choice, Place
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.small_reasoner import SmallReasoner
from rnr.models.views import Views

SMALL = SmallReasoner(vision_depth=1, vision_width=64, patch=8, text_depth=1, text_width=64, vocab_size=400)


FLAGS = torch.tensor([0, 1])
S = 40.0
PHOTO = Course(0)


def foggy(yes: float, course: Course = PHOTO) -> Reading:
    """An answer of a reasoner to whom fog of severity S is there with this chance, and surely nothing else."""
    chances = [yes, 0.0, 0.0, 0.0]
    words = [*course.words, *(chance >= 0.5 for chance in chances[len(course.words) :])]
    decisions = [
        Decision(Choice(Place(kind, "presence"), [], FLAGS), int(word), torch.tensor([1 - chance, chance]).clamp(1e-30).log())
        for kind, chance, word in list(zip(KINDS, chances, words, strict=True))[len(course.words) :]
    ]
    return Reading(Answer([], decisions), Diagnosis(fog=Fog(S, None, None) if words[0] else None))


def expected(yes: float, temperature: float = 1.0) -> float:
    """Of fog, and nothing is to be expected of the rest."""
    calibration = Calibration(presence=dict.fromkeys(KINDS, temperature))
    found = likely_courses([foggy(yes)], lambda courses: [foggy(yes, each) for each in courses], calibration)
    ((fog, *others),) = expectation(1, found, None)
    assert others == pytest.approx([0, 0, 0], abs=1e-6)
    return fog


@pytest.mark.parametrize(
    ("yes", "severity"),
    [
        (0.01, 0.01),  # no course of its own: the faintest severity, 1
        (0.03, 0.006 * S / (0.97 + 0.006) + 0.025),  # a fifth of the way to its full weight
        (0.06, 0.06 * S + 0.025),
        (0.7, 0.7 * S + 0.025),
        (0.99, S + 0.025),
    ],
)
def test_by_the_formula(yes, severity):
    assert expected(yes) == pytest.approx(severity, rel=1e-4)


@pytest.mark.parametrize("where", [0.025, 0.05, 0.5, 0.95, 0.975])
def test_no_leap_where_a_course_comes_has_its_full_weight_or_overtakes_another(where):
    assert expected(where + 1e-4) - expected(where - 1e-4) == pytest.approx(0, abs=0.05)


def test_a_chance_is_tempered_first():
    assert expected(0.9, temperature=2.0) == pytest.approx(0.75 * S + 0.025, rel=1e-4)  # odds of 9 become 3


def test_without_a_number_there_is_no_severity():
    found = likely_courses([foggy(math.nan)], lambda courses: [], Calibration())
    assert all(map(math.isnan, expectation(1, found, None)[0]))


def test_courses_are_written_for_no_more_photos_at_once_than_there_are_or_a_few():
    asked = []

    def weigh(courses):
        asked.append(len(courses))
        return [foggy(0.5, each) for each in courses]

    likely_courses([foggy(0.5)] * 6, weigh, Calibration())
    likely_courses([foggy(0.5)], weigh, Calibration())
    assert asked == [6, 1]
    reasoner, images, rows = at_random(), photos(2), []
    plain = Question.of
    with mock.patch.object(Question, "of", lambda self, some: rows.append(len(some)) or plain(self, some)):
        reasoner.severities(images)
    assert 2 < max(rows) <= expected_severity.TOGETHER < sum(rows)


def at_random(seed=0):
    """A reasoner of random weights: unsure of everything."""
    torch.manual_seed(0)
    reasoner = Qwen3VLReasoner(small=SMALL, views=Views(size=32, tiles=1)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in reasoner.model.parameters():
            parameter.normal_(std=0.3)
    return reasoner


def photos(count):
    return torch.rand(count, 3, 40, 48, generator=torch.Generator().manual_seed(3))


def written(reasoner, image, words):
    """The reading under the first words of a diagnosis."""
    (answer,) = reasoner.write(image[None], [partial(reasoner.form.write, FIELDS[:2], given=words)], reasoner.form)
    return Reading(answer, parse(reasoner._text(answer)))


def by_enumeration(reasoner, image):
    """Each of the sixteen courses with its chance, one word after the other."""
    total = [0.0] * len(KINDS)
    for words in product([False, True], repeat=len(KINDS)):
        reached = 1.0
        for place, kind in enumerate(KINDS):
            yes = chance(presence(written(reasoner, image, words[:place]).answer)[kind])
            reached *= yes if words[place] else 1 - yes
        reading = written(reasoner, image, words)
        assert [reading.written[kind] is not None for kind in KINDS] == list(words)
        for number, severity in estimates(reading, reasoner.form):
            total[KINDS.index(number.kind)] += reached * severity.mean
    return total


def test_it_is_the_mean_over_all_that_could_have_been_said(monkeypatch):
    monkeypatch.setattr(expected_severity, "LEAST", 1e-9)
    reasoner, images = at_random(), photos(2)
    expected = torch.tensor([by_enumeration(reasoner, image) for image in images])
    torch.testing.assert_close(reasoner.severities(images), expected, rtol=1e-3, atol=1e-3)


def test_a_photo_does_not_depend_on_the_batch_and_is_read_once(monkeypatch):
    reasoner, images, read = at_random(), photos(3), []
    alone = torch.cat([reasoner.severities(image[None]) for image in images])
    plain = reasoner._prompt
    monkeypatch.setattr(reasoner, "_prompt", lambda images, *looks: read.append(len(images)) or plain(images, *looks))
    torch.testing.assert_close(reasoner.severities(images), alone, rtol=1e-4, atol=1e-3)
    assert read == [3]


def stated(reasoner, image):
    """As the one diagnosis has it: chance times severity, 1 of what is called absent."""
    (found,) = reasoner.examine(image[None], FIELDS[:2])
    return torch.tensor([found.presence[k] * (s or 1.0) for k, s in zip(KINDS, found.diagnosis.severities, strict=True)])


def test_it_does_not_leap_where_a_finding_comes_or_goes():
    """The chance of every yes grows in small steps: by the one diagnosis severities leap, by all of them they move on."""
    reasoner, (image,) = at_random(), photos(1)
    more = torch.zeros(len(reasoner.tokenizer))
    reasoner.model.lm_head.register_forward_hook(lambda layer, given, logits: logits + more)
    by_one, by_all = [], []
    for yes in torch.arange(-8, 8, 0.05).tolist():
        more[reasoner.form.flags[1]] = yes
        by_one.append(stated(reasoner, image))
        by_all.append(reasoner.severities(image[None])[0])
    steps_of_one, steps = (torch.stack(each).diff(dim=0).abs().amax(dim=0) for each in (by_one, by_all))
    assert by_all[0].max() < 5 and by_all[-1].min() > 20, "from nothing to everything"
    assert steps_of_one.max() > 20
    assert steps.max() < 4


def test_with_gradient_it_is_the_same_and_the_gradient_is_that_of_finite_differences():
    reasoner, images = at_random(), photos(3)
    plain = reasoner.severities(images)
    images.requires_grad_()
    found = reasoner.differentiable_severities(images)
    torch.testing.assert_close(found.detach(), plain, rtol=1e-4, atol=1e-3)
    weights = torch.linspace(1, 2, found.numel()).view_as(found)
    (gradient,) = torch.autograd.grad((found * weights).sum(), images)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    step = 1e-3
    ends = [(reasoner.severities(images.detach() + s * step * direction) * weights).sum() for s in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-2, atol=0)


def test_what_is_said_and_its_severities_are_of_one_reading(monkeypatch):
    reasoner, images, read = at_random(), photos(3), []
    severities = reasoner.severities(images)
    reasoner._memory.clear()
    examined = reasoner.examine(images)
    plain = reasoner._prompt
    monkeypatch.setattr(reasoner, "_prompt", lambda images, *looks: read.append(len(images)) or plain(images, *looks))
    reasoner._memory.clear()  # other guesses make other passes, which round otherwise
    both = reasoner.assess(images)
    assert read == [3] and both[0] == examined
    torch.testing.assert_close(both[1], severities, rtol=1e-4, atol=1e-3)


def test_gradients_reach_the_photo_of_a_reasoner_that_is_sure():
    reasoner = Qwen3VLReasoner("shipped/reasoner").eval().requires_grad_(False)
    image = photos(1).requires_grad_()
    reasoner.differentiable_severities(image).sum().backward()
    assert image.grad.isfinite().all() and image.grad.abs().max() > 0


def test_without_a_gradient_it_is_the_same_too():
    reasoner, images = at_random().requires_grad_(False), photos(2)
    torch.testing.assert_close(reasoner.differentiable_severities(images), reasoner.severities(images), rtol=1e-4, atol=1e-3)
