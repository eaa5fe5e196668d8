"""How fast the shipped reasoner is: ``python -m benchmarks.reasoner``.

Contestants answer about the same photos by the same model from the same prompt. Plain generation is transformers' own
``generate``, token after token to the end of the answer, as one would write it first; its answer is the same but for the
form, which it is not held to.
"""

import os
import time
from collections.abc import Callable

import torch

from benchmarks.timing import print_table
from rnr.data.depth import depth_of
from rnr.data.photos import open_photo, shipped_photos
from rnr.degradation import Degrader
from rnr.models.load import load_reasoner
from rnr.models.qwen3vl import Qwen3VLReasoner

ROUNDS = 5
SIDE = 480
GOALS = {"severities alone": 12.0, "full diagnosis": 4.0}


def photos(count: int) -> torch.Tensor:
    """(B, 3, 480, 480): the middle of a photo that ships along, degraded anew for each."""
    photo = shipped_photos("test")[0]
    pixels = torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1).contiguous()
    depth = depth_of(photo, pixels)
    image, far = (part[:, :SIDE, :SIDE].float()[None].expand(count, -1, -1, -1) / 255 for part in (pixels, depth))
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return Degrader.apply(image, far, Degrader().sample(generators)).image


@torch.no_grad()
def plain(reasoner: Qwen3VLReasoner, images: torch.Tensor) -> object:
    """transformers' ``generate`` on the same prompt."""
    prompt = reasoner._prompt(images)
    return reasoner.model.generate(
        **prompt,
        attention_mask=torch.ones_like(prompt["input_ids"]),
        do_sample=False,
        max_new_tokens=384,
        eos_token_id=reasoner.form.end,
        pad_token_id=reasoner.tokenizer.pad_token_id,
    )


def fastest(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds on the wall: contestants take turns, and the fastest of each one's rounds counts, since other processes
    only ever add to it."""
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run()
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    reasoner = load_reasoner("shipped/reasoner").eval()
    rows = []
    for cores in sorted({1, min(2, os.cpu_count() or 1)}):
        torch.set_num_threads(cores)
        for batch in (1, 8):
            images = photos(batch)
            seconds = fastest(
                {
                    "plain generate": lambda images=images: plain(reasoner, images),
                    "full diagnosis": lambda images=images: reasoner.diagnose(images),
                    "severities alone": lambda images=images: reasoner.severities(images),
                }
            )
            for name, spent in seconds.items():
                ratio = seconds["plain generate"] / spent
                goal = GOALS.get(name)
                verdict = "" if goal is None else f"{goal:g}: {'reached' if ratio >= goal else 'not reached'}"
                rows.append([name, str(cores), str(batch), f"{spent / batch:.4f}", f"{ratio:.1f}", verdict])
    title = f"Reasoner, {SIDE} x {SIDE} photos: seconds a photo"
    print_table(title, ["", "cores", "batch", "s/photo", "times as fast as plain", "goal"], rows)


if __name__ == "__main__":
    main()
