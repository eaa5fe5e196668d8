"""What the shipped models do: the reasoner with what is no photo, the restorer as far as a person's word goes."""

import dataclasses

import pytest
import torch
from skimage.registration import phase_cross_correlation

from rnr.data.photos import open_photo, shipped_photos
from rnr.degradation import Degrader
from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, Rain, Shake, parse, render, truth
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


@pytest.fixture(scope="module")
def degraded():
    """A photo, (1, 3, 256, 320), put through all of Eq. 1, the blur a Gaussian: clean, degraded and the truth."""
    pixels = torch.from_numpy(open_photo(shipped_photos("train")[0].path)).permute(2, 0, 1)
    clean = pixels[None, :, :256, 100:420].float() / 255
    depth = torch.linspace(1, 0, 256).view(1, 1, 256, 1).expand(1, 1, 256, 320)
    asked = Diagnosis(
        Fog(40, (0.9, 0.85, 0.8), 0.6),
        Shake(15, 30, 3.0, 0.15),
        Rain(9, 0.001, 10, 20, 1.5, 0.5, (0.9,) * 3),
        Noise(5, 0.05, 2),
    )
    result = Degrader.apply(clean, depth, truth.degradation([asked], depth, [0]))
    return clean, result.image, truth.diagnoses(result, [None])


def test_the_restored_photo_stands_where_the_photo_stood(degraded):
    clean, image, told = degraded
    restored = load_restorer("shipped/restorer").eval().restore(image, told, [0])
    gray = [each[0].mean(dim=0).numpy() for each in (clean, restored)]
    moved = phase_cross_correlation(*gray, upsample_factor=100, normalization=None)[0]
    assert abs(moved).max() <= 0.1  # the degraded photo itself seems to have moved by as much


def test_no_seam_shows_where_tiles_meet(degraded):
    _, image, told = degraded
    restorer = load_restorer("shipped/restorer").eval()
    whole = restorer.restore(image, told, [0])
    restorer.tile, restorer.overlap = 160, 32
    apart = restorer.restore(image, told, [0]) - whole
    assert apart.abs().max() > 0, "these are tiles"
    for along in (-1, -2):
        across = -3 - along  # the other side
        steps = apart.diff(dim=along).mean(dim=1).abs().mean(dim=across)
        assert steps.max() < 1 / 255, "from one line to the next less than a level, on average along it"
