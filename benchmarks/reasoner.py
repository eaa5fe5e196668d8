"""How fast a compact reasoner is: ``python -m benchmarks.reasoner``, the shipped one, or the one in ``--reasoner FOLDER``.

Contestants answer about the same photos by the same model from the same prompt. Plain generation is transformers' own
``generate``, token after token to the end of the answer, as one would write it first; its answer is the same but for the
form, which it is not held to.

Before it answers, a reasoner looks: the photo's views go through the vision tower, and with the question into the language
model. All contestants do, and no decoding is faster than that alone.

What a reasoner remembers of other answers is where its guesses begin. So it is timed twice: remembering nothing, and what it
wrote about another photo; never what it wrote about this one.

On one core CPU time counts, which a busy machine disturbs less than it does the clock on the wall; on two it is the clock.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.timing import print_table
from rnr.command_line import add_weights
from rnr.data.depth import depth_of
from rnr.data.photos import Photo, open_photo, shipped_photos
from rnr.degradation import Degrader
from rnr.models.load import load_reasoner
from rnr.models.qwen3vl import Qwen3VLReasoner

ROUNDS = 5
SIDE = 480
GOALS = {"severities alone": 12.0, "full diagnosis": 4.0}


def photos(photo: Photo, count: int) -> torch.Tensor:
    """(B, 3, 480, 480): a corner of a photo that ships along, degraded anew for each."""
    pixels = torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1).contiguous()
    depth = depth_of(photo, pixels)
    image, far = (part[:, :SIDE, :SIDE].float()[None].expand(count, -1, -1, -1) / 255 for part in (pixels, depth))
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return Degrader.apply(image, far, Degrader().sample(generators)).image


@torch.no_grad()
def plain(reasoner: Qwen3VLReasoner, images: torch.Tensor, tokens: int | None = None) -> object:
    """transformers' ``generate`` on the same prompt: just so many tokens, or to the end of each answer."""
    prompt = reasoner._prompt(images)
    return reasoner.model.generate(
        **prompt,
        attention_mask=torch.ones_like(prompt["input_ids"]),
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens or 384,
        eos_token_id=reasoner.form.end,
        pad_token_id=reasoner.tokenizer.pad_token_id,
    )


@torch.no_grad()
def look(reasoner: Qwen3VLReasoner, images: torch.Tensor) -> None:
    """Up to where the answer begins."""
    with reasoner._read(images):
        pass


def seconds(runs: dict[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """By ``clock``: contestants take turns, and the median of each one's rounds counts."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = clock()
            run()
            spent[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reasoner")
    add_weights(parser, "reasoner")
    reasoner = load_reasoner(parser.parse_args().reasoner).eval()
    reasoner.looks, reasoner.afar = 1, False  # as the rival does
    reasoner.diagnose(photos(shipped_photos("train")[0], 8))
    remembered = dict(reasoner._memory)

    def answer(how: Callable[[torch.Tensor], object], images: torch.Tensor, memory: dict) -> None:
        reasoner._memory = dict(memory)
        how(images)

    def contestants(images: torch.Tensor) -> dict[str, Callable[[], object]]:
        runs = {"plain generate": partial(plain, reasoner, images), "looking alone": partial(look, reasoner, images)}
        for name, how in (("full diagnosis", reasoner.diagnose), ("severities alone", reasoner.severities)):
            for what, memory in (("nothing", {}), ("another photo", remembered)):
                runs[f"{name}, {what} remembered"] = partial(answer, how, images, memory)
        return runs

    for cores, clock in ((1, time.process_time), (2, time.perf_counter)):
        torch.set_num_threads(cores)
        rows = []
        for batch in (1, 8):
            spent = seconds(contestants(photos(shipped_photos("test")[0], batch)), clock)
            for name, each in spent.items():
                ratio, goal = spent["plain generate"] / each, GOALS.get(name.partition(",")[0])
                verdict = "" if goal is None else f"{goal:g}: {'reached' if ratio >= goal else 'not reached'}"
                rows.append([name, str(batch), f"{each / batch:.4f}", f"{ratio:.1f}", verdict])
        by = "one core: CPU seconds" if cores == 1 else f"{cores} threads: seconds on the clock"
        title = f"Reasoner, {SIDE} x {SIDE} photos, {by} a photo"
        print_table(title, ["", "batch", "s/photo", "times as fast as plain", "goal"], rows)


if __name__ == "__main__":
    main()
