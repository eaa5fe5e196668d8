"""Large photos in tiles, and whether the restored photo stands where the photo stood.

Random weights cannot say where a thing stands. So two parts are replaced by ones that are exact in a known way: a VAE that
keeps the low frequencies of each block of 8 x 8 pixels, and a transformer that answers with the flow to the latents of
the photo in front of it. What is left is what the restorer itself does with sizes, padding, tiles, noise and steps.
"""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from skimage import data
from skimage.registration import phase_cross_correlation
from small_edit import make, photos
from torch import nn

from rnr.diagnosis.prompt import EXAMPLE
from rnr.models import qwen_image_edit
from rnr.models.edit_grid import padded, unpack
from rnr.models.edit_prompt import instruction
from rnr.models.tiling import windows

KEPT = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
"""Frequencies of a block, of each color."""


class BlockVAE(nn.Module):
    """8 x 8 pixels in 16 numbers: the lowest five of each color's cosines, and a 0."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        n = torch.arange(8) + 0.5
        waves = [torch.outer((n * u * math.pi / 8).cos(), (n * v * math.pi / 8).cos()) for u, v in KEPT]
        self.register_buffer("basis", torch.stack([wave / wave.norm() for wave in waves]).repeat(3, 1, 1).unsqueeze(1))
        self.post_quant_conv = nn.Identity()

    def encode(self, frame):
        latents = F.pad(F.conv2d(frame.squeeze(2), self.basis, stride=8, groups=3), (0, 0, 0, 0, 0, 1))
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents.unsqueeze(2)))

    def decoder(self, frame):
        return F.conv_transpose2d(frame.squeeze(2)[:, :15], self.basis, stride=8, groups=3).unsqueeze(2)


class Copier(nn.Module):
    """The exact flow to the photo's own latents, moved by ``bias`` times their mean over what is seen at once."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.img_in = nn.Linear(1, 1)  # says the dtype
        self.pos_embed = SimpleNamespace(pos_freqs=torch.ones(4096, 1))
        self.bias = bias

    def forward(self, hidden_states, timestep, **_):
        x, z = hidden_states.chunk(2, dim=1)
        return ((x - z - self.bias * z.mean(dim=1, keepdim=True)) / timestep.view(-1, 1, 1),)


def copier(tile: int = 1024, overlap: int = 32, bias: float = 0.0):
    restorer = make(steps=4, tile=tile, overlap=overlap)
    restorer.vae, restorer.transformer = BlockVAE(), Copier(bias)
    return restorer


def photo(height: int, width: int, shift: float = 0.0) -> torch.Tensor:
    """(1, 3, height, width), smooth, seen ``shift`` pixels further down and right."""
    face = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None] / 255
    rows, columns = (100 + 2 * (torch.arange(side) - shift) for side in (height, width))
    where = torch.stack(torch.meshgrid(columns / 255.5 - 1, rows / 255.5 - 1, indexing="xy"), dim=-1)
    blurred = F.avg_pool2d(F.pad(face, (4, 4, 4, 4), mode="reflect"), 9, stride=1)
    return F.grid_sample(blurred, where[None].float(), align_corners=True).clamp(0, 1)


def shift_between(a: torch.Tensor, b: torch.Tensor) -> float:
    """The larger of the two sides' shifts, in pixels, to 1/100."""
    grays = (image[0].mean(dim=0).numpy() for image in (a, b))
    shift = phase_cross_correlation(*grays, upsample_factor=100, normalization=None)[0]
    return round(float(abs(shift).max()), 2)


@pytest.mark.parametrize("size", [(128, 160), (101, 127), (97, 143), (150, 171)])
@pytest.mark.parametrize("tile", [1024, 64])
def test_restored_photo_stands_where_the_photo_stood(size, tile):
    image = photo(*size)
    restored = copier(tile).restore(image, [EXAMPLE], [0])
    assert restored.shape == image.shape
    assert F.mse_loss(restored, image) < 10**-2.5
    assert shift_between(image, restored) <= 0.05


def test_a_shift_of_a_fraction_of_a_pixel_would_be_seen():
    restored = copier().restore(photo(101, 127, shift=0.25), [None], [0])
    assert shift_between(photo(101, 127), restored) == pytest.approx(0.25, abs=0.05)


def test_padding_continues_the_photo():
    image = photos(1, 17, 40)
    assert padded(image).shape[-2:] == (32, 48)
    assert torch.equal(padded(image)[..., :17, :40], image)
    assert torch.equal(padded(image), F.pad(image, (0, 8, 0, 15), mode="reflect"))


def test_tiles_that_agree_give_the_photo_as_a_whole():
    image = photo(150, 171)
    whole, pieces = (copier(tile).restore(image, [None], [3]) for tile in (1024, 64))
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)


def test_tiles_that_disagree_leave_no_seam():
    image = photo(64, 176)
    plain, uneven = (copier(64, 32, bias).restore(image, [None], [0]) for bias in (0.0, 0.2))
    # Tiles are moved by a constant each, so that only the blending varies. Along the photo, in steps of a token:
    moved = (uneven - plain)[:, 1].mean(dim=(0, 1))[8::16]
    tiles = [(copier(64, 32, 0.2).restore(part, [None], [0]) - copier().restore(part, [None], [0])).mean()
             for part in (image[..., :64], image[..., -64:])]  # fmt: skip
    assert moved[0] != moved[-1] and abs(tiles[0] - tiles[1]) > 0.01
    # In the two tokens that tiles share, the second one's weights are 0.3 and 0.7; a hard seam would be one step.
    assert moved.diff().abs().max() < 0.45 * (moved.max() - moved.min())


def seen(restorer, monkeypatch, image, tile):
    """What reaches the models: tokens of each call of the transformer, sizes of what VAE and text encoder see, texts."""
    tokens, sizes, texts = [], [], []
    restorer.transformer.register_forward_hook(
        lambda module, args, kwargs, out: tokens.append(kwargs["hidden_states"].detach().clone()), with_kwargs=True
    )
    for coder, scale in ((restorer.vae.encoder, 1), (restorer.vae.decoder, 8)):
        coder.register_forward_hook(
            lambda module, args, out, scale=scale: sizes.append(scale * max(args[0].shape[-2:]))
        )
    encode = qwen_image_edit.encode_prompt

    def spy(*inputs):
        sizes.append(max(inputs[-2].shape[-2:]))
        texts.extend(inputs[-1])
        return encode(*inputs)

    monkeypatch.setattr(qwen_image_edit, "encode_prompt", spy)
    return restorer.restore(image, [EXAMPLE], [7]), tokens, sizes, texts


def test_no_model_sees_more_than_a_tile_and_all_tiles_one_diagnosis_and_one_noise(monkeypatch):
    restorer, image = make(steps=2, tile=48, overlap=16), photos(1, 90, 120)
    restored, tokens, sizes, texts = seen(restorer, monkeypatch, image, 48)
    places = list(windows(6, 8, 3, 1))
    assert restored.shape == image.shape
    assert sizes and max(sizes) == 48
    assert {tuple(piece.shape) for piece in tokens} == {(1, 2 * 9, 64)}
    assert texts == [instruction(EXAMPLE)] * len(places)
    for step in range(2):
        x = torch.full((64, 6, 8), torch.nan)
        pieces = [unpack(piece[:, :9], 3, 3)[0] for piece in tokens[step * len(places) : (step + 1) * len(places)]]
        for (rows, columns), piece in zip(places, pieces, strict=True):
            x[:, rows, columns] = piece
        assert x.isfinite().all(), "no place is left out"
        for (rows, columns), piece in zip(places, pieces, strict=True):
            assert torch.equal(x[:, rows, columns], piece), "where tiles overlap they see the same"
    assert torch.equal(restored, restorer.restore(image, [EXAMPLE], [7]))
    assert not torch.equal(restored, restorer.restore(image, [EXAMPLE], [8]))


def test_a_photo_that_fits_a_tile_is_not_touched_by_it():
    image = photos(1, 48, 64)
    small, large = (make(tile=tile, overlap=16).restore(image, [EXAMPLE], [0]) for tile in (64, 1024))
    assert torch.equal(small, large)


def test_tiles_of_several_photos_with_guidance_in_bfloat16():
    image = photos(2, 40, 90)
    restorer = make(tile=48, overlap=16, guidance=3.0, dtype="bfloat16")
    together = restorer.restore(image, [EXAMPLE, None], [0, 1])
    assert together.shape == image.shape and together.isfinite().all()
    candidates = restorer.rollout(image, [EXAMPLE, None], [0, 1], group=2)
    assert candidates.shape == (2, 2, 3, 40, 90)
    candidates.square().mean().backward()
    assert restorer.transformer.proj_out.weight.grad.abs().max() > 0


def test_a_tile_with_more_tokens_than_the_transformer_has_places_for_is_refused():
    """Where diffusers' own rotary embedding ends in an error of shapes, and no sooner."""
    image, text = photos(1), [instruction(EXAMPLE)]
    length = make()._prompt(image, text).embedding.shape[1]
    needed = length + max(padded(image).shape[-2:]) // 16 // 2

    def restorer(places):
        model = make(steps=1)
        model.transformer.pos_embed.pos_freqs = model.transformer.pos_embed.pos_freqs[:places]
        return model

    assert restorer(needed).restore(image, [EXAMPLE], [0]).isfinite().all()
    with pytest.raises(ValueError, match=rf"need {needed} places of the {needed - 1} .* smaller tile \(now"):
        restorer(needed - 1).restore(image, [EXAMPLE], [0])
    unchecked = restorer(needed - 1)
    unchecked._in_range = lambda prompt, pixels: prompt
    with pytest.raises(RuntimeError):
        unchecked.restore(image, [EXAMPLE], [0])
