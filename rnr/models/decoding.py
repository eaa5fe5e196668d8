"""Greedy decoding of a form, for a batch of photos at once and with no token run that is not needed.

Fixed tokens are fed together with the choice before them, so the model runs once a choice and not once a token. Each
photo follows a script of its own: in one pass the photos that are least far in the form feed what they have up to their
next choice, aligned on the right, while the others wait for them. What is only there for the sake of alignment is masked,
for good.

Of a number, greedy decoding sees one digit after the other and never what would have followed another digit. Where that
is asked for, a digit's rivals run along with it in the same pass, each seeing what stands before and itself alone, and
are masked afterwards: so each choice also knows its :attr:`Decision.rivals`. Rivals without a chance are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from rnr.models.form import Choice, Form, Script

LEAST = 1e-3  # chance of a rival that is looked at


@dataclass(frozen=True)
class Question:
    """A batch of B photos that was read up to where the answer begins: ``length`` tokens each, whose keys and values
    ``cache`` holds. position: of the next token, the same for all."""

    cache: DynamicCache
    length: int
    position: int


@dataclass(frozen=True)
class Decision:
    """What was chosen, and log-probabilities (n,) of the n tokens that were allowed, in float32.

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


def write(
    model: Qwen3VLForConditionalGeneration, question: Question, scripts: Sequence[Script], form: Form | None = None
) -> list[Answer]:
    """One answer a script; ``question.cache`` takes up what is written. ``form``: given, rivals are looked at too.
    Gradients flow through log-probabilities where they are enabled."""
    device = question.cache.layers[0].keys.device
    answers = [Answer() for _ in scripts]
    choices = {row: next(script) for row, script in enumerate(scripts)}
    pending = {row: choice.feed for row, choice in choices.items()}
    rivals: dict[int, list[int]] = {}
    positions = [question.position] * len(scripts)
    seen = torch.ones(len(scripts), question.length, dtype=torch.bool, device=device)
    while pending:
        front = _front(pending, choices)
        feed = [pending.pop(row) if row in front else [] for row in range(len(scripts))]
        others = [rivals.pop(row, []) if row in front else [] for row in range(len(scripts))]
        ids, fed, places = _align(feed, others, positions, device)
        seen = torch.cat([seen, fed], dim=1)
        hidden = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(ids),
            position_ids=places.expand(3, -1, -1),
            attention_mask=_mask(seen, feed, others),
            past_key_values=question.cache,
            use_cache=True,
        ).last_hidden_state
        positions = [place + len(tokens) for place, tokens in zip(positions, feed, strict=True)]
        # Every state that something is read off, in one go: the rivals', then those that choose.
        at = [(r, ids.shape[1] - len(feed[r]) - len(others[r]) + i) for r in front for i in range(len(others[r]))]
        choosing = [row for row in front if row in choices]
        at += [(row, ids.shape[1] - 1) for row in choosing]
        logits = model.lm_head(hidden[[row for row, _ in at], [column for _, column in at]]).float()
        of_rivals = iter(logits)
        for row in front:
            for token in others[row]:
                last = answers[row].decisions[-1]
                last.rivals[token] = next(of_rivals)[form.after(last.choice.place, token)].log_softmax(dim=0)
        if not choosing:
            continue
        for row, decision in _decide(logits[-len(choosing) :], {row: choices[row] for row in choosing}).items():
            answers[row].tokens.extend([*decision.choice.feed, decision.token])
            answers[row].decisions.append(decision)
            watched = [] if form is None else _rivals(decision, form)
            if watched:
                rivals[row] = watched
            try:
                choices[row] = scripts[row].send(decision.token)
                pending[row] = [decision.token, *choices[row].feed]
            except StopIteration as stop:
                del choices[row]
                answers[row].tokens.extend(stop.value)
                if watched:
                    pending[row] = [decision.token]
    return answers


def _front(pending: dict[int, list[int]], choices: dict[int, Choice]) -> list[int]:
    """The rows to go on with: those whose next choice comes first in the form, and those that have none left."""
    ranks = {row: choices[row].place.rank if row in choices else () for row in pending}
    least = min(ranks.values())
    return sorted(row for row, rank in ranks.items() if rank == least)


def _rivals(decision: Decision, form: Form) -> list[int]:
    """The tokens that were not chosen, have a chance, and have choices of their own right behind them; none outside of
    numbers."""
    place = decision.choice.place
    if not form.is_number(place):
        return []
    chances = decision.log_probabilities.detach().exp().tolist()
    return [
        token
        for token, chance in zip(decision.choice.allowed.tolist(), chances, strict=True)
        if chance >= LEAST and token != decision.token and form.after(place, token)
    ]


def _align(
    feed: list[list[int]], others: list[list[int]], positions: list[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, whether they are to stay, and their positions, (B, Q) each, aligned on the right. ``others``, a photo's
    rivals, stand before what it feeds, at the position of the first token of that."""
    width = max(len(tokens) + len(rivals) for tokens, rivals in zip(feed, others, strict=True))
    ids, fed, places = [], [], []
    for tokens, rivals, start in zip(feed, others, positions, strict=True):
        fill = width - len(tokens) - len(rivals)
        ids.append([0] * fill + rivals + tokens)
        fed.append([False] * (fill + len(rivals)) + [True] * len(tokens))
        places.append([0] * fill + [start] * len(rivals) + [start + i for i in range(len(tokens))])
    return torch.tensor(ids, device=device), torch.tensor(fed, device=device), torch.tensor(places, device=device)


def _mask(seen: Tensor, feed: list[list[int]], others: list[list[int]]) -> Tensor:
    """(B, 1, Q, K): what each of the last Q tokens of ``seen`` (B, K) may look at. Rivals see themselves and are seen by
    nobody else."""
    width = max(len(tokens) + len(rivals) for tokens, rivals in zip(feed, others, strict=True))
    mask = seen[:, None, None, :].repeat(1, 1, width, 1)
    mask[..., -width:] &= torch.ones(width, width, dtype=torch.bool, device=seen.device).tril()
    for row, (tokens, rivals) in enumerate(zip(feed, others, strict=True)):
        behind = range(len(tokens) + 1, len(tokens) + len(rivals) + 1)
        mask[row, 0, [width - i for i in behind], [seen.shape[1] - i for i in behind]] = True
    mask[..., 0] = True  # tokens that are masked themselves have to see something, or they turn to NaN
    return mask


def _decide(logits: Tensor, choices: dict[int, Choice]) -> dict[int, Decision]:
    """The most likely of what is allowed, by row (photo). logits: (n, vocabulary), in the order of ``choices``."""
    rows = list(choices)
    allowed = torch.nn.utils.rnn.pad_sequence(
        [choices[row].allowed for row in rows], batch_first=True, padding_value=-1
    ).to(logits.device)
    scores = logits.gather(1, allowed.clamp(min=0)).masked_fill(allowed < 0, float("-inf"))
    scores = scores.log_softmax(dim=1)
    best = scores.argmax(dim=1, keepdim=True)
    tokens = allowed.gather(1, best).squeeze(1).tolist()
    return {
        row: Decision(choices[row], token, scores[i, : len(choices[row].allowed)])
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
    }
