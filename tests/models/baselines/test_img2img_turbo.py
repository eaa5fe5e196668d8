import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from lightning.pytorch.plugins.precision import HalfPrecision
from tiny_diffusion import save_sd_turbo
from transformers import CLIPTextModel

from rnr.models.baselines.img2img_turbo import Img2ImgTurbo

PROMPT = "clean"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("turbo")
    save_sd_turbo(folder)
    return str(folder)


@pytest.fixture
def make(published):
    def build(checkpoint=published, **settings) -> Img2ImgTurbo:
        torch.manual_seed(0)
        return Img2ImgTurbo(checkpoint, **{"prompt": PROMPT, **settings})

    return build


def photos(count=2, height=32, width=48):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def shaken(restorer):
    torch.manual_seed(1)
    for parameter in restorer.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return restorer


def restored(restorer, images):
    return restorer.restore(images, [None] * len(images), [0] * len(images))


def test_a_new_one_is_a_step_of_the_published_model(make, published):
    """Encoder, prompt, UNet, the scheduler's own step and decoder of the pipeline, put together as the authors do."""
    restorer, images = make(), photos(height=32, width=48)
    for skip in restorer.skips:
        torch.nn.init.zeros_(skip.weight)
    pipeline = StableDiffusionPipeline.from_pretrained(published)
    vae, scheduler = pipeline.vae, restorer.scheduler
    with torch.no_grad():
        prompt, _ = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)
        x = vae.encode(2 * images - 1).latent_dist.mode() * vae.config.scaling_factor
        epsilon = pipeline.unet(x, 999, encoder_hidden_states=prompt.expand(2, -1, -1)).sample
        scheduler.set_timesteps(1)
        x0 = scheduler.step(epsilon, 999, x).prev_sample
        expected = vae.decode(x0 / vae.config.scaling_factor).sample / 2 + 0.5
        torch.testing.assert_close(restorer(images), expected, rtol=0, atol=1e-4)


def test_skips_start_as_almost_nothing_and_carry_what_the_encoder_saw(make):
    restorer, images = make(), photos()
    assert [skip.weight.shape[:2] for skip in restorer.skips] == [(16, 16), (16, 8), (16, 8), (8, 8)]
    before = restored(restorer, images)
    for skip in restorer.skips:
        torch.nn.init.zeros_(skip.weight)
    torch.testing.assert_close(restored(restorer, images), before, rtol=0, atol=1e-2)
    for level, skip in enumerate(restorer.skips):
        torch.nn.init.constant_(skip.weight, 0.5)
        assert (restored(restorer, images) - before).abs().max() > 1e-3, level
        torch.nn.init.zeros_(skip.weight)


def test_all_that_is_trained_learns(make):
    restorer, images = make(), photos()
    named = {name: parameter for name, parameter in restorer.named_parameters() if parameter.requires_grad}
    assert {name for name in named if "lora_" not in name} == {
        "unet.conv_in.weight", "unet.conv_in.bias", *(f"skips.{i}.weight" for i in range(4)),
    }  # fmt: skip
    assert {name.split(".")[0] for name in named if "lora_" in name} == {"unet", "vae"}
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    optimizer, losses = torch.optim.AdamW(named.values(), lr=3e-3, weight_decay=0), []
    for _ in range(25):
        optimizer.zero_grad()
        loss = restorer.loss(images, images, [None, None], torch.Generator().manual_seed(0))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in named.items())
    assert losses[-1] < 0.9 * losses[0]


def test_it_comes_back_from_its_folder(make, tmp_path):
    restorer, images = shaken(make()), photos()
    restorer.save(tmp_path)
    again = make(str(tmp_path), prompt="this is not read")
    torch.testing.assert_close(restored(again, images), restored(restorer, images), rtol=0, atol=1e-4)


def test_candidates(make):
    restorer, images = shaken(make()), photos()
    candidates = restorer.rollout(images, [None, None], [0, 1], group=2)
    torch.testing.assert_close(candidates[:, 0].clamp(0, 1), restored(restorer, images), rtol=0, atol=1e-5)
    assert (candidates[:, 0] - candidates[:, 1]).abs().amax(dim=(1, 2, 3)).min() > 1e-5
    candidates.square().mean().backward()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (7, 90)])
def test_every_size_is_kept(height, width, make):
    restorer, images = make(tile=32, overlap=16), photos(2, height, width)
    assert restored(restorer, images).shape == images.shape


def test_bfloat16_is_the_same_model(make):
    full, half, images = make(), make(dtype="bfloat16"), photos()
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in half.parameters() if not p.requires_grad} == {torch.bfloat16}
    torch.testing.assert_close(restored(half, images), restored(full, images), rtol=0, atol=0.15)
    half.loss(images, images, [None, None], torch.Generator().manual_seed(0)).backward()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_text_encoder_may_be_in_half_precision(make, published, tmp_path, dtype):
    shutil.copytree(published, tmp_path / "half")
    encoder = CLIPTextModel.from_pretrained(published, subfolder="text_encoder", dtype=torch.float16)
    encoder.save_pretrained(tmp_path / "half" / "text_encoder")
    half, full = (restored(make(str(folder), dtype=dtype), photos()) for folder in (tmp_path / "half", published))
    assert (half - full).abs().mean() < 0.01


def test_cast_as_a_whole_it_runs(make):
    """As Lightning's bf16-true does it, which also changes torch's default type around every step."""
    full, cast, images = make(), make().to(torch.bfloat16), photos()
    expected = restored(full, images)
    with HalfPrecision("bf16-true").forward_context():
        torch.testing.assert_close(restored(cast, images), expected, rtol=0, atol=0.15)
        cast.loss(images, images, [None, None], torch.Generator().manual_seed(0)).backward()


def test_nonsense_is_refused(make):
    with pytest.raises(ValueError, match="tile must be a multiple of 16 pixels, got 40"):
        make(tile=40)
    with pytest.raises(ValueError, match="not of a restorer made of SD-Turbo"):
        make("shipped/reasoner")
