"""The public checkpoints by name, where they are at hand or can be had: ``pytest -m weights``. On a CPU too, in minutes."""

import pytest
import torch

from rnr.data.photos import open_photo, shipped_photos
from rnr.diagnosis import Diagnosis, Fog
from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.qwen_image_edit import QwenImageEditRestorer

pytestmark = pytest.mark.weights
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def crop():
    """(1, 3, 200, 264): sides that no patch divides."""
    pixels = torch.from_numpy(open_photo(shipped_photos("train")[0].path))[:200, :264]
    return pixels.permute(2, 0, 1)[None].to(DEVICE).float() / 255


@pytest.mark.parametrize("size", ["2B", "8B"])
def test_a_public_qwen3_vl_writes_a_diagnosis(crop, size):
    reasoner = Qwen3VLReasoner(f"Qwen/Qwen3-VL-{size}-Instruct").eval().to(DEVICE)
    (answer,) = reasoner.diagnose(crop)
    assert isinstance(answer, Diagnosis), answer
    assert reasoner.severities(crop).isfinite().all()


@pytest.mark.parametrize("name", ["Qwen-Image-Edit", "Qwen-Image-Edit-2509", "Qwen-Image-Edit-2511"])
def test_a_public_qwen_image_edit_keeps_size_and_scene(crop, name):
    restorer = QwenImageEditRestorer(f"Qwen/{name}", steps=8, dtype="bfloat16").eval().to(DEVICE)
    restored = restorer.restore(crop, [Diagnosis(fog=Fog(30.0, (0.9, 0.9, 0.9), 0.8))], [0])
    assert restored.shape == crop.shape and restored.isfinite().all()
    both = torch.stack([crop.flatten(), restored.float().flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.5, "the same photo, where it was"
