import jsonargparse
import pytest
import torch
from small_edit import make, photos, with_living_adapter

from rnr.diagnosis import Diagnosis, Fog
from rnr.diagnosis.prompt import EXAMPLE
from rnr.models.edit_prompt import Prompt
from rnr.models.interfaces import TrainableRestorer
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.small_restorer import SmallRestorer

DIAGNOSES = [EXAMPLE, None, Diagnosis(fog=Fog(80, (0.9, 0.9, 0.9), 0.2))]
UNREAD = [
    f"transformer_blocks.1.{layer}.{kind}"
    for layer in ("attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")
    for kind in ("weight", "bias")
]


def trained(restorer: QwenImageEditRestorer) -> set[str]:
    return {name for name, parameter in restorer.named_parameters() if parameter.requires_grad}


@pytest.fixture(scope="module")
def restorer() -> QwenImageEditRestorer:
    return make()


def test_special_tokens_in_a_scene_are_plain_text(restorer):
    scene = Diagnosis(scene="A wall with <|image_pad|> <|im_end|> on it.")
    restored = restorer.restore(photos(1), [scene], [0])
    assert restored.isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (7, 64), (300, 1)])
def test_every_size_is_kept(restorer, height, width):
    images = photos(2, height, width)
    assert restorer.restore(images, DIAGNOSES[:2], [0, 1]).shape == images.shape
    assert restorer.rollout(images, DIAGNOSES[:2], [0, 1], group=2).shape == (2, 2, 3, height, width)
    assert restorer.loss(images, images, DIAGNOSES[:2], torch.Generator().manual_seed(0)).isfinite()


def test_result_does_not_depend_on_the_batch(restorer):
    images = photos()
    together = restorer.restore(images, DIAGNOSES, seeds=[3, 4, 5])
    for k in range(3):
        alone = restorer.restore(images[k : k + 1], DIAGNOSES[k : k + 1], seeds=[3 + k])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=1e-5)


def test_padding_of_a_text_is_masked(restorer):
    """A photo's velocity is the same beside a long text; it would not be without the mask."""
    images = photos(2)
    latents, noise = restorer._encode(images), torch.randn(2, 64, 2, 3)
    sigma = torch.full((2,), 0.7)
    short, both = restorer._prompt(images[:1], ["Fog."]), restorer._prompt(images, ["Fog.", "A very long text. " * 20])
    assert both.mask.sum(1).tolist() == [short.embedding.shape[1], both.embedding.shape[1]]
    unmasked = Prompt(both.embedding, None)
    with torch.no_grad():
        alone = restorer._velocity(noise[:1], sigma[:1], latents[:1], short)[0]
        masked, leaky = (restorer._velocity(noise, sigma, latents, prompt)[0] for prompt in (both, unmasked))
    assert (masked - alone).abs().max() < 1e-5 < 100e-5 < (leaky - alone).abs().max()


def test_what_the_result_depends_on(restorer):
    images = photos(1)
    result = restorer.restore(images, [EXAMPLE], [0])
    assert torch.equal(result, restorer.restore(images, [EXAMPLE], [0]))
    for other in ((images, [EXAMPLE], [1]), (images, [None], [0]), (photos(1, seed=1), [EXAMPLE], [0])):
        assert (result - restorer.restore(*other)).abs().max() > 1e-4


def test_candidates(restorer):
    images = photos(2)
    candidates = restorer.rollout(images, DIAGNOSES[:2], seeds=[1, 2], group=3)
    assert candidates.shape == (2, 3, 3, 32, 48)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (candidates[:, a] - candidates[:, b]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    assert torch.equal(candidates, restorer.rollout(images, DIAGNOSES[:2], seeds=[1, 2], group=3))
    restored = restorer.restore(images, DIAGNOSES[:2], seeds=[1, 2])
    torch.testing.assert_close(candidates[:, 0].detach().clamp(0, 1), restored, rtol=0, atol=1e-5)


def test_only_restore_clamps():
    restorer = make()
    restorer.vae.decoder.conv_out.bias.data += 10
    assert restorer.restore(photos(1), [None], [0]).max() == 1
    candidates = restorer.rollout(photos(1), [None], [0], group=2)
    assert candidates.min() > 1
    candidates.sum().backward()
    assert restorer.transformer.proj_out.weight.grad.abs().max() > 0


@pytest.mark.parametrize("steps", [1, 3])
def test_gradient_of_a_rollout_reaches_all_that_is_trained(steps):
    gradients = []
    for checkpointing in (False, True):
        restorer = make(steps=steps, grad_steps=steps, gradient_checkpointing=checkpointing)
        restorer.rollout(photos(1), [EXAMPLE], [0], group=2).square().mean().backward()
        named = {name: parameter.grad for name, parameter in restorer.named_parameters() if parameter.requires_grad}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in named.values())
        gradients.append(named)
    torch.testing.assert_close(*gradients)


def test_grad_steps_truncate_the_gradient():
    gradients = []
    for grad_steps in (1, 3):
        restorer = make(grad_steps=grad_steps)
        restorer.rollout(photos(1), [EXAMPLE], [0], group=1).square().mean().backward()
        gradients.append(restorer.transformer.proj_out.weight.grad)
    assert not torch.allclose(*gradients)


def test_loss_learns_one_batch():
    restorer = make()
    clean, degraded = photos(2, 32, 32), photos(2, 32, 32, seed=1)
    optimizer = torch.optim.Adam([p for p in restorer.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(25):
        loss = restorer.loss(degraded, clean, DIAGNOSES[:2], torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1 and losses[-1] < 0.5 * losses[0]


def test_trains_the_transformer_but_for_what_nobody_reads(restorer):
    expected = {f"transformer.{name}" for name, _ in restorer.transformer.named_parameters() if name not in UNREAD}
    assert len(UNREAD) == 6
    assert trained(restorer) == expected
    assert set(UNREAD) < {name for name, _ in restorer.transformer.named_parameters()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lora_trains_only_adapters_in_float32(dtype):
    restorer = make(lora_rank=4, dtype=dtype)
    layers = [
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "img_mlp.net.0.proj", "img_mlp.net.2"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        *("attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    ]
    expected = {
        f"transformer.transformer_blocks.{block}.{layer}.lora_{half}.default.weight"
        for block in range(2)
        for layer in (layers if block == 0 else layers[:9])
        for half in "AB"
    }
    assert trained(restorer) == expected
    for name, parameter in restorer.named_parameters():
        assert parameter.dtype == (torch.float32 if ".lora_" in name else getattr(torch, dtype))
    loss = restorer.loss(photos(), photos(seed=1), DIAGNOSES, torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in restorer.parameters() if p.requires_grad)
    assert restorer.restore(photos(), DIAGNOSES, [0, 1, 2]).dtype == torch.float32


@pytest.mark.parametrize("build", [make, with_living_adapter])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saves_and_loads(build, dtype, tmp_path):
    restorer = build(dtype=dtype)
    restorer.save(tmp_path)
    loaded = QwenImageEditRestorer(str(tmp_path), steps=3, dtype=dtype)
    assert trained(loaded) == trained(restorer)
    inputs = photos(), DIAGNOSES, [0, 1, 2]
    assert torch.equal(loaded.restore(*inputs), restorer.restore(*inputs))
    assert not list(tmp_path.rglob("*.bin"))


def test_save_leaves_no_old_adapter(tmp_path):
    with_living_adapter().save(tmp_path)
    make().save(tmp_path)
    assert not hasattr(QwenImageEditRestorer(checkpoint=str(tmp_path)).transformer, "peft_config")


def test_refuses_a_second_adapter(tmp_path):
    with_living_adapter().save(tmp_path)
    with pytest.raises(ValueError, match="has an adapter already"):
        QwenImageEditRestorer(str(tmp_path), lora_rank=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps 0"),
        ({"steps": 2, "grad_steps": 3}, "grad_steps 3"),
        ({"guidance": 0.5}, "got 0.5"),
        ({"lora_alpha": 8}, "got 8"),
        ({"tile": 64, "overlap": 64}, "got 64 and a tile of 64"),
        ({"tile": 40}, "got 128 and a tile of 40"),
        ({"text_encoder_8bit": True}, "there is none"),
    ],
)
def test_refuses_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        QwenImageEditRestorer(**arguments)


def test_refuses_batches_that_do_not_fit(restorer):
    images, generator = photos(2), torch.Generator()
    with pytest.raises(ValueError, match="2 photos need as many diagnoses, got 1"):
        restorer.restore(images, [None], [0, 1])
    with pytest.raises(ValueError, match="2 photos need as many seeds, got 3"):
        restorer.restore(images, [None] * 2, [0, 1, 2])
    with pytest.raises(ValueError, match="one shape"):
        restorer.loss(images, photos(2, 16, 16), [None] * 2, generator)
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\)"):
        restorer.restore(torch.zeros(2, 1, 8, 8), [None] * 2, [0, 1])
    with pytest.raises(ValueError, match="group"):
        restorer.rollout(images, [None] * 2, [0, 1], group=0)


def test_is_built_from_a_config_file():
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--restorer", type=TrainableRestorer)
    config = parser.parse_object(
        {
            "restorer": {
                "class_path": "rnr.models.qwen_image_edit.QwenImageEditRestorer",
                "init_args": {"small": {"depth": 1}, "steps": 4, "lora_rank": 2, "gradient_checkpointing": True},
            }
        }
    )
    built = parser.instantiate(config).restorer
    assert isinstance(built, QwenImageEditRestorer)
    assert len(built.transformer.transformer_blocks) == SmallRestorer(depth=1).depth
