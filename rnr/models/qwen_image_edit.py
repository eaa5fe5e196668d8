"""The restorer at full scale: Qwen-Image-Edit, told what is wrong with the photo (section 3.2).

    dx = v(x_sigma, sigma | text, photo, z) dsigma  from x_1 = noise to x_0,    z = VAE(photo),    image = VAE^-1(x_0)

The photo goes in twice: to be understood, among the tokens of the prompt, and to be copied from, as latents z in one
sequence with x. The diagnosis is the text. ``QwenImageEditPipeline`` would resize every photo to a megapixel and knows
no gradient; here its parts are driven directly, and a photo keeps its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint as recompute
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from rnr.diagnosis import Diagnosis, render
from rnr.diagnosis.prompt import EXAMPLE
from rnr.models import flow
from rnr.models.edit_parts import EditParts, SmallRestorer, add_adapter, choose_trainable
from rnr.models.interfaces import TrainableRestorer
from rnr.models.patches import patchify
from rnr.models.tokenizer import IMAGE, VISION_END, VISION_START
from rnr.models.weights import check, locate

SYSTEM = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n"
)
"""The prompt that Qwen-Image-Edit was trained with, up to the photo. Only the text encoder reads this part."""

END = "<|im_end|>\n<|im_start|>assistant\n"

INSTRUCTION = "Restore this photo as if it had been taken through clear air, with a steady and noiseless camera."


@dataclass(frozen=True, eq=False)
class _Prompt:
    """embedding: (B, L, D), from the photo on. mask: (B, L), true where a text has a token; None if everywhere."""

    embedding: Tensor
    mask: Tensor | None

    def repeat(self, group: int) -> "_Prompt":
        mask = None if self.mask is None else self.mask.repeat_interleave(group, dim=0)
        return _Prompt(self.embedding.repeat_interleave(group, dim=0), mask)


class QwenImageEditRestorer(TrainableRestorer):
    """A restorer made of the parts of diffusers' ``QwenImageEditPipeline``, of which only the transformer is trained.

    checkpoint: a folder or a hub name such as ``Qwen/Qwen-Image-Edit`` (safetensors only), with the adapter, if there
        is one, that :meth:`save` wrote beside it; of several the first that is there counts. None builds a new model of
        the sizes in ``small``, from torch's global random state. Its VAE and text encoder are random and stay frozen:
        such a model runs all of this code and learns in latent space, but its images mean nothing.
    steps: Euler steps from noise to image.
    grad_steps: through how many of them, the last ones, the gradient of :meth:`rollout` flows.
    guidance: strength of classifier-free guidance against an empty text, when sampling. 1 is none, at half the cost.
    lora_rank: if given, the linear layers of the transformer's blocks get low-rank adapters, kept in float32, and
        nothing else is trained. They are scaled by ``lora_alpha / lora_rank``, 1 unless ``lora_alpha`` is given.
    dtype: of all weights but the adapters.
    gradient_checkpointing: recompute the transformer's blocks in the backward pass instead of keeping them.

    Raises ``ValueError`` for numbers out of range, and for a new adapter on a checkpoint that has one already.
    """

    def __init__(
        self,
        checkpoint: str | list[str] | None = None,
        small: SmallRestorer = SmallRestorer(),  # noqa: B008 (frozen)
        steps: int = 8,
        grad_steps: int = 1,
        guidance: float = 1.0,
        lora_rank: int | None = None,
        lora_alpha: int | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= grad_steps <= steps:
            raise ValueError(f"1 <= grad_steps <= steps must hold, got grad_steps {grad_steps} and steps {steps}")
        if not guidance >= 1:
            raise ValueError(f"guidance must be at least 1, got {guidance:g}")
        if lora_alpha is not None and lora_rank is None:
            raise ValueError(f"lora_alpha scales a new adapter, got {lora_alpha} but no lora_rank")
        self.steps, self.grad_steps, self.guidance = steps, grad_steps, guidance
        if checkpoint is None:
            parts = small.build([SYSTEM, END, _text(None), _text(Diagnosis()), _text(EXAMPLE)], getattr(torch, dtype))
        else:
            checkpoint = locate(checkpoint)
            check(checkpoint, ["QwenImageEditPipeline", "QwenImageEditPlusPipeline"], "Qwen-Image-Edit restorer")
            parts = EditParts.load(checkpoint, getattr(torch, dtype))
        self.transformer = parts.transformer
        self.vae = parts.vae.requires_grad_(False)
        self.text_encoder = parts.text_encoder.requires_grad_(False)
        self.tokenizer, self.scheduler, self.image_processor = parts.tokenizer, parts.scheduler, parts.image_processor
        for name in ("latents_mean", "latents_std"):
            self.register_buffer(name, torch.tensor(self.vae.config[name]).view(1, -1, 1, 1), persistent=False)
        if lora_rank is not None:
            add_adapter(self.transformer, lora_rank, lora_rank if lora_alpha is None else lora_alpha)
        choose_trainable(self.transformer)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()

    @torch.no_grad()
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """See :meth:`Restorer.restore`."""
        return self._sample(images, diagnoses, seeds, group=1, grad_steps=0).squeeze(1).clamp(0, 1)

    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """See :meth:`TrainableRestorer.rollout`. A photo's first candidate is what :meth:`restore` gives."""
        return self._sample(degraded, diagnoses, seeds, group, self.grad_steps)

    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """See :meth:`TrainableRestorer.loss`: flow matching on latents, at the noise levels of the sampler."""
        if degraded.shape != clean.shape:
            raise ValueError(f"a pair must have one shape, got {tuple(degraded.shape)} and {tuple(clean.shape)}")
        pixels = self._pad(degraded)
        photo, prompt = self._encode(pixels), self._prompt(pixels, _texts(diagnoses, len(pixels)))
        x0 = _pack(self._encode(self._pad(clean)))
        shift = flow.time_shift(self.scheduler, x0.shape[1])
        return flow.flow_matching_loss(lambda x, sigma: self._velocity(x, sigma, photo, prompt), x0, generator, shift)

    def save(self, directory: Path) -> None:
        """A folder for ``QwenImageEditPipeline.from_pretrained``, with an adapter for ``load_lora_weights``."""
        EditParts(
            self.transformer, self.vae, self.text_encoder, self.tokenizer, self.scheduler, self.image_processor
        ).save(directory)

    def _sample(
        self,
        images: Tensor,
        diagnoses: Sequence[Diagnosis | None],
        seeds: Sequence[int],
        group: int,
        grad_steps: int,
    ) -> Tensor:
        """(B, N, 3, H, W), not clamped. images: (B, 3, H, W)."""
        if len(seeds) != len(images):
            raise ValueError(f"{len(images)} photos need as many seeds, got {len(seeds)}")
        if group < 1:
            raise ValueError(f"group must be at least 1, got {group}")
        pixels, texts = self._pad(images), _texts(diagnoses, len(images))
        # What is known of a photo is encoded once, and then stands before each of its candidates.
        photo = self._encode(pixels).repeat_interleave(group, dim=0)
        prompt = self._prompt(pixels, texts).repeat(group)
        blank = self._prompt(pixels, [" "] * len(texts)).repeat(group) if self.guidance > 1 else None

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            told = self._velocity(x, sigma, photo, prompt)
            if blank is None:
                return told
            untold = self._velocity(x, sigma, photo, blank)
            guided = untold + self.guidance * (told - untold)
            return guided * (told.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

        noise = _pack(_noise(photo, seeds, group))
        sigmas = flow.schedule(self.scheduler, self.steps, noise.shape[1])
        latents = _unpack(flow.sample(velocity, noise, sigmas, grad_steps), photo.shape[-1])
        # One by one, recomputed in the backward pass: the decoder's activations outweigh all others together.
        decoded = torch.cat([recompute(self._decode, one, use_reentrant=False) for one in latents.split(1)])
        height, width = images.shape[-2:]
        return decoded[..., :height, :width].unflatten(0, (-1, group)).to(images.dtype)

    def _velocity(self, x: Tensor, sigma: Tensor, photo: Tensor, prompt: _Prompt) -> Tensor:
        """v (B, S, 4 C). x: packed latents (B, S, 4 C). sigma: (B,). photo: latents (B, C, h, w), 4 S = h w."""
        dtype = self.transformer.img_in.weight.dtype
        grid = (1, photo.shape[-2] // 2, photo.shape[-1] // 2)
        output = self.transformer(
            hidden_states=torch.cat([x, _pack(photo)], dim=1).to(dtype),
            timestep=sigma * 1000 / 1000,  # rounded as the pipeline does it, to the last bit
            encoder_hidden_states=prompt.embedding.to(dtype),
            encoder_hidden_states_mask=prompt.mask,
            img_shapes=[[grid, grid]] * len(x),
            return_dict=False,
        )[0]
        return output[:, : x.shape[1]]

    @torch.no_grad()
    def _prompt(self, pixels: Tensor, texts: Sequence[str]) -> _Prompt:
        """What the text encoder makes of each photo and its text. pixels: (B, 3, H, W) in [0, 1]."""
        processor, encoder = self.image_processor, self.text_encoder
        limits = processor.size["shortest_edge"], processor.size["longest_edge"]  # areas, despite their names
        size = smart_resize(*pixels.shape[-2:], processor.patch_size * processor.merge_size, *limits)
        seen = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (seen.new_tensor(rgb).view(3, 1, 1) for rgb in (processor.image_mean, processor.image_std))
        patches, grid = patchify(
            (seen - mean) / std, processor.patch_size, processor.temporal_patch_size, processor.merge_size
        )
        view = VISION_START + IMAGE * (int(grid[0].prod()) // processor.merge_size**2) + VISION_END
        system, view, end = (self.tokenizer(text).input_ids for text in (SYSTEM, view, END))
        # A scene may spell a special token; it is to be read as the letters it is made of.
        said = [self.tokenizer(text, split_special_tokens=True).input_ids for text in texts]
        rows = [torch.tensor([*system, *view, *text, *end], device=pixels.device) for text in said]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
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
        padded = len({len(text) for text in said}) > 1
        return _Prompt(hidden[:, len(system) :], mask[:, len(system) :] if padded else None)

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, H / 8, W / 8) of about unit variance, float32. pixels: (B, 3, H, W) in [0, 1]."""
        frame = (2 * pixels - 1).to(self.vae.dtype).unsqueeze(2)
        latents = self.vae.encode(frame).latent_dist.mode().squeeze(2).float()
        return (latents - self.latents_mean) / self.latents_std

    def _decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, 8 h, 8 w), black at 0, white at 1, float32. latents: (B, C, h, w) as from :meth:`_encode`."""
        frame = (latents * self.latents_std + self.latents_mean).to(self.vae.dtype).unsqueeze(2)
        # Not vae.decode, which clamps, and so ends the gradient of every pixel that overshoots.
        return self.vae.decoder(self.vae.post_quant_conv(frame)).squeeze(2).float() / 2 + 0.5

    def _pad(self, images: Tensor) -> Tensor:
        """Continues photos rightwards and downwards until VAE and packing divide them: to multiples of 16 pixels."""
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ValueError(f"photos must be (B, 3, H, W), none of them 0, got {tuple(images.shape)}")
        unit = 2 * self.vae.spatial_compression_ratio
        height, width = images.shape[-2:]
        below, right = -height % unit, -width % unit
        mode = "reflect" if below < height and right < width else "replicate"  # no reflection beyond the photo's size
        return F.pad(images, (0, right, 0, below), mode=mode)


def _text(diagnosis: Diagnosis | None) -> str:
    return INSTRUCTION if diagnosis is None else f"{INSTRUCTION}\n{render(diagnosis)}"


def _texts(diagnoses: Sequence[Diagnosis | None], count: int) -> list[str]:
    if len(diagnoses) != count:
        raise ValueError(f"{count} photos need as many diagnoses, got {len(diagnoses)}")
    return [_text(diagnosis) for diagnosis in diagnoses]


def _noise(like: Tensor, seeds: Sequence[int], group: int) -> Tensor:
    """(B N, C, h, w) like ``like``: N draws a seed. On the CPU, so that a seed means the same on every device."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    draws = [torch.randn(like.shape[1:], generator=generator) for generator in generators for _ in range(group)]
    return torch.stack(draws).to(like)


def _pack(latents: Tensor) -> Tensor:
    """(B, S, 4 C): one token for each 2 x 2 block of latents (B, C, h, w)."""
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def _unpack(tokens: Tensor, width: int) -> Tensor:
    """Inverse of :func:`_pack`, for latents ``width`` wide."""
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (-1, width // 2)), 2)
