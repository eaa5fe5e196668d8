"""The captioner: a public vision-language model that describes the clean scene of clean photos, as appendix A.1 asks.

Its descriptions are the scene part of the ground truth. What breaks the rules of A.1 (:mod:`rnr.diagnosis.scene`) is
asked for once more, with what is wrong with it; what then still breaks them is given up, never passed on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PROCESSOR_MAPPING, AutoConfig, AutoModelForImageTextToText, ProcessorMixin

from rnr.diagnosis.prompt import FULL
from rnr.diagnosis.scene import problems, shortened
from rnr.diagnosis.types import MAX_SCENE_WORDS
from rnr.models.weights import locate

_LIMIT = f"in at most {MAX_SCENE_WORDS} words: "
QUESTION = (
    f"Describe the scene of this photo {_LIMIT}{FULL.partition(_LIMIT)[2].partition(chr(10))[0]} "
    "Answer with the description alone, on one line."
)
"""Step 4 of the reasoner's prompt, asked of a photo in which nothing hides the scene."""

MAX_TOKENS = 128  # twice what 30 words take: the model is to be seen to overrun, not to be cut short unnoticed

Turn = dict[str, Any]


class Captioner:
    """Any image-text-to-text checkpoint of transformers that follows instructions, ``Qwen/Qwen3-VL-*-Instruct`` first.

    checkpoint: a folder or a hub name (safetensors only).

    Raises ``FileNotFoundError`` or ``OSError`` if it is not there or has no safetensors, ``ValueError`` if it is of
    another kind, has no chat template, or thinks aloud before it answers.
    """

    def __init__(self, checkpoint: str, device: torch.device | str = "cpu") -> None:
        checkpoint = locate(checkpoint)
        self.processor = _processor(checkpoint)
        self.model = AutoModelForImageTextToText.from_pretrained(checkpoint, use_safetensors=True).to(device).eval()

    def describe(self, photos: Sequence[np.ndarray]) -> list[str | None]:
        """One scene a photo, which keeps the rules of A.1; None where the model could not be brought to keep them.

        photos: each (H, W, 3) uint8 RGB. All are one batch. Greedy: the same photos give the same scenes.
        """
        talks = [[_user(QUESTION, photo)] for photo in photos]
        answers = self._answer(talks)
        if failed := [i for i, answer in enumerate(answers) if problems(answer)]:
            again = self._answer([[*talks[i], _assistant(answers[i]), _user(objection(answers[i]))] for i in failed])
            for i, answer in zip(failed, again, strict=True):
                answers[i] = shortened(answer)
        return [None if problems(answer) else answer for answer in answers]

    @torch.inference_mode()
    def _answer(self, talks: list[list[Turn]]) -> list[str]:
        """What the model says next in each talk; talks shorter than the longest are padded at their start."""
        texts = [self.processor.apply_chat_template(talk, add_generation_prompt=True) for talk in talks]
        images = [[part["image"] for turn in talk for part in turn["content"] if "image" in part] for talk in talks]
        begin = self.processor.tokenizer.bos_token  # some templates write it, others leave it to the tokenizer
        begun = begin is not None and texts[0].startswith(begin)
        inputs = self.processor(
            text=texts, images=images, padding=True, add_special_tokens=not begun, return_tensors="pt"
        )
        inputs = inputs.to(self.model.device, self.model.dtype)  # the dtype of what is not integer
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=MAX_TOKENS,
            # Greedy, whatever the checkpoint's own generation config says.
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        answers = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [_unquoted(answer.strip()) for answer in answers]


def objection(answer: str) -> str:
    """What is said to a model whose ``answer`` breaks the rules."""
    return f"Your description {' and '.join(problems(answer))}. Write it again without that. {QUESTION}"


def _user(text: str, photo: np.ndarray | None = None) -> Turn:
    image = [] if photo is None else [{"type": "image", "image": Image.fromarray(photo)}]
    return {"role": "user", "content": [*image, {"type": "text", "text": text}]}


def _assistant(text: str) -> Turn:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def _unquoted(text: str) -> str:
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


class _Stills:
    """Mixed into a processor, keeps it from loading its part for videos, which needs torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in super().get_attributes() if name != "video_processor"]


def _processor(checkpoint: str) -> ProcessorMixin:
    # Not AutoProcessor: without torchvision it fails, or hands out a bare tokenizer, for every model that knows videos.
    config = AutoConfig.from_pretrained(checkpoint)
    if type(config) not in PROCESSOR_MAPPING:
        raise ValueError(f"{checkpoint}: holds a {config.model_type}, not a model that answers questions about images")
    kind = PROCESSOR_MAPPING[type(config)]
    processor = type(kind.__name__, (_Stills, kind), {}).from_pretrained(checkpoint)
    if not processor.chat_template:
        raise ValueError(f"{checkpoint}: has no chat template; take a checkpoint that follows instructions")
    if processor.apply_chat_template([_user(QUESTION)], add_generation_prompt=True).rstrip().endswith("<think>"):
        raise ValueError(f"{checkpoint}: thinks aloud before it answers; take its Instruct variant")
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"  # an answer goes on from the end of its talk
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor
