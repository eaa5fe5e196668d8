"""What the shipped models do: the reasoner with what is no photo, the restorer as far as a person's word goes."""

import dataclasses

import pytest
import torch

from rnr.data.photos import open_photo, shipped_photos
from rnr.diagnosis import KINDS, Diagnosis, Fog, parse, render
from rnr.diagnosis.edit import with_severity
from rnr.models.load import load_reasoner, load_restorer

LIGHT, DEPTH = (0.85, 0.85, 0.85), torch.linspace(1, 0, 160).view(1, 1, 160, 1).expand(1, 1, 160, 200)


@pytest.fixture(scope="module")
def reasoner():
    return load_reasoner("shipped/reasoner").eval()


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


def odd_images():
    """Noise, constants and patterns, of usual and of the smallest sizes: (name, (1, 3, H, W)) each."""
    noise = torch.rand(3, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    yield "uniform noise", noise[:1]
    yield "binary noise", noise[1:2].round()
    yield "grey noise", noise[2:, :1].expand(-1, 3, -1, -1)
    for level in (0.0, 0.5, 1.0):
        yield f"constant {level}", torch.full((1, 3, 150, 150), level)
    yield "one color", torch.tensor([1.0, 0.0, 0.3]).view(1, 3, 1, 1).expand(1, 3, 90, 400)
    yield "stripes", torch.arange(256).remainder(2).float().expand(1, 3, 128, 256)
    yield "one pixel", torch.zeros(1, 3, 1, 1)
    yield "one row", noise[:1, :, :1]


@pytest.mark.parametrize(("name", "image"), odd_images(), ids=lambda each: each if isinstance(each, str) else "")
def test_every_answer_parses_whatever_it_sees(reasoner, name, image):
    (said,) = reasoner.diagnose(image)
    assert isinstance(said, Diagnosis), name
    assert parse(render(said)) == dataclasses.replace(said, **{kind: sure(said[kind]) for kind in KINDS})


def sure(finding):
    """What is written says nothing of chances."""
    return finding and dataclasses.replace(finding, chance=1.0)
