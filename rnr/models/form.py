"""The form of a diagnosis as a grammar over tokens: what stands fixed, and what may be chosen where.

:meth:`Form.write` is that grammar as a coroutine. It yields one :class:`Choice` after the other, each with the fixed
tokens that lead up to it, and is sent the token that was chosen. Whatever is chosen, the text that comes out is one that
:func:`rnr.diagnosis.parse` reads: numbers keep to their places and bounds, the scene to its words.

Qwen's pre-tokenizer never joins a digit, a sign or a yes or no with what stands beside it, so the pieces of the form
become the same tokens alone as they do in the whole text.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer

from rnr.diagnosis import FIELDS, KINDS
from rnr.diagnosis.text import NAMES
from rnr.diagnosis.types import FINDINGS, MAX_SCENE_WORDS, Quantity, quantities
from rnr.models.tokenizer import END_OF_TURN

MAX_SCENE_TOKENS = 160


@dataclass(frozen=True)
class Place:
    """Where in a diagnosis a choice stands. key: 'presence', a quantity's name, 'described' (is there a scene) or 'scene'.
    index: which number of a triple. prefix: the characters of the number so far."""

    kind: str | None
    key: str
    index: int = 0
    prefix: str = ""


@dataclass(frozen=True)
class Choice:
    """feed: tokens that stand fixed before it. allowed: (n,) int64, the tokens to choose from, n > 1. lean: added to the
    logit of the last of them."""

    place: Place
    feed: list[int]
    allowed: Tensor
    lean: float = 0.0


Script = Generator[Choice, int, list[int]]
"""Yields choices, is sent tokens, returns the fixed tokens that close the text."""


class Form:
    """The form in the tokens of a Qwen tokenizer."""

    def __init__(self, tokenizer: Qwen2Tokenizer) -> None:
        self.end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
        self.tokens = cache(lambda text: tokenizer(text).input_ids if text else [])
        self.flags = torch.tensor([self._single(" no"), self._single(" yes")])
        # With few merges a sign's space is a token of its own, and fed.
        self.before_sign, self.signs = self.tokens(" +")[:-1], {sign: self.tokens(f" {sign}")[-1] for sign in "+-"}
        self.digits = [self._single(digit) for digit in "0123456789"]
        # The same tokens are always the same tensor, so that choices among them are weighed together.
        self._any_of = cache(lambda *tokens: torch.tensor(tokens, dtype=torch.int64))
        self._any_digit = cache(lambda digits: self._any_of(*(self.digits[int(digit)] for digit in digits)))
        self._characters = {token: c for c, token in [*self.signs.items(), *zip("0123456789", self.digits, strict=True)]}
        special = set(tokenizer.all_special_ids) | {int(i) for i in tokenizer.added_tokens_decoder}
        texts = {i: tokenizer.decode([i]) for i in range(len(tokenizer)) if i not in special}
        begin = [i for i, text in texts.items() if text == " " or (text[:1] == " " and _is_word(text[1:]))]
        more = [i for i, text in texts.items() if _is_word(text)]
        self.space = self._single(" ")
        # What may stand in a scene: at its start, after a lone space, in the last word, and elsewhere.
        self.begin, self.letters = torch.tensor(begin), torch.tensor(more)
        self.within, self.anything = torch.tensor([*more, self.end]), torch.tensor([*begin, *more, self.end])
        self._begins = frozenset(begin)

    def after(self, place: Place, token: int) -> Tensor:
        """(n,) the digits that may follow if ``token`` is chosen at ``place`` of a number, in rising order; none if a point
        comes next or nothing."""
        following = _following(place.kind, place.key, place.prefix + self.character(token)) or ""
        return self._any_digit(following.strip("."))

    def is_number(self, place: Place) -> bool:
        """Whether digits or a sign are chosen there."""
        return place.kind is not None and place.key != "presence"

    def character(self, token: int) -> str:
        """The digit or sign that ``token`` is."""
        return self._characters[token]

    def write(
        self, fields: Sequence[str], lean: Sequence[float] = (0.0,) * len(KINDS), given: Sequence[bool] = ()
    ) -> Script:
        """The form up to the last line that ``fields`` ask for. lean: for each of ``KINDS``, added to the log-odds that it
        is there. given: of the first of ``KINDS`` whether they are there, which is no choice then."""
        last = max(FIELDS.index(field) for field in fields)
        present, text = [], "Degradations: "
        for place, (kind, towards) in enumerate(zip(KINDS, lean, strict=True)):
            text += NAMES[kind]
            if place < len(given):
                there, text = given[place], f"{text} {'yes' if given[place] else 'no'}"
            else:
                there = (yield Choice(Place(kind, "presence"), self.tokens(text), self.flags, towards)) == self.flags[1]
                text = ""
            present += [kind] * bool(there)
            text += ", "
        text = text.removesuffix(", ") + "."
        if present and last >= FIELDS.index("severity"):
            text += "\nSeverity: "
            for kind in present:
                text = yield from self._number(kind, "severity", f"{text}{NAMES[kind]}")
                text += ", "
            text = text.removesuffix(", ") + "."
        if last >= FIELDS.index("parameters"):
            for kind in present:
                text += f"\n{NAMES[kind].capitalize()}: "
                for key in list(quantities(FINDINGS[kind]))[1:]:
                    text = yield from self._number(kind, key, f"{text}{_quantity(kind, key).label}")
                    text += ", "
                text = text.removesuffix(", ") + "."
        if last < FIELDS.index("scene"):
            return self.tokens(text)
        # The two ways on part within a token: a full stop and a line break may be one.
        stop, go = [*self.tokens(text), self.end], self.tokens(text + "\nScene:")
        same = next(i for i, (a, b) in enumerate(zip(stop, go, strict=False)) if a != b)
        token = yield Choice(Place(None, "described"), stop[:same], self._any_of(stop[same], go[same]))
        if token == stop[same]:
            return stop[same + 1 :]
        yield from self._scene(go[same + 1 :])
        return []

    def _number(self, kind: str, key: str, text: str) -> Generator[Choice, int, str]:
        """A quantity's numbers after ``text``; returns what has to be fed before whatever comes next."""
        spec = _quantity(kind, key)
        for index in range(spec.count):
            text, prefix = (text, "") if spec.signed else (text + " ", "")
            while (following := _following(kind, key, prefix)) is not None:
                if len(following) == 1:
                    text += following if following not in "+-" else f" {following}"
                    prefix += following
                    continue
                signs = following == "+-"
                allowed = self._any_of(*self.signs.values()) if signs else self._any_digit(following)
                feed = self.tokens(text) + self.before_sign * signs
                token = yield Choice(Place(kind, key, index, prefix), feed, allowed)
                prefix += self.character(token)
                text = ""
        return text + (f" {spec.unit}" if spec.unit else "")

    def _scene(self, feed: list[int]) -> Generator[Choice, int, None]:
        allowed, words = self.begin, 0
        for _ in range(MAX_SCENE_TOKENS):
            token = yield Choice(Place(None, "scene"), feed, allowed)
            if token == self.end:
                return
            words += token in self._begins
            feed, allowed = [], self.anything if words < MAX_SCENE_WORDS else self.within
            if token == self.space:
                allowed = self.letters

    def _single(self, text: str) -> int:
        ids = self.tokens(text)
        if len(ids) != 1:
            raise ValueError(f"the tokenizer splits {text!r} into {len(ids)} tokens; the form needs it to be one")
        return ids[0]


@cache
def next_characters(spec: Quantity, prefix: str) -> str | None:
    """The characters that may follow ``prefix`` so that a number within the bounds can still come of it, in the one
    printed form; None where the number is complete."""
    if spec.signed and not prefix:
        return ("+" if spec.high >= 0 else "") + ("-" if spec.low < 0 else "")
    digits = prefix.lstrip("+-").replace(".", "")
    missing = spec.digits + spec.decimals - len(digits)
    if missing == 0:
        return None
    if len(digits) == spec.digits and spec.decimals and not prefix.endswith("."):
        return "."
    unit = 10**spec.decimals
    low, high = round(spec.low * unit), round(spec.high * unit) - (spec.period is not None)  # 180 degrees read 000
    if spec.signed:
        low, high = (1, -low) if prefix[0] == "-" else (max(low, 0), high)  # no negative zero
    reach = 10 ** (missing - 1)
    starts = ((int(digits + c) * reach, c) for c in "0123456789")
    return "".join(c for start, c in starts if start <= high and start + reach - 1 >= low)


@cache
def _following(kind: str, key: str, prefix: str) -> str | None:
    return next_characters(_quantity(kind, key), prefix)


@cache
def _quantity(kind: str, key: str) -> Quantity:
    return quantities(FINDINGS[kind])[key]


def _is_word(text: str) -> bool:
    return bool(text) and text.isprintable() and not any(c.isspace() for c in text) and "\ufffd" not in text
