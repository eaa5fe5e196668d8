"""Greedy decoding of a form, for a batch of photos at once and with no token run that is not needed.

Fixed tokens are fed together with the choice before them, so the model runs once a choice and not once a token. Each
photo follows a script of its own: in one pass every photo that is not done feeds all that it has up to its next choice,
aligned on the right. What is only there for the sake of alignment is masked, for good.

Of a number, greedy decoding sees one digit after the other and never what would have followed another digit. Where that
is asked for, a digit's rivals run along with it in the same pass, each seeing what stands before and itself alone, and
are masked afterwards: so each choice also knows its :attr:`Decision.rivals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from rnr.models.form import Choice, Form, Script


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
    only where asked for, and where another digit follows at once.
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
    pending = [choices[row].feed for row in range(len(scripts))]
    positions = [question.position] * len(scripts)
    seen = torch.ones(len(scripts), question.length, dtype=torch.bool, device=device)
    rivals: dict[int, list[int]] = {}
    while choices or rivals:
        ids, fed, places = _align(pending, positions, rivals, device)
        seen = torch.cat([seen, fed], dim=1)
        hidden = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(ids),
            position_ids=places.expand(3, -1, -1),
            attention_mask=_mask(seen, ids.shape[1], pending, rivals),
            past_key_values=question.cache,
            use_cache=True,
        ).last_hidden_state
        for row, tokens in rivals.items():
            end = ids.shape[1] - len(pending[row])
            logits = model.lm_head(hidden[row, end - len(tokens) : end]).float()
            for token, scores in zip(tokens, logits, strict=True):
                following = form.after(answers[row].decisions[-1].choice.place, token)
                answers[row].decisions[-1].rivals[token] = scores[following.to(device)].log_softmax(dim=0)
        positions = [place + len(tokens) for place, tokens in zip(positions, pending, strict=True)]
        pending, rivals = [[] for _ in scripts], {}
        for row, decision in _decide(model.lm_head(hidden[:, -1]), choices).items() if choices else ():
            answers[row].tokens.extend([*decision.choice.feed, decision.token])
            answers[row].decisions.append(decision)
            pending[row] = [decision.token]
            if form is not None and (others := _rivals(decision, form)):
                rivals[row] = others
            try:
                choices[row] = scripts[row].send(decision.token)
                pending[row] += choices[row].feed
            except StopIteration as stop:
                del choices[row]
                answers[row].tokens.extend(stop.value)
                if row not in rivals:
                    pending[row] = []
    return answers


def _rivals(decision: Decision, form: Form) -> list[int]:
    """The tokens that were not chosen and have choices of their own right behind them; none outside of numbers."""
    place = decision.choice.place
    if not form.is_number(place):
        return []
    return [t for t in decision.choice.allowed.tolist() if t != decision.token and len(form.after(place, t)) > 0]


def _align(
    pending: list[list[int]], positions: list[int], rivals: dict[int, list[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, whether they are to stay, and their positions, (B, Q) each, aligned on the right. A photo's rivals stand
    before its pending tokens, at the position of the first of them."""
    width = max(len(tokens) + len(rivals.get(row, ())) for row, tokens in enumerate(pending))
    ids, fed, places = [], [], []
    for row, (tokens, start) in enumerate(zip(pending, positions, strict=True)):
        others = rivals.get(row, [])
        fill = width - len(tokens) - len(others)
        ids.append([0] * fill + others + tokens)
        fed.append([False] * (fill + len(others)) + [True] * len(tokens))
        places.append([0] * fill + [start] * len(others) + [start + i for i in range(len(tokens))])
    return torch.tensor(ids, device=device), torch.tensor(fed, device=device), torch.tensor(places, device=device)


def _mask(seen: Tensor, width: int, pending: list[list[int]], rivals: dict[int, list[int]]) -> Tensor:
    """(B, 1, Q, K): what each of the last Q = ``width`` tokens of ``seen`` (B, K) may look at. Rivals see themselves and
    are seen by nobody else."""
    mask = seen[:, None, None, :].repeat(1, 1, width, 1)
    mask[..., -width:] &= torch.ones(width, width, dtype=torch.bool, device=seen.device).tril()
    for row, others in rivals.items():
        end = width - len(pending[row])
        mask[row, 0, range(end - len(others), end), range(-len(pending[row]) - len(others), -len(pending[row]))] = True
    mask[..., 0] = True  # tokens that are masked themselves have to see something, or they turn to NaN
    return mask


def _decide(logits: Tensor, choices: dict[int, Choice]) -> dict[int, Decision]:
    """The most likely of what is allowed, for each row (photo) that has a choice to make. logits: (B, vocabulary)."""
    rows = list(choices)
    allowed = torch.nn.utils.rnn.pad_sequence(
        [choices[row].allowed for row in rows], batch_first=True, padding_value=-1
    ).to(logits.device)
    scores = logits[rows].float().gather(1, allowed.clamp(min=0)).masked_fill(allowed < 0, float("-inf"))
    scores = scores.log_softmax(dim=1)
    best = scores.argmax(dim=1, keepdim=True)
    tokens = allowed.gather(1, best).squeeze(1).tolist()
    return {
        row: Decision(choices[row], token, scores[i, : len(choices[row].allowed)])
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
    }
