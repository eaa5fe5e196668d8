"""What a GPU makes of the full size: ``PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True python -m benchmarks.gpu``.

Qwen3-VL-8B and Qwen-Image-Edit (20 B, and the 8 B of its text encoder) with random weights in bfloat16, built on the GPU:
time and memory do not depend on what was learned. Each line is printed once it is measured; what does not fit says so,
and the rest goes on. Utilisation: operations as ``benchmarks/full_scale.py`` and ``benchmarks/scale.py`` count them, by the
seconds measured and the data sheet's operations a second. 80 GB hold the restorer, but not the reasoner beside it: there
the third stage runs without the text encoder, from encodings that were kept.

A reasoner of random weights would write noise, and how fast it writes depends on what. So its choices are replaced, after
all that is computed for them, by the truth about the photo: texts have their real length, and guesses fail as often as
photos differ. Plain ``generate`` writes as many tokens as the longest of these texts.

    python -m benchmarks.gpu [reasoner] [restorer] [grpo] [--small] [--out FILE.json]

``--small``: small models of the same classes, on a CPU too; only to see that all of it runs.
"""

import argparse
import dataclasses
import gc
import itertools
import json
import math
import multiprocessing
import platform
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import transformers
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from lightning import Trainer
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks import full_scale, scale
from benchmarks.full_scale import TERA
from benchmarks.reasoner import plain
from rnr import grpo
from rnr.data.batch import DegradedBatch
from rnr.degradation import Degrader
from rnr.diagnosis import FIELDS, Diagnosis, ParseFailure, render
from rnr.diagnosis.prompt import EXAMPLE, FULL
from rnr.diagnosis.truth import diagnoses
from rnr.metrics.restoration import as_saved
from rnr.models import decoding
from rnr.models.edit_parts import EditParts
from rnr.models.encoding_cache import EncodingCache
from rnr.models.form import Choice, Form
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.small_reasoner import SmallReasoner
from rnr.models.small_restorer import SmallRestorer
from rnr.models.views import Views
from rnr.stages import RestorerGRPO, RestorerSFT
from rnr.stages.conditioning import Conditioning
from rnr.stages.stage import Stage

Counted = dict[int, Future]
"""By side, operations of each part."""

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PARTS = ("reasoner", "restorer", "grpo")
SPECIAL = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
ROOMY = 100e9  # bytes of a GPU that holds everything at once


@contextmanager
def on_device() -> Iterator[None]:
    """What is built within is built there, its weights in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with DEVICE:
            yield
    finally:
        torch.set_default_dtype(before)


class FullReasoner(SmallReasoner):
    """Qwen3-VL-8B around the small vocabulary, whose ids lie within the large one."""

    def build(self, tokenizer: Qwen2Tokenizer, view_size: int) -> Qwen3VLForConditionalGeneration:
        own = self.config(tokenizer, view_size)
        rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]}
        text = {**scale.TEXT, "rope_parameters": rope, "pad_token_id": tokenizer.pad_token_id}
        ids = {name: getattr(own, name) for name in SPECIAL}
        with on_device():
            return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=scale.VISION, **ids))


class FullRestorer(SmallRestorer):
    """Qwen-Image-Edit around the small vocabulary."""

    def build(self, texts: list[str], dtype: torch.dtype) -> EditParts:
        small = super().build(texts, dtype)
        text = {**full_scale.WORDS, **full_scale.HEADS, "rope_parameters": full_scale.ROPE}
        ids = {name: getattr(small.text_encoder.config, name) for name in SPECIAL}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=full_scale.VISION, **ids)
        with on_device():
            return dataclasses.replace(
                small,
                transformer=QwenImageTransformer2DModel(),
                vae=AutoencoderKLQwenImage(),
                text_encoder=Qwen2_5_VLForConditionalGeneration(config),
                image_processor=Qwen2VLImageProcessorPil(patch_size=14),
            )


@dataclass(frozen=True)
class Sizes:
    """steps: of sampling, at each side."""

    reasoner: SmallReasoner
    restorer: SmallRestorer
    photos: int
    steps: dict[int, Sequence[int]]


FULL_SIZES = Sizes(FullReasoner(), FullRestorer(vocab_size=2048), 32, {512: (8, 4, 28), 1024: (4, 8, 28)})
SMALL_SIZES = Sizes(SmallReasoner(1, 64, 16, 2, 64), SmallRestorer(vocab_size=2048), 3, {64: (2, 1), 128: (1,)})


@dataclass
class Report:
    """What was measured, printed line by line and kept in ``out``. full: at the size whose operations are counted."""

    out: Path | None
    full: bool = True
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, what: str, **found: object) -> None:
        self.rows.append({"what": what, **found})
        print(f"{what:<56} " + ", ".join(f"{name} {shown(value)}" for name, value in found.items()), flush=True)
        if self.out:
            self.out.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")

    def measure(
        self, what: str, run: Callable[[], object], flop: float = math.nan, photos: int = 0, warm: bool = True
    ) -> float:
        """Seconds of ``run``, NaN where it does not fit. warm: once before, not timed."""
        seconds = math.nan
        try:
            if warm:
                run()
            seconds, peak = clocked(run)
        except torch.OutOfMemoryError:
            pass  # told below, where its traceback no longer holds tensors
        if math.isnan(seconds):
            clear()
            self.add(what, error="out of memory")
            return seconds
        found = {"s": seconds, "peak GB": peak / 1e9}
        if photos:
            found["photos/s"] = photos / seconds
        if self.full and not math.isnan(flop):
            found |= {"TFLOP": flop / TERA, "utilisation": flop / seconds / scale.FLOPS}
        self.add(what, **found)
        return seconds


def shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def clear() -> None:
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def wait() -> float:
    """The clock, once the device has done all."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def clocked(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of ``run``, and bytes at its peak, weights and all."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = wait()
    run()
    return wait() - start, float(torch.cuda.max_memory_allocated()) if DEVICE.type == "cuda" else math.nan


def pairs(side: int, count: int, seed: int = 0) -> DegradedBatch:
    """Random pixels, degraded at random; each photo has a scene of its own, of the example's words."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(count)]
    clean = as_saved(torch.rand(count, 3, side, side, generator=generators[0]))
    depth = torch.linspace(0, 1, side).expand(count, 1, side, side)
    degraded = Degrader.apply(clean, depth, Degrader().sample(generators))
    words = EXAMPLE.scene.split()
    scenes = [" ".join(random.Random(seed + i).sample(words, len(words))) for i in range(count)]
    truth, seeds = diagnoses(degraded, scenes), list(range(seed, seed + count))
    return DegradedBatch(clean.to(DEVICE), as_saved(degraded.image).to(DEVICE), truth, seeds, [str(i) for i in seeds])


def spelled(form: Form, tokens: list[int]) -> dict[tuple, int]:
    """What has to be chosen where, for ``tokens`` to be written."""
    script, chosen, at = form.write(FIELDS), {}, 0
    try:
        choice = next(script)
        while True:
            at += len(choice.feed)
            chosen[decoding._where(choice, tokens[at - 2 : at])] = tokens[at]
            choice = script.send(tokens[at])
            at += 1
    except StopIteration:
        return chosen


def answer(reasoner: Qwen3VLReasoner, truth: Diagnosis) -> list[int]:
    return [*reasoner.tokenizer(render(truth)).input_ids, reasoner.form.end]


def told(reasoner: Qwen3VLReasoner, truths: Sequence[Diagnosis]) -> AbstractContextManager[object]:
    """Within, the answers are ``truths``, one after the other and again: see the module."""
    photos = itertools.cycle([spelled(reasoner.form, answer(reasoner, truth)) for truth in truths])

    class Told(decoding._Line):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            self.said = next(photos)

        def settle(self, chosen: Sequence[tuple[int, Tensor]], form: Form | None) -> None:
            tokens = [self.true(a.choice, a.at, token) for a, (token, _) in zip(self.ahead, chosen, strict=True)]
            scores = [self.sure(a.choice, token, s) for a, token, (_, s) in zip(self.ahead, tokens, chosen, strict=True)]
            super().settle(list(zip(tokens, scores, strict=True)), form)

        def true(self, choice: Choice, at: int, token: int) -> int:
            want = self.said.get(decoding._where(choice, self.tokens[at - 2 : at]), token)
            return want if choice.place.key == "scene" or want in choice.allowed.tolist() else token

        def sure(self, choice: Choice, token: int, scores: Tensor) -> Tensor:
            """Of what is there it is sure, so that the reward has one answer of a photo to go by."""
            sure = torch.where(choice.allowed.to(scores.device) == token, 0.0, -50.0)
            return sure if choice.place.key == "presence" else scores

    return mock.patch.object(decoding, "_Line", Told)


@contextmanager
def watched(reasoner: Qwen3VLReasoner) -> Iterator[dict[str, int]]:
    """Counts the passes of its language model."""
    seen = {"passes": 0}

    def count(*_: object) -> None:
        seen["passes"] += 1

    hook = reasoner.model.model.language_model.register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def build_reasoner(sizes: Sizes) -> Qwen3VLReasoner:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as words:  # those of the prompt become whole tokens
        words.write("\n".join([json.dumps({"scene": FULL})] * 10))
        words.flush()
        views = Views(size=next(iter(sizes.steps)), tiles=0)
        reasoner = Qwen3VLReasoner(small=sizes.reasoner, scenes=Path(words.name), views=views, prompt=FULL)
    return reasoner.to(DEVICE, torch.bfloat16).eval().requires_grad_(False)


def build_restorer(sizes: Sizes, folder: str) -> QwenImageEditRestorer:
    arguments = scale.config("restorer_sft")["model"]["init_args"]["restorer"]["init_args"]
    with DEVICE:  # the adapter too
        restorer = QwenImageEditRestorer(
            small=sizes.restorer,
            lora_rank=arguments["lora_rank"],
            dtype=arguments["dtype"],
            gradient_checkpointing=arguments["gradient_checkpointing"],
            cache=EncodingCache(folder, training=True),
        )
    return restorer.to(DEVICE)


def measure_reasoner(report: Report, sizes: Sizes) -> None:
    start = wait()
    reasoner = build_reasoner(sizes)
    report.add("reasoner, built", s=wait() - start, parameters=scale.count(reasoner))
    side, count = next(iter(sizes.steps)), sizes.photos
    batch, other = pairs(side, count), pairs(side, 1, seed=count)
    asked, length = reasoner._prompt(batch.degraded)["input_ids"], max(len(answer(reasoner, t)) for t in batch.truth)
    report.add("  its tokens", prompt=asked.shape[1], longest=length)
    with told(reasoner, other.truth):
        reasoner.diagnose(other.degraded)
    remembered, spent = dict(reasoner._memory), {}

    def write(how: Callable[[Tensor], object], memory: dict) -> None:
        reasoner._memory = dict(memory)
        how(batch.degraded)

    with told(reasoner, batch.truth):
        said = reasoner.weigh(batch.degraded)
        if [render(reading.written) for reading in said] != [render(truth) for truth in batch.truth]:
            raise RuntimeError("the answers are not the truth that was put in their place")
        for name, how in (("severities", reasoner.severities), ("diagnosis", reasoner.diagnose)):
            for what, memory in (("nothing", {}), ("another photo", remembered)):
                title = f"{count} of {side} px: {name}, {what} remembered"
                with watched(reasoner) as seen:
                    spent[title] = report.measure(title, partial(write, how, memory), photos=count, warm=False)
                report.add("  of that", **seen)
    plain(reasoner, batch.degraded, 4)
    slow = report.measure(
        f"{count} of {side} px: plain generate",
        partial(plain, reasoner, batch.degraded, length),
        photos=count,
        warm=False,
    )
    for title, seconds in spent.items():
        report.add(title, times_as_fast=slow / seconds)


class Example(Conditioning):
    """Whatever is said of a photo, the restorer is told the example: a text of full length, and always the same."""

    def keep(self, answers: Sequence[Diagnosis | ParseFailure | None]) -> list[Diagnosis | None]:
        return [EXAMPLE] * len(answers)


def stepper(stage: Stage, batch: DegradedBatch) -> Callable[[], None]:
    """A training step: forward, back, AdamW. The trainer is there to be asked, but runs nothing, and so nothing is logged."""
    torch.backends.cuda.enable_cudnn_sdp(False)  # as in every fit
    stage.trainer = Trainer(devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    stage.log = lambda *_, **__: None
    optimizer = stage.schedule.configure(stage.named_parameters(), math.inf)["optimizer"]

    def step() -> None:
        stage.training_step(batch, 0).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def restored(restorer: QwenImageEditRestorer, batch: DegradedBatch, steps: int) -> None:
    restorer.steps = steps
    restorer.restore(batch.degraded, [EXAMPLE] * len(batch.names), batch.seed)


def cast_adapter(restorer: QwenImageEditRestorer, dtype: torch.dtype) -> None:
    for parameter in restorer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def measure_restorer(report: Report, sizes: Sizes, restorer: QwenImageEditRestorer, counted: Counted) -> None:
    """With the adapter in float32, then in bfloat16."""
    cache, stage = restorer.cache, RestorerSFT(restorer, None, Example(none=0, drop=0)).to(DEVICE)

    def rows(batch: DegradedBatch, steps: Sequence[int], adapter: str) -> None:
        side = batch.clean.shape[-1]
        count = counted[side].result()
        for kept in (False, True):
            restorer.cache = cache if kept else None
            flop = 3 * count["transformer"] + (not kept) * (count["text encoder"] + 2 * count["VAE encoder"])
            what = f"{side} px, {adapter}: a step, encodings {'kept' if kept else 'made'}"
            report.measure(what, stepper(stage, batch), flop)
            clear()
        restorer.cache = None
        for number in steps:
            flop = sum(count.values()) + (number - 1) * count["transformer"]
            run = partial(restored, restorer, batch, number)
            report.measure(f"{side} px, {adapter}: restored in {number}", run, flop, warm=number == steps[0])

    batches = {side: pairs(side, 1) for side in sizes.steps}
    for side, steps in sizes.steps.items():
        rows(batches[side], steps, "float32")
    side, steps = next(iter(sizes.steps.items()))
    cast_adapter(restorer, torch.bfloat16)
    rows(batches[side], steps[:1], "bfloat16")
    cast_adapter(restorer, torch.float32)
    restorer.cache = cache


def measure_grpo(
    report: Report, sizes: Sizes, restorer: QwenImageEditRestorer, counted: Counted, third: Future
) -> None:
    settings, side = scale.config("grpo")["model"]["init_args"], next(iter(sizes.steps))
    batch, group, flop, encoder = pairs(side, 1), settings["group"], third.result()[2].flops, "text encoder there"
    if not roomy():
        restored(restorer, batch, 1)  # keeps the encodings
        for weight in restorer.text_encoder.parameters():
            weight.data = weight.data.new_empty(0)
        clear()
        flop -= sum(counted[side].result()[part] for part in ("text encoder", "VAE encoder"))
        encoder = "text encoder dropped"
    else:
        restorer.cache = None
    reasoner = build_reasoner(sizes)
    for name in ("steps", "grad_steps"):
        setattr(restorer, name, settings["restorer"]["init_args"][name])
    loss = grpo.Anchored(0.01, 175.0)
    stage = RestorerGRPO(restorer, reasoner, loss, group=group, floor=1e-6, conditioning=Example()).to(DEVICE)
    step = stepper(stage, batch)
    with told(reasoner, pairs(side, 3 * (1 + group), seed=1).truth):  # no step knows its photos
        for name in ("the first step", "the next"):
            with watched(reasoner) as seen:
                report.measure(f"GRPO, {side} px, {name}: {encoder}", step, flop, warm=False)
            report.add("  of that", **seen)


def roomy() -> bool:
    return DEVICE.type == "cuda" and torch.cuda.get_device_properties(DEVICE).total_memory > ROOMY


def measure_ceiling(report: Report, side: int) -> None:
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    report.measure(
        f"ceiling, product of {side} x {side} in bfloat16", lambda: [a @ b for _ in range(10)], 10 * 2.0 * side**3
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all unless given")
    parser.add_argument("--small", action="store_true", help="small models of the same classes")
    parser.add_argument("--out", type=Path, help="JSON file for all that is measured")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {sorted(unknown)[0]!r}")
    warnings.filterwarnings("ignore", ".*trainer.*")  # steps are taken without one
    torch.manual_seed(0)
    parts, sizes = arguments.parts or PARTS, SMALL_SIZES if arguments.small else FULL_SIZES
    report, start = Report(arguments.out, not arguments.small), time.perf_counter()
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.processor() or "CPU"
    report.add("machine", name=name, torch=torch.__version__, transformers=transformers.__version__)
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as counting,
        tempfile.TemporaryDirectory() as folder,
    ):
        counted = {side: counting.submit(full_scale.operations, side) for side in sizes.steps}
        third = counting.submit(scale.stages)
        measure_ceiling(report, 256 if arguments.small else 8192)
        restorer = None
        for part in [part for part in PARTS if part in parts]:
            try:
                if part == "reasoner":
                    measure_reasoner(report, sizes)
                    continue
                if restorer is None:
                    built = wait()
                    restorer = build_restorer(sizes, folder)
                    report.add("restorer, built", s=wait() - built, parameters=scale.count(restorer))
                if part == "restorer":
                    measure_restorer(report, sizes, restorer, counted)
                else:
                    measure_grpo(report, sizes, restorer, counted, third)
            except torch.OutOfMemoryError:
                report.add(f"{part}, broken off", error="out of memory")
            finally:
                clear()
    report.add("all of it", s=time.perf_counter() - start)
    sys.exit(any("error" in row for row in report.rows))


if __name__ == "__main__":
    main()
