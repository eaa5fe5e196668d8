"""What the shipped restorer does with a photo that ships along: as far as a person's word goes."""

import pytest
import torch

from rnr.data.photos import open_photo, shipped_photos
from rnr.diagnosis import Diagnosis, Fog
from rnr.diagnosis.edit import with_severity
from rnr.models.load import load_restorer

LIGHT, DEPTH = (0.85, 0.85, 0.85), torch.linspace(1, 0, 160).view(1, 1, 160, 1).expand(1, 1, 160, 200)


@pytest.fixture(scope="module")
def foggy():
    pixels = torch.from_numpy(open_photo(shipped_photos("test")[0].path)).permute(2, 0, 1)
    clear = pixels[None, :, :160, :200].float() / 255
    t = torch.exp(-1.2 * DEPTH)
    return clear, clear * t + 0.85 * (1 - t), t.mean().item()


def fog_left(restored, clear):
    """The share a of the light that fits ``restored`` best as (1 - a) clear + a light: 0 for none of the fog."""
    towards = 0.85 - clear
    return ((restored - clear) * towards).sum().item() / towards.square().sum().item()


def test_less_fog_removal_leaves_more_fog(foggy):
    clear, image, t = foggy
    true = Diagnosis(fog=Fog(1 + 99 * (1 - t) / 0.95, LIGHT, t))
    restorer = load_restorer("shipped/restorer").eval()
    left = {
        share: fog_left(restorer.restore(image, [with_severity(true, "fog", share * true.fog.severity)], [0]), clear)
        for share in (1.0, 0.6, 0.3)
    }
    assert left[1.0] < 0.5 * left[0.3]
    assert left[1.0] + 0.03 < left[0.6] and left[0.6] + 0.03 < left[0.3] < fog_left(image, clear)
