"""What a photo's smaller copies say of it: shake that is not to be seen pixel by pixel.

A photo of the world is seldom as sharp as its pixels: lens, focus, JPEG and enlargement have had their part, and in what they
leave of the finest detail a shake is hard to tell. In a copy of half the size the same shake is half as wide, and stands
beside detail that is sharp. Fog looks there as it did, rain and noise are nearly gone: only of shake a copy is asked.

A copy of a soft photo is a little soft itself, which looks like a short shake in any direction; and what a photo shows may
look like one in one copy or another. So two copies must be sure of the same one, and of more than softness.
"""

import dataclasses
from collections.abc import Iterable

from rnr.degradation.shake import RADIUS
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.types import FIELDS, Shake, quantities

NEAR, FAR = 2, 4
"""How many times shorter the sides of the copies are."""

LEAST_SIDE = 280
"""Pixels of a photo's shorter side, below which its smaller copy shows too little."""

LEAST = 1 + 99 * 1.0 / RADIUS
"""The severity in the larger copy from which on a shake counts: a root-mean-square radius of a pixel."""

ALIKE = 20
"""Degrees by which directions in both copies may differ."""

SURE = 0.8
"""The chance of a shake that both copies must give it at least."""


def agree(near: Examination, far: Examination) -> bool:
    """Whether both copies are sure of the same shake, and the larger one shows enough of it."""
    if min(copy.presence["shake"] for copy in (near, far)) < SURE:
        return False
    shakes = near.diagnosis.shake, far.diagnosis.shake
    if any(shake is None or None in (shake.severity, shake.direction) for shake in shakes):
        return False
    turn = abs(shakes[0].direction - shakes[1].direction)
    return shakes[0].severity >= LEAST and min(turn, 180 - turn) <= ALIKE


def completed(examination: Examination, near: Examination, fields: Iterable[str] = FIELDS) -> Examination:
    """``examination`` of a photo, with the shake that the larger copy shows, as it is in pixels of the photo, and the copy's
    chance of it. ``fields``: what of it is taken over."""
    shake = scaled(near.diagnosis.shake.keep(fields), NEAR)
    spans = {
        key: [tuple(sorted(_scaled(key, end, NEAR) for end in ends)) for ends in each]
        for key, each in near.intervals.get("shake", {}).items()
        if getattr(shake, key) is not None
    }
    return Examination(
        dataclasses.replace(examination.diagnosis, shake=shake),
        examination.presence | {"shake": near.presence["shake"]},
        examination.intervals | {"shake": spans},
    )


def scaled(shake: Shake, times: float) -> Shake:
    """The same shake in a photo whose sides are ``times`` longer, or with ``times`` below 1 shorter."""
    stated = {key: value for key in quantities(Shake) if (value := getattr(shake, key)) is not None}
    return dataclasses.replace(shake, **{key: _scaled(key, value, times) for key, value in stated.items()})


def _scaled(key: str, value: float, times: float) -> float:
    """A quantity of a shake, or an end of its interval; within bounds, but for angles. A path is as thin as before, so the
    squares of its kernel sum to 1 / times, and their root, the energy, goes by the square root."""
    if key == "direction":
        return value
    spec = quantities(Shake)[key]
    value = {"severity": 1 + (value - 1) * times, "length": value * times, "energy": value / times**0.5}[key]
    return spec.round(min(max(value, spec.low), spec.high))
