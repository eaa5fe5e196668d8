"""The restorer against diffusers' own pipelines around the same parts, held at our size: they resize to a megapixel."""

import re

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image
from small_edit import make, photos
from transformers import BatchFeature, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rnr.diagnosis.prompt import EXAMPLE
from rnr.models import edit_prompt, flow
from rnr.models.edit_grid import pack, unpack
from rnr.models.edit_prompt import BLANK, PLAIN, PLUS, SYSTEM, instruction, view_size
from rnr.models.patches import patchify
from rnr.models.qwen_image_edit import QwenImageEditRestorer

PIPELINES = (QwenImageEditPipeline, QwenImageEditPlusPipeline)
STEPS = 20
"""So many that some sigma * 1000 / 1000 is not sigma."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Where small checkpoints lie: {(pipeline, dtype): folder}."""
    folders = {}
    for pipeline in PIPELINES:
        for dtype in ("float32", "bfloat16"):
            restorer = make(dtype=dtype)
            restorer.pipeline = pipeline
            if pipeline is QwenImageEditPlusPipeline:
                # As in -2511, where the photo's tokens are told that they have no noise.
                config = {k: v for k, v in restorer.transformer.config.items() if not k.startswith("_")}
                state = restorer.transformer.state_dict()
                restorer.transformer = QwenImageTransformer2DModel(**{**config, "zero_cond_t": True})
                restorer.transformer.to(getattr(torch, dtype)).load_state_dict(state)
            folders[pipeline, dtype] = tmp_path_factory.mktemp(f"{pipeline.__name__}-{dtype}")
            restorer.save(folders[pipeline, dtype])
    return folders


def load(folder) -> QwenImageEditRestorer:
    return QwenImageEditRestorer(checkpoint=str(folder), steps=STEPS, dtype="auto")


def picture(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.fixture
def at_our_size(monkeypatch):
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda area, ratio: (48, 32, None))
    for module in (pipeline_qwenimage_edit_plus, edit_prompt):
        monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio: (48, 32))


class Processor:
    """``Qwen2VLProcessor`` without its half for videos, which needs torchvision."""

    def __init__(self, restorer: QwenImageEditRestorer) -> None:
        self.restorer = restorer

    def __call__(self, text, images, padding, return_tensors):
        processor, tokenizer = self.restorer.image_processor, self.restorer.tokenizer
        seen = processor.preprocess(images, return_tensors="pt")
        count = int(seen["image_grid_thw"][0].prod()) // processor.merge_size**2
        said = [line.replace("<|image_pad|>", "<|image_pad|>" * count) for line in text]
        return BatchFeature({**tokenizer(said, padding=True, return_tensors="pt"), **seen})


@pytest.mark.usefixtures("at_our_size")
@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
class TestAgainstThePipeline:
    def pipeline(self, restorer, kind):
        pipeline = kind(
            scheduler=restorer.scheduler,
            vae=restorer.vae,
            text_encoder=restorer.text_encoder,
            tokenizer=restorer.tokenizer,
            processor=None,
            transformer=restorer.transformer,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def test_checkpoint_says_which_pipeline_it_is_and_in_what_precision(self, saved, kind, dtype):
        restorer = load(saved[kind, dtype])
        assert restorer.pipeline is kind
        assert {p.dtype for p in restorer.parameters()} == {getattr(torch, dtype)}
        assert isinstance(kind.from_pretrained(saved[kind, dtype], processor=None), kind)
        assert restorer.transformer.zero_cond_t == (kind is QwenImageEditPlusPipeline)

    @pytest.mark.parametrize("guidance", [1.0, 4.0])
    def test_same_image_to_the_last_bit(self, saved, monkeypatch, kind, dtype, guidance):
        restorer, images, sampled = load(saved[kind, dtype]), photos(1), []
        restorer.guidance = guidance
        sample = flow.sample
        monkeypatch.setattr(flow, "sample", lambda *inputs: sampled.append(sample(*inputs)) or sampled[0])
        restored = restorer.restore(images, [EXAMPLE], seeds=[5])
        prompt, blank = (restorer._prompt(images, [text]) for text in (instruction(EXAMPLE), BLANK))
        pipeline = self.pipeline(restorer, kind)
        inputs = {
            "image": picture(images[0]),
            "prompt_embeds": prompt.embedding,
            "negative_prompt_embeds": blank.embedding if guidance > 1 else None,
            "true_cfg_scale": guidance,
            "num_inference_steps": STEPS,
        }
        latents = pipeline(**inputs, generator=torch.Generator().manual_seed(5), output_type="latent").images
        assert latents.dtype == getattr(torch, dtype)
        assert torch.equal(pack(sampled[0]), latents)
        assert torch.equal(pipeline.scheduler.sigmas, flow.schedule(restorer.scheduler, STEPS, 6))
        decoded = pipeline(**inputs, generator=torch.Generator().manual_seed(5), output_type="np").images
        # The pipeline goes from [-1, 1] to [0, 1] in the VAE's precision.
        tolerance = {"float32": 1e-7, "bfloat16": 4e-3}[dtype]
        np.testing.assert_allclose(restored.permute(0, 2, 3, 1).numpy(), decoded, rtol=0, atol=tolerance)

    def test_same_prompt(self, saved, monkeypatch, kind, dtype):
        restorer, images = load(saved[kind, dtype]), photos(1)
        pipeline = self.pipeline(restorer, kind)
        pipeline.processor = Processor(restorer)
        pipeline.prompt_template_encode_start_idx = len(restorer.tokenizer(SYSTEM).input_ids)
        encoder = restorer.text_encoder
        forward = encoder.forward

        def with_places(input_ids, **inputs):
            # What older versions of transformers worked out from the ids; the pipeline does not hand it over.
            kinds = (input_ids == encoder.config.image_token_id).int()
            return forward(input_ids=input_ids, mm_token_type_ids=kinds, **inputs)

        ours = restorer._prompt(images, [instruction(EXAMPLE)])
        monkeypatch.setattr(encoder, "forward", with_places)
        image = picture(images[0])
        with torch.no_grad():
            theirs, mask = pipeline.encode_prompt(
                instruction(EXAMPLE), [image] if kind is QwenImageEditPlusPipeline else image
            )
        assert ours.mask is None and mask is None
        tolerance = {"float32": 1e-5, "bfloat16": 0.1}[dtype]
        torch.testing.assert_close(ours.embedding, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [(512, 768), (1024, 1024), (100, 300), (1200, 1600)])
@pytest.mark.parametrize("form", [PLAIN, PLUS])
def test_photo_is_seen_at_the_size_of_the_real_processor(form, size):
    processor = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2)
    image = Image.new("RGB", size[::-1])
    if form is PLUS:
        width, height = pipeline_qwenimage_edit_plus.calculate_dimensions(384 * 384, size[1] / size[0])
        image = VaeImageProcessor(vae_scale_factor=16).resize(image, height, width)
        assert 0.9 < image.width * image.height / 384**2 < 1.1
    grid = processor.preprocess([image], return_tensors="pt")["image_grid_thw"][0]
    assert view_size(processor, form, *size) == (14 * grid[1], 14 * grid[2])


def test_photo_is_cut_and_normalised_as_by_the_processor():
    processor, images = Qwen2VLImageProcessorPil(patch_size=8, min_pixels=256), photos(1)
    expected = processor.preprocess([picture(images[0])], return_tensors="pt")
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (processor.image_mean, processor.image_std))
    patches, grid = patchify((images - mean) / std, 8, 2, 2)
    assert torch.equal(grid, expected["image_grid_thw"])
    torch.testing.assert_close(patches, expected["pixel_values"])


def test_as_many_tokens_dropped_with_the_real_vocabulary():
    # Each word of the prompt is one token there, so that they can be counted without it.
    special = re.compile(r"<\|\w+\|>")
    words = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str
    count = len(special.findall(SYSTEM)) + sum(len(words(part)) for part in special.split(SYSTEM) if part)
    for kind in PIPELINES:
        assert count == kind(None, None, None, None, None, None).prompt_template_encode_start_idx


def test_same_packing():
    latents = torch.randn(2, 16, 4, 6)
    grid = torch.nn.functional.pixel_unshuffle(latents, 2)
    assert torch.equal(pack(grid), QwenImageEditPipeline._pack_latents(latents, 2, 16, 4, 6))
    assert torch.equal(unpack(pack(grid), 2, 3), grid)


@pytest.mark.usefixtures("at_our_size")
def test_adapter_gives_the_same_image_in_the_plain_pipeline(tmp_path):
    """As somebody would use it who knows diffusers and not us: the base, then the adapter, whose alpha is not its rank, and
    which was trained on a pipeline that had been saved."""
    make().save(tmp_path / "base")
    restorer = QwenImageEditRestorer(checkpoint=str(tmp_path / "base"), steps=3, lora_rank=4, lora_alpha=12)
    trained = [parameter for parameter in restorer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.05)
    for step in range(4):
        optimizer.zero_grad()
        pair = photos(2, seed=1), photos(2, seed=2)
        restorer.loss(*pair, [EXAMPLE, None], torch.Generator().manual_seed(step)).backward()
        optimizer.step()
    restorer.eval().save(tmp_path)
    assert QwenImageEditRestorer(checkpoint=str(tmp_path)).transformer.peft_config["default"].lora_alpha == 12
    images = photos(1)
    embedding = restorer._prompt(images, [instruction(None)]).embedding
    pipeline = QwenImageEditPipeline.from_pretrained(tmp_path, processor=None)  # which needs torchvision
    pipeline.set_progress_bar_config(disable=True)

    def image() -> torch.Tensor:
        arrays = pipeline(
            image=picture(images[0]),
            prompt_embeds=embedding,
            true_cfg_scale=1.0,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(5),
            output_type="np",
        ).images
        return torch.from_numpy(arrays).permute(0, 3, 1, 2)

    without = image()
    pipeline.load_lora_weights(tmp_path)
    restored = restorer.restore(images, [None], seeds=[5])
    torch.testing.assert_close(image(), restored, rtol=0, atol=1e-5)
    assert (without - restored).abs().max() > 1e-3
