"""The prompt of Qwen-Image-Edit: the photo and a text, as the text encoder reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import CONDITION_IMAGE_SIZE, calculate_dimensions
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from rnr.diagnosis import Diagnosis, render
from rnr.models.patches import patchify
from rnr.models.tokenizer import IMAGE, VISION_END, VISION_START

SYSTEM = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n"
)
"""The prompt that Qwen-Image-Edit was trained with, up to the photo. Only the text encoder reads this part."""

END = "<|im_end|>\n<|im_start|>assistant\n"

INSTRUCTION = "Restore this photo as if it had been taken through clear air, with a steady and noiseless camera."

BLANK = " "
"""What guidance compares with."""


@dataclass(frozen=True)
class PromptForm:
    """What differs between the pipelines. before: said of the photo. area: to which it is resized first, in pixels; None:
    it is read at its own size (``QwenImageEditPipeline`` has made it a megapixel by then; here photos keep theirs)."""

    before: str = ""
    area: int | None = None


PLAIN = PromptForm()
PLUS = PromptForm("Picture 1: ", CONDITION_IMAGE_SIZE)


def form_of(pipeline: type[DiffusionPipeline]) -> PromptForm:
    return PLUS if issubclass(pipeline, QwenImageEditPlusPipeline) else PLAIN


@dataclass(frozen=True, eq=False)
class Prompt:
    """embedding: (B, L, D), from behind :data:`SYSTEM` on. mask: (B, L), true where there is a token; None: everywhere."""

    embedding: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> "Prompt":
        """Padded on the right. rows: (L, D) each, of any L."""
        if len({len(row) for row in rows}) == 1:
            return cls(torch.stack(list(rows)), None)
        masks = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
        return cls(pad_sequence(list(rows), batch_first=True), pad_sequence(masks, batch_first=True))

    def repeat(self, group: int) -> "Prompt":
        mask = None if self.mask is None else self.mask.repeat_interleave(group, dim=0)
        return Prompt(self.embedding.repeat_interleave(group, dim=0), mask)


def instruction(diagnosis: Diagnosis | None) -> str:
    """What is asked of the model: to restore the photo and, if known, what is wrong with it."""
    return INSTRUCTION if diagnosis is None else f"{INSTRUCTION}\n{render(diagnosis)}"


@torch.no_grad()
def encode_prompt(
    encoder: Qwen2_5_VLForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    processor: Qwen2VLImageProcessorPil,
    form: PromptForm,
    pixels: Tensor,
    texts: Sequence[str],
) -> list[Tensor]:
    """What the text encoder makes of each photo and its text: (L, D) each, from behind :data:`SYSTEM` on.

    pixels: (B, 3, H, W) in [0, 1]. The photo is resized on its device, once, to the size that the pipeline's two
    resizings end at.
    """
    patches, grid = _patches(processor, form, pixels)
    view = VISION_START + IMAGE * (int(grid[0].prod()) // processor.merge_size**2) + VISION_END
    system, view, end = (tokenizer(text).input_ids for text in (SYSTEM, form.before + view, END))
    # A scene may spell a special token; it is to be read as the letters it is made of.
    said = [tokenizer(text, split_special_tokens=True).input_ids for text in texts]
    rows = [torch.tensor([*system, *view, *text, *end], device=pixels.device) for text in said]
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
    hidden = encoder.model(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=patches,
        image_grid_thw=grid,
        # Without it the photo's tokens are numbered like words, not by row and column as in training.
        mm_token_type_ids=(ids == encoder.config.image_token_id).int(),
        use_cache=False,
    ).last_hidden_state
    return [states[len(system) : len(row)] for states, row in zip(hidden, rows, strict=True)]


def view_size(processor: Qwen2VLImageProcessorPil, form: PromptForm, height: int, width: int) -> tuple[int, int]:
    """(height, width) at which the text encoder sees a photo: multiples of what one of its tokens covers."""
    if form.area is not None:
        width, height = calculate_dimensions(form.area, width / height)
    limits = processor.size["shortest_edge"], processor.size["longest_edge"]  # areas, despite their names
    return smart_resize(height, width, processor.patch_size * processor.merge_size, *limits)


def _patches(processor: Qwen2VLImageProcessorPil, form: PromptForm, pixels: Tensor) -> tuple[Tensor, Tensor]:
    size = view_size(processor, form, *pixels.shape[-2:])
    seen = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (seen.new_tensor(rgb).view(3, 1, 1) for rgb in (processor.image_mean, processor.image_std))
    return patchify((seen - mean) / std, processor.patch_size, processor.temporal_patch_size, processor.merge_size)
