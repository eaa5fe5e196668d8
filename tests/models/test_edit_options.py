"""What makes the full-scale restorer smaller or faster: precision, 8 bits, compiled blocks."""


import pytest
import torch
from small_edit import make, photos, with_living_adapter

from rnr.diagnosis.prompt import EXAMPLE
from rnr.models import edit_parts
from rnr.models.load import load_restorer
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.small_restorer import SmallRestorer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_commands_load_a_full_model_as_it_was_saved(tmp_path, dtype):
    with_living_adapter(dtype=dtype).save(tmp_path)
    loaded = load_restorer(str(tmp_path))
    assert isinstance(loaded, QwenImageEditRestorer)
    for name, parameter in loaded.named_parameters():
        assert parameter.dtype == (torch.float32 if ".lora_" in name else getattr(torch, dtype))
    restored = loaded.restore(photos(1), [EXAMPLE], [0])
    assert restored.dtype == torch.float32 and restored.isfinite().all()


def test_bfloat16_gives_nearly_the_same_image(tmp_path):
    make().save(tmp_path)
    exact, rounded = (
        QwenImageEditRestorer(str(tmp_path), dtype=dtype, steps=4).restore(photos(1), [EXAMPLE], [0])
        for dtype in ("float32", "bfloat16")
    )
    assert 0 < (exact - rounded).abs().mean() < 0.01


def test_8_bits_without_their_package_are_refused(tmp_path, monkeypatch):
    make().save(tmp_path)
    monkeypatch.setattr(edit_parts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        QwenImageEditRestorer(str(tmp_path), text_encoder_8bit=True)


@pytest.mark.parametrize(
    "ranks, gpus, own",
    [
        ({}, 8, "cuda:0"),
        ({"LOCAL_RANK": "5"}, 8, "cuda:5"),
        ({"LOCAL_RANK": "5"}, 1, "cuda:0"),
        ({"SLURM_LOCALID": "5"}, 8, "cuda:5"),
        ({"LOCAL_RANK": "5"}, 0, "cpu"),
    ],
)
def test_8_bits_are_made_on_the_gpu_of_their_process(ranks, gpus, own, tmp_path, monkeypatch):
    make().save(tmp_path)
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(edit_parts, "_eight_bits", lambda: None)
    encoder = edit_parts.Qwen2_5_VLForConditionalGeneration
    monkeypatch.setattr(encoder, "from_pretrained", lambda *_, **named: asked.append(named))
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    edit_parts.EditParts.load(str(tmp_path), torch.float32, text_encoder_8bit=True)
    assert [named["device_map"] for named in asked] == [{"": own}]


@pytest.mark.eightbit
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_text_encoder_in_8_bits(tmp_path, dtype):
    make(dtype=dtype).save(tmp_path / "full")
    full = QwenImageEditRestorer(str(tmp_path / "full"), dtype="auto")
    small = QwenImageEditRestorer(str(tmp_path / "full"), dtype="auto", text_encoder_8bit=True)
    layer = "model.language_model.layers.0.mlp.up_proj"
    assert small.text_encoder.get_submodule(layer).weight.dtype == torch.int8
    assert small.vae.dtype == small.transformer.dtype == getattr(torch, dtype)
    exact, rounded = (one._prompt(photos(1), ["Fog."]).embedding.float() for one in (full, small))
    assert 0 < (exact - rounded).abs().mean() < 0.05 * exact.abs().mean()
    assert small.to("cpu").loss(photos(2), photos(2), [None] * 2, torch.Generator().manual_seed(0)).isfinite()
    small.save(tmp_path / "again")
    again = QwenImageEditRestorer(str(tmp_path / "again"), dtype="auto")
    for name, weight in full.text_encoder.state_dict().items():
        assert torch.equal(weight, again.text_encoder.state_dict()[name])


@pytest.mark.slow
def test_compiled_blocks_give_the_same_image_and_save_the_same_weights(tmp_path):
    plain, compiled = (make(small=SmallRestorer(depth=1), compile_blocks=yes) for yes in (False, True))
    inputs = photos(1), [EXAMPLE], [0]
    expected = plain.restore(*inputs)
    torch.testing.assert_close(compiled.restore(*inputs), expected, rtol=0, atol=1e-4)
    compiled.save(tmp_path)
    loaded = QwenImageEditRestorer(str(tmp_path), steps=3)
    torch.testing.assert_close(loaded.restore(*inputs), expected, rtol=0, atol=1e-5)
