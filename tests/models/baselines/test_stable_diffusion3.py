import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from lightning.pytorch.plugins.precision import HalfPrecision
from tiny_diffusion import save_stable_diffusion3

from rnr.diagnosis.prompt import EXAMPLE
from rnr.models import flow
from rnr.models.baselines.stable_diffusion3 import StableDiffusion3

PROMPT = "clean"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sd3")
    save_stable_diffusion3(folder)
    return str(folder)


@pytest.fixture
def make(published):
    def build(checkpoint=published, **settings) -> StableDiffusion3:
        torch.manual_seed(0)
        return StableDiffusion3(checkpoint, **{"prompt": PROMPT, "steps": 2, **settings})

    return build


def pipeline_of(folder) -> StableDiffusion3Pipeline:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def photos(count=2, height=32, width=48):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def shaken(restorer):
    """All that is trained moved a little, as if it had been."""
    torch.manual_seed(1)
    for parameter in restorer.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return restorer


def restored(restorer, images):
    return restorer.restore(images, [None] * len(images), list(range(len(images))))


def test_a_new_one_is_the_published_model_whatever_the_photo(make, published):
    """The pipeline itself, from the same noise over the same noise levels, gives the same latents."""
    restorer = make(steps=3)
    noise = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    levels = [1, 2 / 3, 1 / 3]
    expected = pipeline_of(published)(
        PROMPT, height=32, width=48, sigmas=levels, guidance_scale=1.0, latents=noise, output_type="latent"
    ).images
    sigmas = flow.schedule(restorer.scheduler, 3, 6)
    for photo in (torch.zeros(1, 16, 4, 6), torch.randn(1, 16, 4, 6)):
        with torch.no_grad():
            latents = flow.sample(lambda x, sigma, z=photo: restorer._velocity(x, sigma, z), noise, sigmas)
        torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


def test_latents_come_back_from_the_pipelines_own_autoencoder(make, published):
    restorer, images = make(), photos()
    vae = pipeline_of(published).vae
    with torch.no_grad():
        expected = vae.decode(vae.encode(2 * images - 1).latent_dist.mode()).sample / 2 + 0.5
        torch.testing.assert_close(restorer._decode(restorer._encode(images)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_all_that_is_trained_learns(lora_rank, make):
    restorer, images = make(lora_rank=lora_rank), photos()
    named = {name: parameter for name, parameter in restorer.named_parameters() if parameter.requires_grad}
    assert all(name.startswith("transformer.") for name in named)
    if lora_rank:
        assert {name for name in named if "lora_" not in name} == {
            "transformer.pos_embed.proj.weight", "transformer.pos_embed.proj.bias",
        }  # fmt: skip
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    optimizer, losses = torch.optim.AdamW(named.values(), lr=3e-3, weight_decay=0), []
    for _ in range(40):
        optimizer.zero_grad()
        loss = restorer.loss(images, images, [None, None], torch.Generator().manual_seed(0))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in named.items())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_it_comes_back_from_its_folder(lora_rank, make, tmp_path):
    restorer, images = shaken(make(lora_rank=lora_rank)), photos()
    restorer.save(tmp_path)
    again = make(str(tmp_path), prompt="this is not read")
    torch.testing.assert_close(restored(again, images), restored(restorer, images), rtol=0, atol=1e-4)
    assert SD3Transformer2DModel.from_pretrained(tmp_path / "transformer").config.in_channels == 32


def test_what_the_result_depends_on(make):
    restorer, images = shaken(make()), photos(1)
    result = restorer.restore(images, [None], [0])
    assert torch.equal(result, restorer.restore(images, [EXAMPLE], [0]))
    for other in (restorer.restore(images, [None], [1]), restorer.restore(1 - images, [None], [0])):
        assert (result - other).abs().max() > 1e-4


def test_candidates(make):
    restorer, images = shaken(make()), photos()
    candidates = restorer.rollout(images, [None, None], [0, 1], group=2)
    torch.testing.assert_close(candidates[:, 0].clamp(0, 1), restored(restorer, images), rtol=0, atol=1e-5)
    assert (candidates[:, 0] - candidates[:, 1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    candidates.square().mean().backward()
    assert restorer.transformer.pos_embed.proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (7, 90)])
def test_every_size_is_kept(height, width, make):
    restorer, images = make(tile=32, overlap=16), photos(2, height, width)
    assert restored(restorer, images).shape == images.shape
    assert restorer.loss(images, images, [None, None], torch.Generator().manual_seed(0)).isfinite()


def test_bfloat16_is_the_same_model(make):
    full, half, images = make(lora_rank=2), make(lora_rank=2, dtype="bfloat16"), photos()
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    frozen = {name: p.dtype for name, p in half.named_parameters() if not p.requires_grad}
    assert {dtype for name, dtype in frozen.items() if "lora_" not in name} == {torch.bfloat16}
    torch.testing.assert_close(restored(half, images), restored(full, images), rtol=0, atol=0.1)
    half.loss(images, images, [None, None], torch.Generator().manual_seed(0)).backward()


def test_cast_as_a_whole_it_runs(make):
    """As Lightning's bf16-true does it, which also changes torch's default type around every step."""
    full, cast, images = make(lora_rank=2), make(lora_rank=2).to(torch.bfloat16), photos()
    expected = restored(full, images)
    with HalfPrecision("bf16-true").forward_context():
        torch.testing.assert_close(restored(cast, images), expected, rtol=0, atol=0.15)
        cast.loss(images, images, [None, None], torch.Generator().manual_seed(0)).backward()


def test_nonsense_is_refused(make):
    with pytest.raises(ValueError, match="tile must be a multiple of 16 pixels, got 40"):
        make(tile=40)
    with pytest.raises(ValueError, match="grad_steps 3 and steps 2"):
        make(grad_steps=3)
    with pytest.raises(ValueError, match="not of a Stable Diffusion 3 restorer"):
        make("shipped/reasoner")
