"""Stable Diffusion 3 (Esser et al. 2024) as a restorer: it generates the clean photo beside the degraded one.

    dx = v([x_sigma, z], sigma | text) dsigma  from x_1 = noise to x_0,    z = VAE(photo),    image = VAE^-1(x_0)

z enters as further channels of the transformer's first layer, new and zero at the start, as in InstructPix2Pix (Brooks
et al. 2023). The text is one sentence for all photos: it is encoded once, by the two CLIP encoders (SD3 may go without
T5), and the encoders are dropped.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from rnr.diagnosis import Diagnosis
from rnr.models import flow
from rnr.models.adapters import add_lora, merged
from rnr.models.interfaces import TrainableRestorer
from rnr.models.padding import check_tile, padded
from rnr.models.tiling import tiled
from rnr.models.weights import check, locate

NAME = "rnr.models.baselines.stable_diffusion3.StableDiffusion3"
PROMPT = "A sharp, clean photo, taken through clear air with a steady camera and a noiseless sensor."


class StableDiffusion3(TrainableRestorer):
    """See the module. It is told nothing: diagnoses do not matter.

    checkpoint: a folder or hub name of Stable Diffusion 3 in diffusers' layout, or a folder that :meth:`save` wrote; of
        several the first that is there counts. Of the former, the result means nothing until it is trained.
    prompt: of all photos; a folder of :meth:`save` brings its own.
    steps: Euler steps from noise to image.
    grad_steps: through how many of them, the last ones, the gradient of :meth:`rollout` flows.
    lora_rank: if given, the blocks' linear layers get low-rank adapters, and only these and the first layer are trained;
        otherwise the whole transformer is. :meth:`save` adds them to the weights.
    dtype: of the weights; adapters and the first layer beside them stay in float32.
    tile, overlap: in pixels, ``tile`` a multiple of 16; larger photos are restored in tiles.
    """

    def __init__(
        self,
        checkpoint: str | list[str] = "stabilityai/stable-diffusion-3-medium-diffusers",
        prompt: str = PROMPT,
        steps: int = 20,
        grad_steps: int = 1,
        lora_rank: int | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        tile: int = 1024,
        overlap: int = 128,
    ) -> None:
        super().__init__()
        if not 1 <= grad_steps <= steps:
            raise ValueError(f"1 <= grad_steps <= steps must hold, got grad_steps {grad_steps} and steps {steps}")
        self.steps, self.grad_steps, self.tile, self.overlap = steps, grad_steps, tile, overlap
        name = locate(checkpoint)
        check(name, ["StableDiffusion3Pipeline", NAME], "Stable Diffusion 3 restorer")
        parts = {"dtype": getattr(torch, dtype), "use_safetensors": True}
        self.transformer = SD3Transformer2DModel.from_pretrained(name, subfolder="transformer", **parts)
        self.vae = AutoencoderKL.from_pretrained(name, subfolder="vae", **parts).requires_grad_(False)
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(name, subfolder="scheduler")
        said = Path(name) / "prompt.safetensors"
        text = load_file(said) if said.is_file() else _encoded(prompt, name, self.transformer, parts)
        self.register_buffer("prompt", text["prompt"])
        self.register_buffer("pooled", text["pooled"])
        # A latent stands for so many pixels a side, a token of the transformer for patch_size latents.
        self.multiple = 2 ** (len(self.vae.config.block_out_channels) - 1) * self.transformer.config.patch_size
        check_tile(tile, self.multiple)
        if self.transformer.config.in_channels == self.vae.config.latent_channels:
            _widen(self.transformer)
        if lora_rank is not None:
            add_lora(self.transformer, ["transformer_blocks"], lora_rank)
            self.transformer.pos_embed.proj.float().requires_grad_(True)  # as add_lora has its adapters
        # The last block makes nothing of the text's own stream: what asks on its behalf would never get a gradient.
        last = self.transformer.transformer_blocks[-1].attn
        for unread in (last.add_q_proj, last.norm_added_q):
            if unread is not None:
                unread.requires_grad_(False)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()

    @torch.no_grad()
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """See :meth:`Restorer.restore`."""
        return self._sample(images, seeds, group=1, grad_steps=0).clamp(0, 1)

    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """See :meth:`TrainableRestorer.rollout`. A photo's first candidate is what :meth:`restore` gives."""
        return self._sample(degraded, seeds, group, self.grad_steps).unflatten(0, (-1, group))

    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """Flow matching on latents, at the noise levels of the sampler."""
        photo, x0 = (self._encode(padded(each, self.multiple)) for each in (degraded, clean))
        shift = flow.time_shift(self.scheduler, self._tokens(x0))
        return flow.flow_matching_loss(lambda x, sigma: self._velocity(x, sigma, photo), x0, generator, shift)

    def save(self, directory: Path) -> None:
        """Transformer, VAE and scheduler as diffusers lays them out, and the encoded prompt."""
        directory.mkdir(parents=True, exist_ok=True)
        self.transformer.save_config(directory / "transformer")
        pattern = "diffusion_pytorch_model{suffix}.safetensors"
        save_torch_state_dict(merged(self.transformer), directory / "transformer", filename_pattern=pattern)
        self.vae.save_pretrained(directory / "vae")
        self.scheduler.save_pretrained(directory / "scheduler")
        save_file({"prompt": self.prompt, "pooled": self.pooled}, directory / "prompt.safetensors")
        (directory / "config.json").write_text(json.dumps({"class": NAME}) + "\n", encoding="utf-8")

    def _sample(self, images: Tensor, seeds: Sequence[int], group: int, grad_steps: int) -> Tensor:
        """(B N, 3, H, W), not clamped. images: (B, 3, H, W)."""
        height, width = images.shape[-2:]
        shown = padded(images, self.multiple).repeat_interleave(group, dim=0)

        def restore(pixels: Tensor, window: tuple[slice, slice]) -> Tensor:
            photo = self._encode(pixels)
            noise = _noise(photo, seeds, group)
            sigmas = flow.schedule(self.scheduler, self.steps, self._tokens(photo))
            latents = flow.sample(lambda x, sigma: self._velocity(x, sigma, photo), noise, sigmas, grad_steps)
            # One by one, recomputed in the backward pass: the decoder's activations outweigh all others together.
            return torch.cat([recompute(self._decode, one, use_reentrant=False) for one in latents.split(1)])

        return tiled(restore, shown, self.tile, self.overlap)[..., :height, :width].to(images.dtype)

    def _velocity(self, x: Tensor, sigma: Tensor, photo: Tensor) -> Tensor:
        """v (B, C, h, w). x, photo: latents (B, C, h, w). sigma: (B,)."""
        dtype, count = self.vae.dtype, len(x)  # as it is now: bf16-true casts all
        # What is trained is in float32 even where the rest is in bfloat16.
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            return self.transformer(
                hidden_states=torch.cat([x, photo], dim=1).to(dtype),
                timestep=sigma * 1000,
                encoder_hidden_states=self.prompt.to(dtype).expand(count, -1, -1),
                pooled_projections=self.pooled.to(dtype).expand(count, -1),
                return_dict=False,
            )[0]

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, H / 8, W / 8) of about unit variance, float32. pixels: (B, 3, H, W) in [0, 1]."""
        latents = self.vae.encode((2 * pixels - 1).to(self.vae.dtype)).latent_dist.mode().float()
        return (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def _decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, 8 h, 8 w), black at 0, white at 1, float32. latents: as from :meth:`_encode`."""
        latents = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        return self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0].float() / 2 + 0.5

    def _tokens(self, latents: Tensor) -> int:
        return latents.shape[-2] * latents.shape[-1] // self.transformer.config.patch_size**2


def _encoded(prompt: str, name: str, transformer: SD3Transformer2DModel, parts: dict) -> dict[str, Tensor]:
    """``prompt`` (1, L, D) and ``pooled`` (1, E), as the pipeline's own text encoders have them, without T5."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        name, transformer=transformer, vae=None, text_encoder_3=None, tokenizer_3=None, **parts
    )
    with torch.no_grad():
        tokens, _, pooled, _ = pipeline.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)
    return {"prompt": tokens.contiguous(), "pooled": pooled.contiguous()}


def _widen(transformer: SD3Transformer2DModel) -> None:
    """Twice the input channels; the new ones count for nothing yet."""
    old = transformer.pos_embed.proj
    new = nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size, old.stride).to(old.weight)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)
    transformer.pos_embed.proj = new
    transformer.register_to_config(in_channels=new.in_channels, out_channels=old.in_channels)


def _noise(like: Tensor, seeds: Sequence[int], group: int) -> Tensor:
    """(B N, C, h, w) like ``like``: N draws a seed. On the CPU, so that a seed means the same on every device."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = like.shape[1:]
    draws = [torch.randn(shape, generator=each, dtype=torch.float32) for each in generators for _ in range(group)]
    return torch.stack(draws).to(like)
