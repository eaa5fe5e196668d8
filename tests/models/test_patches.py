import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rnr.models.patches import patchify


@pytest.mark.parametrize(("patch", "temporal", "merge"), [(14, 2, 2), (16, 2, 2), (4, 1, 3)])
def test_equals_the_processor_of_transformers(patch, temporal, merge):
    unit = patch * merge
    images = torch.randn(3, 3, 2 * unit, 3 * unit, generator=torch.Generator().manual_seed(0))
    processor = Qwen2VLImageProcessorPil(patch_size=patch, temporal_patch_size=temporal, merge_size=merge)
    expected = processor.preprocess(
        [np.asarray(image) for image in images],
        do_resize=False,
        do_rescale=False,
        do_normalize=False,
        input_data_format="channels_first",
        return_tensors="pt",
    )
    pixels, grid = patchify(images, patch, temporal, merge)
    assert torch.equal(pixels, expected["pixel_values"])
    assert torch.equal(grid, expected["image_grid_thw"])
    assert grid.dtype == expected["image_grid_thw"].dtype


def test_gradient_reaches_every_pixel():
    image = torch.zeros(1, 3, 8, 8, requires_grad=True)
    patchify(image, 2, 2, 2)[0].sum().backward()
    assert torch.equal(image.grad, torch.full_like(image, 2))


@pytest.mark.parametrize("size", [(8, 9), (0, 8)])
def test_refuses_sizes_that_do_not_divide(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        patchify(torch.zeros(1, 3, *size), 2, 2, 2)
