"""The severity to be expected of each degradation, over all that a reasoner holds possible: what the reward is made of.

A diagnosis says yes or no to each degradation, one after the other, and states the severity of what it said yes to. Read off
the one diagnosis that greedy decoding writes, a severity leaps where a chance crosses 1/2: by all that had been left out
till then, and by what the new yes makes of the words behind it. So the other courses that the answer might have taken are
written too, each with the chance P(c) of its words::

    E[s_i] = mean_c s_i(c) + min(mean_c p_i(c), LEAST),    means weighted with P(c) min(max(P(c) / LEAST - 1, 0), 1)

over the courses c of four words. s_i(c) is 0 where c says no, p_i(c) the chance of its yes: what is so unlikely that no
course is written for it counts as the faintest severity, 1, so that even photos without a fault differ. A course comes and
goes at a weight of 0, has its full weight from twice that chance on, and which of them is the greedy one does not matter.
In s_i(c) itself, an expectation over digits, chances below :data:`rnr.models.decoding.LEAST` are left out. Most photos have
one course that counts; others are written for those that need them, on what was read of the photo already.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rnr.diagnosis import KINDS
from rnr.models.estimates import Calibration, Chance, Reading, chance, estimates, presence
from rnr.models.form import Form

LEAST = 0.025
"""The chance up to which a course counts nothing. There are at most sixteen, so that one always counts."""

TOGETHER = 4
"""Courses that are followed at once even of a single photo."""


@dataclass(frozen=True)
class Course:
    """An answer of the photo ``row`` whose first words, one for each of ``KINDS``, are given, and the rest as greedy decoding
    goes on. yes: the chance of yes at each of those words; reached: that of all of them."""

    row: int
    words: tuple[bool, ...] = ()
    yes: tuple[Chance, ...] = ()
    reached: Chance = 1.0

    @property
    def weight(self) -> Chance:
        return self.reached * min(max(self.reached / LEAST - 1, 0.0), 1.0)

    def on(self, yes: Chance, word: bool) -> "Course":
        """One word further."""
        chance = self.reached * (yes if word else 1 - yes)
        return Course(self.row, (*self.words, word), (*self.yes, yes), chance)


def likely_courses(
    first: Sequence[Reading], weigh: Callable[[Sequence[Course]], Sequence[Reading]], calibration: Calibration
) -> list[tuple[Course, Reading]]:
    """All that count, with their answers. first: of each photo the answer of greedy decoding, up to the severities at least.
    weigh: those of other courses; of no more at once than there are photos, or :data:`TOGETHER` if that is more."""
    found, pending, answers = [], [Course(row) for row in range(len(first))], first
    most = max(len(first), TOGETHER)
    while pending:
        branches: list[Course] = []
        for course, reading in zip(pending, answers, strict=True):
            whole, others = followed(course, reading, calibration)
            branches += others
            if whole.weight > 0:
                found.append((whole, reading))
        pending = branches
        answers = [reading for at in range(0, len(pending), most) for reading in weigh(pending[at : at + most])]
    return found


def expectation(count: int, found: Sequence[tuple[Course, Reading]], form: Form) -> list[list[Chance]]:
    """For each of ``count`` photos the severity to be expected of each of ``KINDS``, from 0 to 100 and LEAST; NaN of a photo
    that has no course."""
    sums: list[list[Chance]] = [[0.0] * len(KINDS) for _ in range(count)]
    chances: list[list[Chance]] = [[0.0] * len(KINDS) for _ in range(count)]
    weights: list[Chance] = [0.0] * count
    for course, reading in found:
        row, weight = course.row, course.weight
        weights[row] += weight
        for number, severity in estimates(reading, form, ["severity"]):
            sums[row][KINDS.index(number.kind)] += weight * severity.mean
        for kind, yes in enumerate(course.yes):
            chances[row][kind] += weight * yes
    return [
        [part / weight + min(yes / weight, LEAST) for part, yes in zip(parts, each, strict=True)]
        if weight > 0
        else [math.nan] * len(KINDS)
        for parts, each, weight in zip(sums, chances, weights, strict=True)
    ]


def followed(course: Course, reading: Reading, calibration: Calibration) -> tuple[Course, list[Course]]:
    """All the words of an answer, and where others that count may leave it."""
    branches = []
    scores = presence(reading.answer)
    for kind in KINDS[len(course.words) :]:
        yes = chance(scores[kind], calibration.presence[kind])
        word = reading.written[kind] is not None
        if (other := course.on(yes, not word)).reached > LEAST:
            branches.append(other)
        course = course.on(yes, word)
    return course, branches
