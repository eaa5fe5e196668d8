import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForDepthEstimation,
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2Model,
    DPTConfig,
    DPTForDepthEstimation,
    GLPNConfig,
    GLPNForDepthEstimation,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
    pipeline,
)
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.glpn.image_processing_pil_glpn import GLPNImageProcessorPil
from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil

from rnr.data.photos import Photo, PhotoError
from rnr.models.depth import DepthEstimator, from_inverse

WIDE = {"initializer_range": 0.3}  # at the usual 0.02 so small a network gives the same depth everywhere
EYE = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "reshape_hidden_states": False, **WIDE}
NECK = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, **WIDE}
STAGES = [1, 2, 3, 4]


def depth_anything(kind):
    eye = Dinov2Config(image_size=28, patch_size=14, out_indices=STAGES, **EYE)
    config = DepthAnythingConfig(
        backbone_config=eye, reassemble_hidden_size=16, head_hidden_size=8, depth_estimation_type=kind, max_depth=80, **NECK
    )
    processor = DPTImageProcessorPil(size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14)
    return DepthAnythingForDepthEstimation(config), processor


def midas():
    config = DPTConfig(image_size=32, intermediate_size=16, backbone_out_indices=[0, 1, 2, 3], **(EYE | NECK))
    return DPTForDepthEstimation(config), DPTImageProcessorPil(size={"height": 32, "width": 32})


def dpt_on_dinov2():
    eye = Dinov2Config(image_size=28, patch_size=14, out_indices=STAGES, apply_layernorm=False, **EYE)
    config = DPTConfig(backbone_config=eye, image_size=28, patch_size=14, hidden_size=16, **NECK)
    return DPTForDepthEstimation(config), DPTImageProcessorPil(do_resize=False, do_pad=True, size_divisor=14)


def zoedepth():
    eye = BeitConfig(image_size=32, intermediate_size=16, out_indices=STAGES, use_relative_position_bias=True, **EYE)
    config = ZoeDepthConfig(
        backbone_config=eye, bottleneck_features=8, bin_embedding_dim=8, num_relative_features=8, num_attractors=[1] * 4,
        bin_configurations=[{"n_bins": 4, "min_depth": 0.001, "max_depth": 10.0}], **NECK,
    )  # fmt: skip
    processor = ZoeDepthImageProcessorPil(size={"height": 64, "width": 64}, ensure_multiple_of=32)
    return ZoeDepthForDepthEstimation(config), processor


def glpn():
    sizes = {"hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "depths": [1] * 4, "decoder_hidden_size": 8}
    return GLPNForDepthEstimation(GLPNConfig(**sizes)), GLPNImageProcessorPil()


CHECKPOINTS = {
    "relative": (lambda: depth_anything("relative"), True),
    "metric": (lambda: depth_anything("metric"), False),
    "midas": (midas, True),
    "dinov2": (dpt_on_dinov2, False),
    "zoe": (zoedepth, False),
    "glpn": (glpn, False),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small random checkpoints of the real classes, by name."""
    root = tmp_path_factory.mktemp("depth")
    for name, (build, _) in CHECKPOINTS.items():
        torch.manual_seed(0)
        for part in build():
            part.save_pretrained(root / name)
    return root


def photo(height, width, seed=0):
    """Smooth, as photos are, so that ways to resize agree."""
    coarse = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return Photo("photo.png", "photo.png"), (smooth[0] * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (301, 77), (60, 90)])
def test_every_kind_of_network_takes_every_size_of_photo(checkpoints, name, size):
    estimator = DepthEstimator(str(checkpoints / name))
    assert estimator.inverse == CHECKPOINTS[name][1]
    depth = estimator(*photo(*size))
    assert (depth.shape, depth.dtype) == ((1, *size), torch.uint8)
    assert depth.max() == 255


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_one_that_was_saved_in_half_precision_works(checkpoints, tmp_path, name):
    shutil.copytree(checkpoints / name, tmp_path / name)
    AutoModelForDepthEstimation.from_pretrained(checkpoints / name, dtype=torch.bfloat16).save_pretrained(tmp_path / name)
    half, full = (DepthEstimator(str(root / name))(*photo(60, 90)).float() for root in (tmp_path, checkpoints))
    assert (half - full).abs().mean() < 4


@pytest.mark.parametrize(("name", "size"), [("relative", (56, 84)), ("metric", (56, 84)), ("midas", (32, 32))])
def test_it_says_what_transformers_own_pipeline_says(checkpoints, name, size):
    given, pixels = photo(*size)
    estimate = pipeline("depth-estimation", model=str(checkpoints / name), device="cpu")
    raw = estimate(Image.fromarray(pixels.permute(1, 2, 0).numpy()))["predicted_depth"].double().numpy()
    if CHECKPOINTS[name][1]:
        s = (raw - raw.min()) / (raw.max() - raw.min())
        expected = 1 / 5 / (1 / 5 + (1 - 1 / 5) * s)
    else:
        expected = raw / raw.max()
    assert np.ptp(expected) > 0.05
    depth = DepthEstimator(str(checkpoints / name))(given, pixels)[0].double().numpy() / 255
    np.testing.assert_allclose(depth, expected, atol=0.503 / 255, rtol=0)


def test_the_user_may_say_otherwise(checkpoints):
    given = photo(60, 90)
    as_depth, as_inverse = (DepthEstimator(str(checkpoints / "midas"), inverse=i)(*given).flatten() for i in (False, True))
    nearer, farther = as_depth.long().sort().indices[[0, -1]]
    assert as_depth[nearer] < as_depth[farther] and as_inverse[nearer] > as_inverse[farther]


def test_depth_from_inverse_depth_runs_from_far_to_near():
    values = torch.tensor([3.0, 4.0, 7.0])
    torch.testing.assert_close(from_inverse(values, 10), torch.tensor([1.0, 1 / (1 + 9 / 4), 0.1]))
    torch.testing.assert_close(from_inverse(2 * values + 5, 10), from_inverse(values, 10))
    assert from_inverse(torch.full((2, 2), 3.0), 10).eq(1).all()
    with pytest.raises(ValueError, match="far_over_near must be above 1, got 1"):
        DepthEstimator("nowhere", far_over_near=1)


@pytest.mark.parametrize("name", ["zoe", "dinov2"])
def test_depth_lies_over_the_photo_though_processors_add_a_margin(checkpoints, name):
    estimator = DepthEstimator(str(checkpoints / name))
    pixels = photo(63, 90)[1]
    seen = estimator._input(pixels)[0]
    back = torch.nn.functional.interpolate(seen[None], (63, 90), mode="bilinear", antialias=True)[0] / 2 + 0.5
    np.testing.assert_allclose(back, pixels / 255, atol=0.1, rtol=0)


def test_a_network_gone_wrong_is_an_error_that_names_the_photo(checkpoints):
    estimator = DepthEstimator(str(checkpoints / "midas"))
    torch.nn.init.constant_(next(estimator.model.parameters()), torch.nan)
    with pytest.raises(PhotoError, match=r"photo\.png: the network gave no finite depth"):
        estimator(*photo(30, 30))


def test_other_weights_are_refused(tmp_path):
    Dinov2Model(Dinov2Config(**EYE)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds weights of dinov2, not of a depth estimator"):
        DepthEstimator(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no weights in runs/nowhere"):
        DepthEstimator("runs/nowhere")
