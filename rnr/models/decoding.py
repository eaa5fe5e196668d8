"""Greedy decoding of a form, for a batch of photos at once, many choices in one pass.

What a photo shows decides its numbers more than its numbers decide each other. So an answer is guessed ahead, and one pass
tells what the model would have chosen at each place (Jacobi decoding: Santilli et al., Accelerating Transformer Inference
for Translation via Parallel Decoding, ACL 2023). All choices up to the first that differs from its guess, and that one, are
settled: before them stand the very tokens that greedy decoding would have put there. What was chosen further on are the
next guesses. Each pass settles a choice at least, so the answer is that of greedy decoding, token for token, in no more
passes.

Of a number, greedy decoding sees one digit after the other and never what would have followed another digit. Where that
is asked for, the rivals of the digits that a pass has settled run along with the next one, each seeing what stands before
it and itself alone: so each choice also knows its :attr:`Decision.rivals`. Rivals without a chance are left out.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from rnr.models.form import Choice, Form, Script

LEAST = 1e-3  # chance of a rival that is looked at
AHEAD = {"cpu": 56, "cuda": 2048}  # about so many tokens a pass, for all answers: what costs little beside the pass's calls
MOST = 64  # tokens that are chosen among and weighed: not among words, of which a vocabulary has a hundred thousand
EACH = 24  # of one answer at least
ROOM = 64  # columns by which a sheet grows
MEMORY = 2**16  # places that are remembered

Memory = dict[tuple, int]
"""What was chosen last, by :func:`_where`: the first guesses of other answers. It changes how fast they are written, not
what is written, but for rounding: two tokens may be as good as equally likely, which in bfloat16 are not a few, and passes
that take in other tokens round otherwise."""


@dataclass(frozen=True)
class Question:
    """A batch of B photos that was read up to where the answer begins: ``length`` tokens each, whose keys and values
    ``cache`` holds. position: of the next token, the same for all."""

    cache: DynamicCache
    length: int
    position: int

    @property
    def count(self) -> int:
        """B."""
        return len(self.cache.layers[0].keys)

    def of(self, rows: Sequence[int]) -> "Question":
        """About photos of it, in any order, one several times too."""
        if list(rows) == list(range(self.count)):
            return self
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        return dataclasses.replace(self, cache=cache)


@dataclass(frozen=True)
class Decision:
    """What was chosen, and log-probabilities (n,) of the n tokens that were allowed, in float32; of words, none.

    rivals: for digits that were not chosen, the log-probabilities of what may follow them, as :meth:`Form.after` has it;
    only where asked for, where another digit follows at once, and of a chance of at least :data:`LEAST`.
    """

    choice: Choice
    token: int
    log_probabilities: Tensor
    rivals: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """tokens: all of the text's. decisions: in the order in which they were taken."""

    tokens: list[int] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


def read(model: Qwen3VLForConditionalGeneration, prompt: dict[str, Tensor]) -> Question:
    """prompt: the model's inputs for B photos of one size, so that one photo's positions are everyone's."""
    ids, grid = prompt["input_ids"], prompt["image_grid_thw"]
    kinds = prompt["mm_token_type_ids"][:1]
    positions, _ = model.model.get_rope_index(ids[:1], kinds, grid[: len(grid) // len(ids)])
    cache = DynamicCache(config=model.config.text_config)
    model.model(
        input_ids=ids,
        position_ids=positions.expand(-1, len(ids), -1),
        pixel_values=prompt["pixel_values"],
        image_grid_thw=grid,
        past_key_values=cache,
        use_cache=True,
    )
    return Question(cache, ids.shape[1], int(positions.max()) + 1)


@torch.no_grad()
def write(
    model: Qwen3VLForConditionalGeneration,
    question: Question,
    scripts: Sequence[Callable[[], Script]],
    form: Form | None = None,
    memory: Memory | None = None,
) -> list[Answer]:
    """One answer a script, which is begun anew for each pass. ``form``: given, rivals are looked at too. ``memory``: given,
    guesses are taken from it, and what is chosen goes into it."""
    memory = {} if memory is None else memory
    if len(memory) > MEMORY:
        memory.clear()
    lines = [_Line(script, memory) for script in scripts]
    sheet, active = _Sheet(question), lines
    while active:
        reach = AHEAD.get(sheet.keys[0].device.type, AHEAD["cuda"]) // len(active)
        for line in active:
            line.look_ahead(max(reach, EACH))
        left = [i for i, line in enumerate(active) if line.ahead or line.rivals]
        if left and len(left) < len(active):
            sheet.keep(left)
        active = [active[i] for i in left]
        if active:
            _take_in(model, sheet, active, form)
    return [Answer(line.tokens, line.decisions) for line in lines]


def weighed_again(
    model: Qwen3VLForConditionalGeneration,
    question: Question,
    answers: Sequence[Answer],
    scripts: Sequence[Callable[[], Script]],
    form: Form,
) -> list[Answer]:
    """Answers that are written, one a photo, and all that was weighed in them, in one pass: with the gradient that the
    question has, which none of the passes that wrote them keeps. scripts: those that they follow; where one leaves a choice
    that had been given, that is weighed too."""
    lines = [_Written(answer, script()) for answer, script in zip(answers, scripts, strict=True)]
    _take_in(model, _Sheet(question), lines, form)
    return [Answer(line.tokens, line.decisions) for line in lines]


@dataclass(frozen=True)
class _Ahead:
    """A choice that is not settled, the token that is guessed for it, or None, and how many of the answer's tokens stand
    before it."""

    choice: Choice
    guess: int | None
    at: int


class _Line:
    """One photo's answer while it is written. tokens: settled, then guessed. fed: how many of them the sheet holds, all of
    them settled. rivals: those that the next pass is to look at, with the choice they belong to and where it stands."""

    def __init__(self, script: Callable[[], Script], memory: Memory) -> None:
        self.script, self.memory = script, memory
        self.tokens: list[int] = []
        self.decisions: list[Decision] = []
        self.ahead: list[_Ahead] = []
        self.rivals: list[tuple[Decision, int, int]] = []
        self.fed = 0
        self._guesses: Memory = {}

    @property
    def feed(self) -> list[int]:
        """The tokens that the next pass is to take in: up to the last choice that is ahead."""
        return self.tokens[self.fed : self.ahead[-1].at] if self.ahead else []

    def look_ahead(self, reach: int) -> None:
        """Guesses on, over about ``reach`` tokens, to where there is nothing to guess by. Once all choices are settled,
        nothing is ``ahead`` and ``tokens`` are the whole answer."""
        script, settled = self.script(), iter(self.decisions)
        self.tokens, self.ahead = [], []
        try:
            choice = next(script)
            while True:
                self.tokens += choice.feed
                if (decision := next(settled, None)) is not None:
                    token = decision.token
                else:
                    token = self._guess(choice)
                    self.ahead.append(_Ahead(choice, token, len(self.tokens)))
                    if token is None or len(self.tokens) - self.fed >= reach:
                        return
                self.tokens.append(token)
                choice = script.send(token)
        except StopIteration as stop:
            self.tokens += stop.value

    def settle(self, chosen: Sequence[tuple[int, Tensor]], form: Form | None) -> None:
        """chosen: for each choice that is ahead the likeliest token, and log-probabilities of what was allowed."""
        self.rivals = []
        right = True
        for ahead, (token, scores) in zip(self.ahead, chosen, strict=True):
            where = _where(ahead.choice, self.tokens[ahead.at - 2 : ahead.at])
            self._guesses[where] = token
            if not right:
                continue
            decision = Decision(ahead.choice, token, scores)
            self.decisions.append(decision)
            self.rivals += [(decision, rival, ahead.at) for rival in _rivals(decision, form)]
            self.memory[where] = token
            self.fed, right = ahead.at, token == ahead.guess

    def _guess(self, choice: Choice) -> int | None:
        where = _where(choice, self.tokens[-2:])
        guess = self._guesses.get(where, self.memory.get(where))
        if choice.place.key == "scene":
            return guess
        allowed = choice.allowed.tolist()
        first = allowed[-1] if choice.place.key == "presence" else allowed[0]  # yes: so a pass sees all that may come of it
        return guess if guess in allowed else first


class _Written(_Line):
    """An answer that is written, all of it ahead once more, with the rivals that it had."""

    def __init__(self, answer: Answer, script: Script) -> None:
        self.tokens, self.fed = answer.tokens, 0
        self.decisions, self.ahead, self.rivals = [], [], []
        rivals = {decision.choice.place: decision.rivals for decision in answer.decisions}
        at, token = 0, None
        with suppress(StopIteration):
            while True:
                choice = next(script) if token is None else script.send(token)
                at += len(choice.feed)
                token = self.tokens[at]
                self.ahead.append(_Ahead(choice, token, at))
                self.decisions.append(again := Decision(choice, token, torch.empty(0)))
                self.rivals += [(again, rival, at) for rival in rivals.get(choice.place, ())]
                at += 1

    def settle(self, chosen: Sequence[tuple[int, Tensor]], form: Form | None) -> None:
        """The same tokens, by what is weighed now."""
        pairs = zip(self.decisions, chosen, strict=True)
        self.decisions = [dataclasses.replace(each, log_probabilities=scores) for each, (_, scores) in pairs]


class _Sheet:
    """Keys and values (B, H, K, D) of each layer, by column: as a cache of transformers, one that writes a token where it
    stands, over whatever stood there."""

    def __init__(self, question: Question) -> None:
        self.start, self.shift = question.length, question.position - question.length
        self.keys = [layer.keys for layer in question.cache.layers]
        self.values = [layer.values for layer in question.cache.layers]

    def keep(self, rows: list[int]) -> None:
        self.keys, self.values = ([part[rows] for part in parts] for parts in (self.keys, self.values))

    def turn_to(self, columns: Tensor) -> None:
        """Where to write next. columns: (B, Q)."""
        self._rows, self._columns = torch.arange(len(columns), device=columns.device)[:, None], columns
        self.width = int(columns.max()) + 1
        missing = self.width - self.keys[0].shape[2]
        if missing > 0:
            room = (0, 0, 0, missing + ROOM)  # zeros: what is masked must be finite all the same
            self.keys, self.values = ([F.pad(part, room) for part in parts] for parts in (self.keys, self.values))

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        for sheet, new in ((self.keys[layer], keys), (self.values[layer], values)):
            sheet[self._rows, :, self._columns] = new.transpose(1, 2).to(sheet)  # autocast is of two minds about types
        return self.keys[layer][:, :, : self.width], self.values[layer][:, :, : self.width]


def _take_in(model: Qwen3VLForConditionalGeneration, sheet: _Sheet, lines: Sequence[_Line], form: Form | None) -> None:
    """One pass: what each line feeds and, behind it, its rivals. These have columns of their own, but the place of the digit
    that was chosen instead. A token sees the columns before its place, and itself."""
    device = sheet.keys[0].device
    width = max(len(line.feed) + len(line.rivals) for line in lines)
    ids, places, states, wanted, leaning = [], [], [], [], []
    for row, line in enumerate(lines):
        feed = line.feed
        fill = width - len(feed) - len(line.rivals)
        ids.append(feed + [token for _, token, _ in line.rivals] + [0] * fill)
        places.append([line.fed + i for i in range(len(feed))] + [at for _, _, at in line.rivals] + [0] * fill)
        states += [(row, ahead.at - line.fed - 1) for ahead in line.ahead]
        states += [(row, len(feed) + i) for i in range(len(line.rivals))]
        leaning += [(len(wanted) + i, ahead.choice) for i, ahead in enumerate(line.ahead) if ahead.choice.lean]
        wanted += [ahead.choice.allowed for ahead in line.ahead]
        wanted += [form.after(decision.choice.place, token) for decision, token, _ in line.rivals]
    fed = torch.tensor([[line.fed] for line in lines], device=device)
    places = torch.tensor(places, device=device) + sheet.start
    columns = fed + torch.arange(width, device=device) + sheet.start
    sheet.turn_to(columns)
    every = torch.arange(sheet.width, device=device)
    hidden = model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(torch.tensor(ids, device=device)),
        position_ids=(places + sheet.shift).expand(3, -1, -1),
        attention_mask=((every < places[..., None]) | (every == columns[..., None]))[:, None],
        past_key_values=sheet,
        use_cache=True,
    ).last_hidden_state
    rows, at = zip(*states, strict=True)
    logits = model.lm_head(hidden[rows, at]).float()
    for row, choice in leaning:
        logits[row, choice.allowed[-1]] += choice.lean
    chosen = iter(_choose(logits, wanted))
    for line in lines:
        ahead, rivals = [next(chosen) for _ in line.ahead], line.rivals
        for decision, token, _ in rivals:
            _, decision.rivals[token] = next(chosen)
        line.settle(ahead, form)


def _choose(logits: Tensor, wanted: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
    """For each row of logits (n, vocabulary) the likeliest of the tokens that are wanted, and log-probabilities of them, of
    words none."""
    alike: dict[int, list[int]] = {}  # rows of which the very same tokens are wanted
    for row, tokens in enumerate(wanted):
        alike.setdefault(id(tokens), []).append(row)
    chosen: dict[int, tuple[int, Tensor]] = {}
    for rows in alike.values():
        tokens = wanted[rows[0]].to(logits.device)
        scores = logits[rows][:, tokens]
        best = tokens[scores.argmax(dim=1)].tolist()
        told = scores.log_softmax(dim=1) if len(tokens) <= MOST else logits.new_empty(len(rows), 0)
        chosen |= zip(rows, zip(best, told, strict=True), strict=True)
    return [chosen[row] for row in range(len(wanted))]


def _rivals(decision: Decision, form: Form | None) -> list[int]:
    """The tokens that were not chosen, have a chance, and have choices of their own right behind them; none outside of
    numbers."""
    place = decision.choice.place
    if form is None or not form.is_number(place):
        return []
    chances = decision.log_probabilities.exp().tolist()
    return [
        token
        for token, chance in zip(decision.choice.allowed.tolist(), chances, strict=True)
        if chance >= LEAST and token != decision.token and len(form.after(place, token))
    ]


def _where(choice: Choice, before: Sequence[int]) -> tuple:
    """Where guesses for a choice are kept: by its place in the form, in a scene by the two tokens ``before`` it."""
    place = choice.place
    return tuple(before) if place.key == "scene" else (place.kind, place.key, place.index, len(place.prefix))
