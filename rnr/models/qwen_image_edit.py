"""The restorer at full scale: Qwen-Image-Edit, told what is wrong with the photo (section 3.2).

    dx = v(x_sigma, sigma | text, photo, z) dsigma  from x_1 = noise to x_0,    z = VAE(photo),    image = VAE^-1(x_0)

The photo goes in twice: to be understood, among the tokens of the prompt, and to be copied from, as latents z in one
sequence with x. The diagnosis is the text. ``QwenImageEditPipeline`` would resize every photo to a megapixel and knows
no gradient; here its parts are driven directly, and a photo keeps its size.

A photo larger than a tile is drawn as one: x is all of it, and at every step v is put together from overlapping tiles,
each of which sees its own piece of x and of the photo, and the one text. Where tiles overlap they move the same x, so
nothing is seen twice and no seam is left. x, z and v are kept as grids (:mod:`rnr.models.edit_grid`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.prompt import EXAMPLE
from rnr.models import flow
from rnr.models.buffers import ExactBuffers
from rnr.models.edit_grid import UNIT, cut, noise, pack, padded, unpack
from rnr.models.edit_parts import PIPELINES, EditParts, add_adapter, choose_trainable
from rnr.models.edit_prompt import BLANK, END, SYSTEM, Prompt, encode_prompt, form_of, instruction
from rnr.models.encoding_cache import EncodingCache, identity_of, is_spread, key_of, precision_of
from rnr.models.interfaces import TrainableRestorer
from rnr.models.small_restorer import SmallRestorer
from rnr.models.tiling import Window, tiled, windows
from rnr.models.weights import check, locate


@dataclass(frozen=True, eq=False)
class _View:
    """What the velocity of a tile is conditioned on. photo: z, (B, 4 C, h, w). blank: for guidance, None without."""

    photo: Tensor
    told: Prompt
    blank: Prompt | None

    def repeat(self, group: int) -> "_View":
        blank = None if self.blank is None else self.blank.repeat(group)
        return _View(self.photo.repeat_interleave(group, dim=0), self.told.repeat(group), blank)


class QwenImageEditRestorer(ExactBuffers, TrainableRestorer):
    """A restorer made of the parts of diffusers' ``QwenImageEditPipeline``, of which only the transformer is trained.

    checkpoint: a folder or a hub name such as ``Qwen/Qwen-Image-Edit`` or ``Qwen/Qwen-Image-Edit-2509`` (safetensors
        only), with the adapter, if there is one, that :meth:`save` wrote beside it; of several the first that is there
        counts. None builds a new model of the sizes in ``small``, from torch's global random state. Its VAE and text
        encoder are random and stay frozen: such a model runs all of this code and learns in latent space, but its
        images mean nothing.
    steps: Euler steps from noise to image.
    grad_steps: through how many of them, the last ones, the gradient of :meth:`rollout` flows.
    guidance: strength of classifier-free guidance against an empty text, when sampling. 1 is none, at half the cost.
    tile, overlap: in pixels, multiples of 16. A larger photo is restored in tiles; no model ever sees more at once.
    lora_rank: if given, attention and MLPs of the transformer's blocks get low-rank adapters, in float32 unless the
        trainer casts the whole model, and nothing else is trained. They are scaled by ``lora_alpha / lora_rank``, 1 unless
        ``lora_alpha`` is given.
    dtype: of all weights but the adapters; ``auto``: as the checkpoint was saved.
    gradient_checkpointing: recompute the transformer's blocks in the backward pass instead of keeping them.
    compile_blocks: ``torch.compile`` each kind of block. Slow at first, and again for a few new sizes.
    text_encoder_8bit: keep the text encoder's linear layers in 8 bits, in half the memory. Needs bitsandbytes, and a
        checkpoint to load. Of several processes each holds all of it: not under ZeRO-3 or FSDP2.
    cache: keep what the VAE and the text encoder make of photos and texts, see :class:`EncodingCache`.

    Raises ``ValueError`` for numbers out of range, for a new adapter on a checkpoint that has one already, and for 8
    bits without the package or the checkpoint that they need.
    """

    def __init__(
        self,
        checkpoint: str | list[str] | None = None,
        small: SmallRestorer = SmallRestorer(),  # noqa: B008 (frozen)
        steps: int = 8,
        grad_steps: int = 1,
        guidance: float = 1.0,
        tile: int = 1024,
        overlap: int = 128,
        lora_rank: int | None = None,
        lora_alpha: int | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        compile_blocks: bool = False,
        text_encoder_8bit: bool = False,
        cache: EncodingCache | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= grad_steps <= steps:
            raise ValueError(f"1 <= grad_steps <= steps must hold, got grad_steps {grad_steps} and steps {steps}")
        if not guidance >= 1:
            raise ValueError(f"guidance must be at least 1, got {guidance:g}")
        if not 0 <= overlap < tile or tile % UNIT or overlap % UNIT:
            raise ValueError(
                f"0 <= overlap < tile must hold, in multiples of {UNIT}, got {overlap} and a tile of {tile}"
            )
        if lora_alpha is not None and lora_rank is None:
            raise ValueError(f"lora_alpha scales a new adapter, got {lora_alpha} but no lora_rank")
        if text_encoder_8bit and checkpoint is None:
            raise ValueError("text_encoder_8bit is for the text encoder of a checkpoint, and there is none")
        self.steps, self.grad_steps, self.guidance = steps, grad_steps, guidance
        self.tile, self.overlap, self.cache = tile, overlap, cache
        parts = _load(checkpoint, small, dtype, text_encoder_8bit)
        self.transformer = parts.transformer
        self.vae = parts.vae.requires_grad_(False)
        self.text_encoder = parts.text_encoder.requires_grad_(False)
        self.tokenizer, self.scheduler, self.image_processor = parts.tokenizer, parts.scheduler, parts.image_processor
        self.pipeline, self.source = parts.pipeline, parts.source
        for name in ("latents_mean", "latents_std"):
            self.register_buffer(name, torch.tensor(self.vae.config[name]).view(1, -1, 1, 1), persistent=False)
        # Before a strategy divides the weights among processes.
        self._identities = [identity_of(model) for model in (self.vae, self.text_encoder)] if cache else ["", ""]
        if lora_rank is not None:
            add_adapter(self.transformer, lora_rank, lora_rank if lora_alpha is None else lora_alpha)
        choose_trainable(self.transformer)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        if compile_blocks:
            self.transformer.compile_repeated_blocks()

    @torch.no_grad()
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """See :meth:`Restorer.restore`."""
        return self._sample(images, diagnoses, seeds, 1, 0, self.cache).squeeze(1).clamp(0, 1)

    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """See :meth:`TrainableRestorer.rollout`. A photo's first candidate is what :meth:`restore` gives."""
        return self._sample(degraded, diagnoses, seeds, group, self.grad_steps, self._training_cache)

    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """See :meth:`TrainableRestorer.loss`: flow matching on latents, at the noise levels of the sampler."""
        if degraded.shape != clean.shape:
            raise ValueError(f"a pair must have one shape, got {tuple(degraded.shape)} and {tuple(clean.shape)}")
        pixels, cache = padded(degraded), self._training_cache
        photo, told = self._encode(pixels, cache), self._prompt(pixels, _texts(diagnoses, len(pixels)), cache)
        x0 = self._encode(padded(clean), cache).float()
        shift = flow.time_shift(self.scheduler, x0.shape[-2] * x0.shape[-1])
        return flow.flow_matching_loss(lambda x, sigma: self._velocity(x, sigma, photo, told), x0, generator, shift)

    def velocities(
        self, degraded: Tensor, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Predicted and true velocity towards candidates, each (B, N, 4 C, h, w): what :meth:`loss` compares, with one noise
        level and one noise a photo, the same for all of its candidates. degraded: (B, 3, H, W), images: (B, N, 3, H, W), both
        in [0, 1]."""
        group, pixels, cache = images.shape[1], padded(degraded), self._training_cache
        photo = self._encode(pixels, cache).repeat_interleave(group, dim=0)
        told = self._prompt(pixels, _texts(diagnoses, len(pixels)), cache).repeat(group)
        x0 = self._encode(padded(images.flatten(0, 1).clamp(0, 1))).float()
        shift = flow.time_shift(self.scheduler, x0.shape[-2] * x0.shape[-1])
        # Not the seed itself: candidates were drawn from it.
        generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]
        like = {"dtype": torch.float32}
        draws = [(flow.training_sigmas(1, g, shift), torch.randn(x0.shape[1:], generator=g, **like)) for g in generators]
        sigmas, noises = zip(*draws, strict=True)
        sigma = torch.cat(sigmas).to(x0).repeat_interleave(group)
        eps = torch.stack(noises).to(x0).repeat_interleave(group, dim=0)
        share = sigma.view(-1, 1, 1, 1)
        predicted = self._velocity((1 - share) * x0 + share * eps, sigma, photo, told)
        return predicted.to(x0.dtype).unflatten(0, (-1, group)), (eps - x0).unflatten(0, (-1, group))

    def save(self, directory: Path) -> None:
        """A folder for ``from_pretrained`` of the pipeline it came from, with an adapter for ``load_lora_weights``."""
        EditParts(
            self.pipeline,
            self.transformer,
            self.vae,
            self.text_encoder,
            self.tokenizer,
            self.scheduler,
            self.image_processor,
            self.source,
        ).save(directory)

    @property
    def _training_cache(self) -> EncodingCache | None:
        return self.cache if self.cache is not None and self.cache.training else None

    def _sample(
        self,
        images: Tensor,
        diagnoses: Sequence[Diagnosis | None],
        seeds: Sequence[int],
        group: int,
        grad_steps: int,
        cache: EncodingCache | None,
    ) -> Tensor:
        """(B, N, 3, H, W), not clamped. images: (B, 3, H, W)."""
        if len(seeds) != len(images):
            raise ValueError(f"{len(images)} photos need as many seeds, got {len(seeds)}")
        if group < 1:
            raise ValueError(f"group must be at least 1, got {group}")
        pixels, texts = padded(images), _texts(diagnoses, len(images))
        tile, overlap = self.tile // UNIT, self.overlap // UNIT
        height, width = (side // UNIT for side in pixels.shape[-2:])
        # What is known of a photo is encoded once, and then stands before each step of each of its candidates.
        views = {
            _corner(window): self._look(cut(pixels, window), texts, cache).repeat(group)
            for window in windows(height, width, tile, overlap)
        }

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return tiled(lambda piece, window: self._guided(piece, sigma, views[_corner(window)]), x, tile, overlap)

        def decode(piece: Tensor, window: Window) -> Tensor:
            return recompute(self._decode, piece, use_reentrant=False)

        start = noise(self.latents_mean.numel(), height, width, seeds, group).to(views[0, 0].photo)
        sigmas = flow.schedule(self.scheduler, self.steps, min(height, tile) * min(width, tile))
        latents = flow.sample(velocity, start, sigmas, grad_steps)
        # One by one, recomputed in the backward pass: the decoder's activations outweigh all others together.
        decoded = torch.cat([tiled(decode, one, tile, overlap, UNIT) for one in latents.split(1)])
        height, width = images.shape[-2:]
        return decoded[..., :height, :width].unflatten(0, (-1, group)).to(images.dtype)

    def _look(self, pixels: Tensor, texts: Sequence[str], cache: EncodingCache | None) -> _View:
        blank = self._prompt(pixels, [BLANK] * len(texts), cache) if self.guidance > 1 else None
        return _View(self._encode(pixels, cache), self._prompt(pixels, texts, cache), blank)

    def _guided(self, x: Tensor, sigma: Tensor, view: _View) -> Tensor:
        """v (B, 4 C, h, w), with guidance. x: (B, 4 C, h, w). sigma: (B,)."""
        told = self._velocity(x, sigma, view.photo, view.told)
        if view.blank is None:
            return told
        untold = self._velocity(x, sigma, view.photo, view.blank)
        guided = untold + self.guidance * (told - untold)
        return guided * (told.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True))

    def _velocity(self, x: Tensor, sigma: Tensor, photo: Tensor, prompt: Prompt) -> Tensor:
        """v (B, 4 C, h, w). x: (B, 4 C, h, w). sigma: (B,). photo: z, (B, 4 C, h, w)."""
        dtype = self.transformer.img_in.weight.dtype
        grid = (1, *x.shape[-2:])
        output = self.transformer(
            hidden_states=torch.cat([pack(x), pack(photo)], dim=1).to(dtype),
            timestep=(sigma * 1000).to(dtype) / 1000,  # rounded as the pipeline does it, to the last bit
            encoder_hidden_states=prompt.embedding.to(dtype),
            encoder_hidden_states_mask=prompt.mask,
            img_shapes=[[grid, grid]] * len(x),
            return_dict=False,
        )[0]
        return unpack(output[:, : x[0, 0].numel()], *x.shape[-2:])

    @torch.no_grad()
    def _prompt(self, pixels: Tensor, texts: Sequence[str], cache: EncodingCache | None = None) -> Prompt:
        """What the text encoder makes of each photo and its text. pixels: (B, 3, H, W) in [0, 1]."""
        form, encoder = form_of(self.pipeline), self.text_encoder

        def compute(places: list[int]) -> list[Tensor]:
            some = [texts[place] for place in places]
            return encode_prompt(encoder, self.tokenizer, self.image_processor, form, pixels[places], some)

        if cache is None:
            return self._in_range(Prompt.of(compute(list(range(len(texts))))), pixels)
        precision = precision_of(encoder, pixels.device)
        identity = f"{self._identities[1]}|{precision}|{form}|{self.image_processor.size}"
        keys = [key_of(identity, image, text) for image, text in zip(pixels, texts, strict=True)]
        rows = cache.fetch(keys, compute, is_spread(encoder))
        return self._in_range(Prompt.of([row.to(pixels.device) for row in rows]), pixels)

    def _in_range(self, prompt: Prompt, pixels: Tensor) -> Prompt:
        """``prompt``, whose tokens come behind those of ``pixels``. ``ValueError`` if the transformer has no such places."""
        needed = prompt.embedding.shape[1] + max(pixels.shape[-2:]) // UNIT // 2
        if needed > (places := len(self.transformer.pos_embed.pos_freqs)):
            raise ValueError(
                f"a piece of {pixels.shape[-1]} x {pixels.shape[-2]} pixels and what is said of it need {needed:,} places of "
                f"the {places:,} that the transformer can tell apart: take a smaller tile (now {self.tile}), in training "
                f"smaller crops"
            )
        return prompt

    @torch.no_grad()
    def _encode(self, pixels: Tensor, cache: EncodingCache | None = None) -> Tensor:
        """z (B, 4 C, H / 16, W / 16) of about unit variance, of the VAE's dtype. pixels: (B, 3, H, W) in [0, 1]."""

        def compute(places: list[int]) -> Tensor:
            frame = (2 * pixels[places] - 1).to(self.vae.dtype).unsqueeze(2)
            latents = self.vae.encode(frame).latent_dist.mode().squeeze(2)
            mean, std = self.latents_mean.to(latents), self.latents_std.to(latents)
            return F.pixel_unshuffle((latents - mean) / std, 2)

        if cache is None:
            return compute(list(range(len(pixels))))
        precision = precision_of(self.vae, pixels.device)
        keys = [key_of(f"{self._identities[0]}|{precision}", image) for image in pixels]
        rows = cache.fetch(keys, compute, is_spread(self.vae))
        return torch.stack([row.to(pixels.device) for row in rows])

    def _decode(self, grid: Tensor) -> Tensor:
        """Pixels (B, 3, 16 h, 16 w), black at 0, white at 1, float32. grid: (B, 4 C, h, w) as from :meth:`_encode`."""
        latents = F.pixel_shuffle(grid, 2).to(self.vae.dtype)
        mean, std = self.latents_mean.to(latents), self.latents_std.to(latents)
        frame = (latents / (1 / std) + mean).unsqueeze(2)  # divided twice, as the pipeline does it
        # Not vae.decode, which clamps, and so ends the gradient of every pixel that overshoots.
        return self.vae.decoder(self.vae.post_quant_conv(frame)).squeeze(2).float() / 2 + 0.5


def _load(checkpoint: str | list[str] | None, small: SmallRestorer, dtype: str, text_encoder_8bit: bool) -> EditParts:
    if checkpoint is None:
        own = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        return small.build([SYSTEM, END, instruction(None), instruction(Diagnosis()), instruction(EXAMPLE)], own)
    folder = locate(checkpoint)
    check(folder, [pipeline.__name__ for pipeline in PIPELINES], "Qwen-Image-Edit restorer")
    return EditParts.load(folder, "auto" if dtype == "auto" else getattr(torch, dtype), text_encoder_8bit)


def _texts(diagnoses: Sequence[Diagnosis | None], count: int) -> list[str]:
    if len(diagnoses) != count:
        raise ValueError(f"{count} photos need as many diagnoses, got {len(diagnoses)}")
    return [instruction(diagnosis) for diagnosis in diagnoses]


def _corner(window: Window) -> tuple[int, int]:
    return window[0].start, window[1].start
