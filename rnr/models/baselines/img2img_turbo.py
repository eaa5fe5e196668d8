"""Img2Img-Turbo (Parmar et al. 2024, the paired model): SD-Turbo that repairs a photo in one step.

    x = VAE(photo),    x_0 = (x - sqrt(1 - a) eps(x, T | text)) / sqrt(a),    image = VAE^-1(x_0; skips)

a: the cumulative alpha of the last time step T. The photo takes the place of the noise, so nothing is drawn. The VAE's
decoder is shown, through new 1x1 convolutions, what each level of its encoder saw: an 8 times smaller latent alone
would lose fine structure. Low-rank adapters on UNet and VAE are trained, the skips, and the UNet's first layer.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import save_torch_state_dict
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from rnr.diagnosis import Diagnosis
from rnr.models.adapters import merged
from rnr.models.baselines.candidates import disturbed
from rnr.models.compact import box_ssim
from rnr.models.interfaces import TrainableRestorer
from rnr.models.padding import check_tile, padded
from rnr.models.tiling import tiled
from rnr.models.weights import check, locate

NAME = "rnr.models.baselines.img2img_turbo.Img2ImgTurbo"
PROMPT = "A sharp, clean photo, taken through clear air with a steady camera and a noiseless sensor."

ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
CONVOLUTIONS = ["conv", "conv1", "conv2", "conv_shortcut", "conv_out"]
UNET_LAYERS = [*ATTENTION, *CONVOLUTIONS, "proj_in", "proj_out", "ff.net.2", "ff.net.0.proj"]
VAE_LAYERS = [*ATTENTION, *CONVOLUTIONS, "conv_in"]
"""Those that the authors adapt (github.com/GaParmar/img2img-turbo, src/pix2pix_turbo.py)."""


class Img2ImgTurbo(TrainableRestorer):
    """See the module. It is told nothing: diagnoses do not matter.

    checkpoint: a folder or hub name of SD-Turbo in diffusers' layout, or a folder that :meth:`save` wrote; of several the
        first that is there counts.
    prompt: of all photos; a folder of :meth:`save` brings its own.
    unet_rank, vae_rank: of the adapters. :meth:`save` adds them to the weights.
    ssim_weight: of the structure term in the loss.
    dtype: of the weights that are not trained; the others stay in float32.
    tile, overlap: in pixels, ``tile`` a multiple of 64; larger photos are restored in tiles.
    """

    def __init__(
        self,
        checkpoint: str | list[str] = "stabilityai/sd-turbo",
        prompt: str = PROMPT,
        unet_rank: int = 8,
        vae_rank: int = 4,
        ssim_weight: float = 0.2,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        tile: int = 768,
        overlap: int = 128,
    ) -> None:
        super().__init__()
        self.ssim_weight, self.tile, self.overlap = ssim_weight, tile, overlap
        name = locate(checkpoint)
        check(name, ["StableDiffusionPipeline", NAME], "restorer made of SD-Turbo")
        parts = {"dtype": getattr(torch, dtype), "use_safetensors": True}
        self.unet = UNet2DConditionModel.from_pretrained(name, subfolder="unet", **parts)
        self.vae = AutoencoderKL.from_pretrained(name, subfolder="vae", **parts)
        self.scheduler = DDPMScheduler.from_pretrained(name, subfolder="scheduler")
        if self.scheduler.config.prediction_type != "epsilon":
            raise ValueError(f"{name}: predicts {self.scheduler.config.prediction_type}, SD-Turbo predicts epsilon")
        self.skips = _skips(self.vae)
        # Each level but the last halves the size, in the VAE and again in the UNet.
        self.multiple = 2 ** (len(self.vae.config.block_out_channels) + len(self.unet.config.block_out_channels) - 2)
        check_tile(tile, self.multiple)
        said = Path(name) / "turbo.safetensors"
        own = load_file(said) if said.is_file() else {"prompt": _encoded(prompt, name)}
        self.register_buffer("prompt", own.pop("prompt"))
        if own:
            self.skips.load_state_dict(own)
        for model, rank, layers in ((self.unet, unet_rank, UNET_LAYERS), (self.vae, vae_rank, VAE_LAYERS)):
            model.requires_grad_(False)
            # alpha stays peft's own 8 at any rank, as with the authors
            inject_adapter_in_model(LoraConfig(r=rank, target_modules=layers, init_lora_weights="gaussian"), model)
        self.unet.conv_in.requires_grad_(True)
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # an optimiser's small steps would be lost in bfloat16
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    @torch.no_grad()
    def restore(self, images: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int]) -> Tensor:
        """See :meth:`Restorer.restore`; nothing is drawn, so ``seeds`` do not matter."""
        return self(images).clamp(0, 1)

    def rollout(
        self, degraded: Tensor, diagnoses: Sequence[Diagnosis | None], seeds: Sequence[int], group: int
    ) -> Tensor:
        """Nothing is drawn, so candidates differ by what the model is shown (:func:`disturbed`)."""
        return self(disturbed(degraded, seeds, group)).unflatten(0, (-1, group))

    def loss(
        self, degraded: Tensor, clean: Tensor, diagnoses: Sequence[Diagnosis | None], generator: torch.Generator
    ) -> Tensor:
        """Mean squared error + ``ssim_weight`` (1 - SSIM). The authors have LPIPS, a CLIP term and a discriminator in the
        latter's place, three networks more; PSNR and SSIM are what the paper's table counts."""
        restored = self(degraded)
        return F.mse_loss(restored, clean) + self.ssim_weight * (1 - box_ssim(restored, clean))

    def save(self, directory: Path) -> None:
        """UNet, VAE and scheduler as diffusers lays them out; the skips and the encoded prompt beside them."""
        directory.mkdir(parents=True, exist_ok=True)
        for part in ("unet", "vae"):
            model = getattr(self, part)
            model.save_config(directory / part)
            pattern = "diffusion_pytorch_model{suffix}.safetensors"
            save_torch_state_dict(merged(model), directory / part, filename_pattern=pattern)
        self.scheduler.save_pretrained(directory / "scheduler")
        save_file({"prompt": self.prompt, **self.skips.state_dict()}, directory / "turbo.safetensors")
        (directory / "config.json").write_text(json.dumps({"class": NAME}) + "\n", encoding="utf-8")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), not clamped, with gradient. images: (B, 3, H, W) in [0, 1] of any size."""
        height, width = images.shape[-2:]
        shown = padded(images, self.multiple)
        dtype = self.vae.dtype  # as it is now: bf16-true casts all
        # What is trained is in float32 even where the rest is in bfloat16.
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            restored = tiled(lambda tile, window: self._repair(tile), shown, self.tile, self.overlap)
        return restored[..., :height, :width].to(images.dtype)

    def _repair(self, pixels: Tensor) -> Tensor:
        scale = self.vae.config.scaling_factor
        x, seen = self._encode(2 * pixels - 1)
        x = x * scale
        last = self.scheduler.config.num_train_timesteps - 1
        alpha = self.scheduler.alphas_cumprod[last].to(x.device)
        prompt = self.prompt.to(self.vae.dtype).expand(len(x), -1, -1)
        epsilon = self.unet(x, last, encoder_hidden_states=prompt, return_dict=False)[0]
        x0 = (x.float() - (1 - alpha).sqrt() * epsilon.float()) / alpha.sqrt()
        return self._decode(x0 / scale, seen).float() / 2 + 0.5

    def _encode(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The latent's mean (B, C, h, w), and what went into each of the encoder's levels."""
        encoder, seen = self.vae.encoder, []
        x = encoder.conv_in(pixels)
        for block in encoder.down_blocks:
            seen.append(x)
            x = block(x)
        x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(x))))
        moments = x if self.vae.quant_conv is None else self.vae.quant_conv(x)
        return moments.chunk(2, dim=1)[0], seen

    def _decode(self, latents: Tensor, seen: list[Tensor]) -> Tensor:
        """Pixels (B, 3, 8 h, 8 w) in about [-1, 1]."""
        decoder = self.vae.decoder
        x = latents if self.vae.post_quant_conv is None else self.vae.post_quant_conv(latents)
        x = decoder.mid_block(decoder.conv_in(x))
        for block, skip, level in zip(decoder.up_blocks, self.skips, reversed(seen), strict=True):
            x = block(x + skip(level))
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))


def _skips(vae: AutoencoderKL) -> nn.ModuleList:
    """A 1x1 convolution from each level of the encoder, the smallest first, to that of the decoder; almost zero."""
    widths = vae.config.block_out_channels
    seen = [widths[0], *widths[:-1]]  # what goes into the encoder's blocks
    wanted = [widths[-1], *reversed(widths[1:])]  # and into the decoder's
    skips = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in zip(reversed(seen), wanted, strict=True))
    for skip in skips:
        nn.init.constant_(skip.weight, 1e-5)
    return skips


def _encoded(prompt: str, name: str) -> Tensor:
    """(1, L, D)"""
    tokenizer = CLIPTokenizer.from_pretrained(name, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(name, subfolder="text_encoder", use_safetensors=True, dtype=torch.float32)
    ids = tokenizer(
        prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return encoder(ids).last_hidden_state.contiguous()
