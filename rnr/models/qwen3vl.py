"""The reasoner: Qwen3-VL fine-tuned to write a photo's diagnosis (section 3.1).

One class at every scale. A public checkpoint looks at the photo as Qwen's own processor would show it; the compact
model has the same architecture, a vocabulary of its own, and looks through :class:`~rnr.models.views.Views`.

All photos of a batch have one size, so all share one prompt: the views, the instruction, the assistant's turn. The
answer is the diagnosis' text, closed by the end of the turn.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3VLForConditionalGeneration

from rnr.diagnosis import FIELDS, KINDS, Diagnosis, ParseFailure, afar, parse, render
from rnr.diagnosis.consensus import consensus, mirrored
from rnr.diagnosis.examination import Examination
from rnr.diagnosis.prompt import SHORT
from rnr.models.adapters import Training, choose_trained, merged, save_adapter
from rnr.models.buffers import ExactBuffers
from rnr.models.decoding import Answer, Question, read, weighed_again, write
from rnr.models.estimates import Calibration, Reading, examination
from rnr.models.expected_severity import Course, expectation, followed, likely_courses
from rnr.models.form import Form, Script
from rnr.models.interfaces import Reasoner
from rnr.models.linear import take_over
from rnr.models.patches import PatchProjection, patchify
from rnr.models.probe import Probe
from rnr.models.reasoner_settings import ReasonerSettings
from rnr.models.small_reasoner import SmallReasoner
from rnr.models.tokenizer import END_OF_TURN, IMAGE, train_tokenizer, vocabulary
from rnr.models.view_attention import ViewAttention
from rnr.models.views import Views, is_mirrored, look, shrunk
from rnr.models.weights import check, locate

SCORES = FIELDS[:2]
"""What severities are read off."""


class Qwen3VLReasoner(ExactBuffers, Reasoner):
    """A reasoner around transformers' ``Qwen3VLForConditionalGeneration``.

    checkpoint: a folder or a hub name such as ``Qwen/Qwen3-VL-8B-Instruct`` (safetensors only), or several of which the
        first that is there counts (see :func:`rnr.models.weights.locate`); None builds a new compact model of the sizes
        in ``small``, from torch's global random state.
    scenes: a file of lines ``{"scene": "..."}``, whose words become whole tokens of a new compact model.
    views, prompt: None takes the checkpoint's own. A checkpoint that is no reasoner of ours yet sees the whole photo
        and is asked by the full prompt of appendix A.1; a new compact model gets ``Views(chart=True)`` and the short
        one.
    fields: what it speaks of. Of the rest it says nothing, though asked: a scene made up is worse than none. None takes the
        checkpoint's own, all of them unless it says otherwise. What it learns does not depend on them.
    looks: how often it looks at a photo that it examines (:func:`rnr.models.views.look`). More than once, what it says is the
        :func:`~rnr.diagnosis.consensus.consensus`. ``severities`` are those of one look, and its own training
        is of one. None takes the checkpoint's own, 1 unless it says otherwise.
    afar: whether it looks again, at smaller copies (:mod:`rnr.diagnosis.afar`), where it finds no shake; in vain if its
        ``fields`` lack severity or parameters. None takes the checkpoint's own, no unless it says otherwise.
    score_weight, scene_weight: weight in the loss of a token of the presence and severity lines, and of the scene line,
        against 1 for the parameters.
    answer_weight, probe_weight: weights in the loss of the answer's text, and of two auxiliary :class:`Probe`, for
        training from scratch: one on what the vision tower makes of the views, one on the state at which the answer
        begins. With ``answer_weight`` 0 the language model is not run at all, nor trained: a cheap first stretch for a new
        model, in which it learns to look. Probes are not saved.
    train_vision, train_merger, train_language: which parts are trained: the vision tower, the layers that map it into
        the language model, the language model with its embeddings.
    lora_rank: if given, the linear layers of those parts get low-rank adapters, and nothing else is trained but parts
        that are to be trained ``full``: ``lora_rank=64, train_vision=False, train_merger="full"`` trains the merger
        itself and adapters of the language model.
    """

    def __init__(
        self,
        checkpoint: str | list[str] | None = None,
        small: SmallReasoner = SmallReasoner(),  # noqa: B008 (frozen)
        scenes: Path | None = None,
        views: Views | None = None,
        prompt: str | None = None,
        fields: list[str] | None = None,
        looks: int | None = None,
        afar: bool | None = None,
        score_weight: float = 1.0,
        scene_weight: float = 1.0,
        answer_weight: float = 1.0,
        probe_weight: float = 0.0,
        train_vision: Training = True,
        train_merger: Training = True,
        train_language: Training = True,
        lora_rank: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.calibration = Calibration()
        if checkpoint is None:
            self.views, self.prompt, self.fields = views or Views(chart=True), prompt or SHORT, fields or FIELDS
            self.looks, self.afar = (1 if looks is None else looks), bool(afar)
            self.tokenizer = train_tokenizer(vocabulary(scenes), small.vocab_size)
            if self.views.size is None:
                raise ValueError("a new compact model needs views of a fixed size, got size None")
            self.model = small.build(self.tokenizer, self.views.size)
        else:
            checkpoint = locate(checkpoint)
            check(checkpoint, ["qwen3_vl"], "reasoner")
            settings = ReasonerSettings.of(checkpoint)
            self.views, self.prompt = views or settings.views, prompt or settings.prompt
            self.fields = fields or settings.fields
            self.calibration = settings.calibration
            self.looks = settings.looks if looks is None else looks
            self.afar = settings.afar if afar is None else afar
            self.tokenizer = Qwen2Tokenizer.from_pretrained(checkpoint)
            self.model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, use_safetensors=True)
            if (kind := self.model.config.model_type) != "qwen3_vl":  # of a hub's name nothing is known before
                raise ValueError(f"{checkpoint}: holds weights of {kind}, not of a Qwen3-VL reasoner")
            self.model.train()  # as a new one is: only then gradient checkpointing counts
        self.model.model.visual.patch_embed.proj.__class__ = PatchProjection
        for block in self.model.model.visual.blocks:
            block.attn.__class__ = ViewAttention
        take_over(self.model)
        Diagnosis().keep(self.fields)  # raises for fields that do not exist
        if self.looks < 1:
            raise ValueError(f"looks must be at least 1, got {self.looks}")
        if not answer_weight and not probe_weight:
            raise ValueError("answer_weight and probe_weight are both 0: there is nothing to learn")
        self.score_weight, self.scene_weight = score_weight, scene_weight
        self.answer_weight, self.probe_weight = answer_weight, probe_weight
        width, views = self.model.config.text_config.hidden_size, self.views.count
        self.vision_probe = Probe(views * width) if probe_weight else None
        self.answer_probe = Probe(width) if probe_weight and answer_weight else None
        self.form, self._memory = Form(self.tokenizer), {}
        if gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.base, self.dtype = str(checkpoint), self.model.dtype
        self.lora = self._choose_trainable(train_vision, train_merger, train_language, lora_rank)

    def loss(self, images: Tensor, diagnoses: Sequence[Diagnosis]) -> Tensor:
        """See :meth:`Reasoner.loss`; the mean is weighted, and the probes' losses added. One diagnosis a photo."""
        if len(diagnoses) != len(images):
            raise ValueError(f"{len(images)} photos need as many diagnoses, got {len(diagnoses)}")
        prompt = self._prompt(images)
        grid = prompt["image_grid_thw"]
        features = self.model.model.get_image_features(prompt["pixel_values"], grid)
        loss = images.new_zeros(())
        if self.vision_probe is not None:
            views = torch.stack(features.pooler_output).mean(dim=1).view(len(images), -1)
            loss = loss + self.probe_weight * self.vision_probe(views, diagnoses)
        if not self.answer_weight:
            return loss
        answers, weights = self._answers(diagnoses, images.device)
        ids = torch.cat([prompt["input_ids"], answers], dim=1)
        # Photos of a batch differ neither in size nor in prompt, so the first one's positions are everyone's. Padding
        # stands behind the answer, where a causal model needs no mask against it.
        kinds = F.pad(prompt["mm_token_type_ids"][:1], (0, answers.shape[1]))
        positions, _ = self.model.model.get_rope_index(ids[:1], kinds, grid[: len(grid) // len(images)])
        hidden = self.model.model(
            input_ids=ids,
            position_ids=positions.expand(-1, len(ids), -1),
            image_grid_thw=grid,
            mm_encoder_outputs={"image": features},
            use_cache=False,
        ).last_hidden_state
        logits = self.model.lm_head(hidden[:, -answers.shape[1] - 1 : -1])  # at the token before each of the answer's
        surprise = F.cross_entropy(logits.flatten(0, 1).float(), answers.flatten(), reduction="none")
        loss = loss + self.answer_weight * (surprise * weights.flatten()).sum() / weights.sum()
        if self.answer_probe is not None:  # where the answer begins
            loss = loss + self.probe_weight * self.answer_probe(hidden[:, -answers.shape[1] - 1], diagnoses)
        return loss

    def examine(
        self, images: Tensor, fields: Sequence[str] = FIELDS, lean: Tensor | None = None
    ) -> list[Examination | ParseFailure]:
        """See :meth:`Reasoner.examine`. Words are greedy, numbers the expectation over what their digits might have been;
        written in the form of a diagnosis, and no further than the last line that ``fields`` ask for. ``calibration`` says
        how sure it is, and changes nothing that one look says. Of ``looks`` at a photo those count whose answers parse, each
        by its chances; where they find no shake, and it is to look from ``afar``, smaller copies are asked for it."""
        found = self._examined(images, fields, lean)
        if self.afar and min(images.shape[-2:]) >= afar.LEAST_SIDE:
            unshaken = [row for row, seen in enumerate(found) if isinstance(seen, Examination) and not seen.diagnosis.shake]
            far = self._shaken(images, afar.FAR, unshaken, lean)  # most show nothing there
            for row, near in self._shaken(images, afar.NEAR, list(far), lean).items():
                if afar.agree(near, far[row]):
                    found[row] = afar.completed(found[row], near, fields)
        return found

    def _shaken(self, images: Tensor, times: int, rows: Sequence[int], lean: Tensor | None) -> dict[int, Examination]:
        """Of these ``rows`` those whose copies with sides ``times`` shorter show shake."""
        if not rows:
            return {}
        seen = self._examined(shrunk(images[rows], times), FIELDS[:3], None if lean is None else lean[rows])
        found = zip(rows, seen, strict=True)
        return {row: copy for row, copy in found if isinstance(copy, Examination) and copy.diagnosis.shake is not None}

    def _examined(
        self, images: Tensor, fields: Sequence[str], lean: Tensor | None
    ) -> list[Examination | ParseFailure]:
        """At their own size alone."""
        numbers = range(1, self.looks + 1) if self.looks > 1 else (0,)
        said = self.weigh(images, fields, lean, numbers)
        found: list[list[Examination]] = [[] for _ in images]
        for place, reading in enumerate(said):
            number, photo = numbers[place // len(images)], place % len(images)
            if not isinstance(reading, ParseFailure):
                seen = examination(reading, self.form, self.calibration)
                found[photo].append(mirrored(seen) if is_mirrored(number) else seen)
        return [consensus(each) if each else failure for each, failure in zip(found, said[: len(images)], strict=True)]

    @torch.no_grad()
    def severities(self, images: Tensor) -> Tensor:
        """See :meth:`Reasoner.severities` and :mod:`rnr.models.expected_severity`. The photos are read once."""
        with self._read(images) as question:
            return self._expected(self._courses(question, self._readings(question, SCORES)), images)

    @torch.no_grad()
    def assess(self, images: Tensor) -> tuple[list[Examination | ParseFailure], Tensor]:
        """See :meth:`Reasoner.assess`. One look serves both, where no more are asked for."""
        if self.looks > 1 or self.afar:
            return super().assess(images)
        with self._read(images) as question:
            readings = self._readings(question, [*SCORES, *self.fields])
            found = self._courses(question, readings)
        said = [Reading(each.answer, each.written.keep(self.fields)) for each in readings]
        return [examination(each, self.form, self.calibration) for each in said], self._expected(found, images)

    def differentiable_severities(self, images: Tensor) -> Tensor:
        """As :meth:`severities`, and equal to it but for rounding, with gradient: in ``images``, if they or the weights
        require one. Which answers count is found without; then all of them are weighed again, in one pass."""
        with self._read(images) as question:
            with torch.no_grad():
                found = self._courses(question, self._readings(question, SCORES))
            rows, answers = [course.row for course, _ in found], [reading.answer for _, reading in found]
            scripts = [partial(self.form.write, SCORES)] * len(found)
            again = weighed_again(self.model, question.of(rows), answers, scripts, self.form)
        readings = [Reading(answer, reading.written) for answer, (_, reading) in zip(again, found, strict=True)]
        courses = [followed(Course(row), each, self.calibration)[0] for row, each in zip(rows, readings, strict=True)]
        return self._expected(list(zip(courses, readings, strict=True)), images)

    def _courses(self, question: Question, first: Sequence[Reading]) -> list[tuple[Course, Reading]]:
        def weigh(courses: Sequence[Course]) -> list[Reading]:
            scripts = [partial(self.form.write, SCORES, given=course.words) for course in courses]
            rows = [course.row for course in courses]
            return self._read_off(write(self.model, question.of(rows), scripts, self.form, self._memory))

        return likely_courses(first, weigh, self.calibration)

    def _expected(self, found: Sequence[tuple[Course, Reading]], images: Tensor) -> Tensor:
        """(B, 4), with the gradient that the answers have."""
        rows = expectation(len(images), found, self.form)
        like = {"dtype": torch.float32, "device": images.device}
        return torch.stack([torch.stack([torch.as_tensor(each, **like) for each in row]) for row in rows])

    def _readings(self, question: Question, fields: Sequence[str]) -> list[Reading]:
        """The answers of greedy decoding."""
        scripts = [partial(self.form.write, fields)] * question.count
        return self._read_off(write(self.model, question, scripts, self.form, self._memory))

    def _read_off(self, answers: Sequence[Answer]) -> list[Reading]:
        return [Reading(answer, parse(self._text(answer))) for answer in answers]

    @torch.no_grad()
    def weigh(
        self, images: Tensor, fields: Sequence[str] = FIELDS, lean: Tensor | None = None, looks: Sequence[int] = (0,)
    ) -> list[Reading | ParseFailure]:
        """What :meth:`examine` goes by: the answers, with all that was weighed in them, and not calibrated; of all photos at
        the first of these ``looks``, then at the next. What is said of a mirror image is true of that."""
        Diagnosis().keep(fields)  # raises for fields that do not exist
        fields = [field for field in fields if field in self.fields]
        leans = (torch.zeros(len(images), len(KINDS)) if lean is None else lean).tolist() * len(looks)
        answers = self.write(images, [partial(self.form.write, fields, each) for each in leans], self.form, looks)
        parsed = [parse(self._text(answer)) for answer in answers]
        return [
            Reading(answer, written.keep(fields)) if isinstance(written, Diagnosis) else written
            for answer, written in zip(answers, parsed, strict=True)
        ]

    @torch.no_grad()
    def write(
        self,
        images: Tensor,
        scripts: Sequence[Callable[[], Script]],
        form: Form | None = None,
        looks: Sequence[int] = (0,),
    ) -> list[Answer]:
        """One answer a photo and look, each by its own script (see :func:`rnr.models.decoding.write`). images: (B, 3, H, W)
        in [0, 1]. No gradient."""
        with self._read(images, looks) as question:
            return write(self.model, question, scripts, form, self._memory)

    @contextmanager
    def _read(self, images: Tensor, looks: Sequence[int] = (0,)) -> Iterator[Question]:
        """The photos at each of these looks, read up to where answers begin; within, the model is in the mode that writes."""
        training = self.model.training
        self.model.eval()  # gradient checkpointing would switch off the cache
        try:
            yield read(self.model, self._prompt(images, looks))
        finally:
            self.model.train(training)

    def _text(self, answer: Answer) -> str:
        return self.tokenizer.decode(answer.tokens).removesuffix(END_OF_TURN)

    def save(self, directory: Path) -> None:
        """A plain transformers folder in the type that the checkpoint had, adapters merged, and its :class:`ReasonerSettings`
        beside it; adapters also by themselves, in peft's format, in ``adapter``."""
        directory = Path(directory)
        # FSDP2 trains in float32, and stages 2 and 3 would hold the reasoner as it was saved.
        state = {name: t.to(self.dtype) if t.is_floating_point() else t for name, t in merged(self.model).items()}
        self.model.save_pretrained(directory, state_dict=state)
        self.model.config.dtype = self.dtype  # save_pretrained takes the model's
        self.model.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        if self.lora is not None:
            save_adapter(self.model, self.lora, self.base, directory / "adapter")
        settings = (self.views, self.prompt, self.calibration, self.fields, self.looks, self.afar)
        ReasonerSettings(*settings).save(directory)

    def _prompt(self, images: Tensor, looks: Sequence[int] = (0,)) -> dict[str, Tensor]:
        """What the model takes in before it answers, for all photos look by look: ids and their kinds (B, P), patches and
        grids of all views."""
        vision = self.model.config.vision_config
        images, unit = images.float(), vision.patch_size * vision.spatial_merge_size
        views = torch.cat([self.views.take(look(images, number), unit) for number in looks])
        normalised = (views.flatten(0, 1) - 0.5) / 0.5
        pixels, grid = patchify(normalised, vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
        question = [{"type": "image"}] * views.shape[1] + [{"type": "text", "text": self.prompt}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        text = text.replace(IMAGE, IMAGE * (int(grid[0].prod()) // vision.spatial_merge_size**2))
        ids = torch.tensor([self.tokenizer(text).input_ids] * len(views), device=images.device)
        return {
            "input_ids": ids,
            "mm_token_type_ids": (ids == self.model.config.image_token_id).int(),
            "pixel_values": pixels,
            "image_grid_thw": grid,
        }

    def _answers(self, diagnoses: Sequence[Diagnosis], device: torch.device) -> tuple[Tensor, Tensor]:
        """(B, A) token ids of the answers, padded on the right; (B, A) weight of each in the loss, 0 on padding."""
        end = self.tokenizer.convert_tokens_to_ids(END_OF_TURN)
        ids, weights = [], []
        for diagnosis in diagnoses:
            # A scene may spell a special token; it is to be read as the letters it is made of.
            tokens = self.tokenizer(render(diagnosis), split_special_tokens=True).input_ids
            heads = (render(diagnosis, FIELDS[:2]), render(diagnosis, FIELDS[:3]))
            scores, numbers = (len(self.tokenizer(text, split_special_tokens=True).input_ids) for text in heads)
            parts = (scores, numbers - scores, len(tokens) - numbers)
            ids.append(torch.tensor([*tokens, end]))
            each = torch.tensor([self.score_weight, 1.0, self.scene_weight]).repeat_interleave(torch.tensor(parts))
            weights.append(F.pad(each, (0, 1), value=1.0))
        pad = nn.utils.rnn.pad_sequence
        padded = pad(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        return padded.to(device), pad(weights, batch_first=True).to(device)

    def _choose_trainable(
        self, vision: Training, merger: Training, language: Training, lora_rank: int | None
    ) -> LoraConfig | None:
        written = self.answer_weight > 0  # else the language model is not run, nor what is made for it alone
        homes = {
            "model.visual.patch_embed.": vision,
            "model.visual.pos_embed.": vision,
            "model.visual.blocks.": vision,
            "model.visual.merger.": merger,
            "model.visual.deepstack_merger_list.": written and merger,
            "model.language_model.": written and language,
            "lm_head.": written and language,
        }
        return choose_trained(self.model, homes, lora_rank)
