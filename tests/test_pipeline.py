"""The two phases as one call: what is no photo is refused, and what is grey stays grey."""

import pytest
import torch
from fakes import Watcher

from rnr.diagnosis import Diagnosis, Fog, Noise
from rnr.models.interfaces import Restorer, TrainableRestorer
from rnr.pipeline import ReasonAndRestore

PHOTO = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))


class Reddening(TrainableRestorer):
    def restore(self, images, diagnoses, seeds):
        return images * torch.tensor([1.0, 0.5, 0.3]).view(3, 1, 1)

    def rollout(self, degraded, diagnoses, seeds, group):
        restored = self.restore(degraded, diagnoses, seeds)
        return torch.stack([restored * share for share in torch.linspace(1, 0.5, group)], dim=1)

    def loss(self, degraded, clean, diagnoses, generator):
        raise NotImplementedError

    def save(self, directory):
        raise NotImplementedError


@pytest.fixture
def rnr():
    return ReasonAndRestore(Watcher(), Reddening())


@pytest.mark.parametrize("best_of", [1, 3])
def test_grey_stays_grey_and_colors_are_the_restorers(rnr, best_of):
    assert isinstance(rnr.restorer, Restorer)
    colored = rnr(PHOTO, best_of=best_of).image
    assert torch.allclose(colored[1] / colored[0], 0.5 * PHOTO[1] / PHOTO[0])
    grey = rnr(PHOTO[:1].expand(3, -1, -1), best_of=best_of).image
    assert grey.eq(grey[:1]).all() and torch.allclose(grey[0] / PHOTO[0], (grey[0] / PHOTO[0])[0, 0])


def test_what_the_reasoner_doubts_is_left_alone_if_one_asks_for_it(rnr, monkeypatch):
    said = Diagnosis(fog=Fog(50, None, None, chance=0.7), noise=Noise(9, None, None, chance=0.9))
    monkeypatch.setattr(rnr, "diagnose", lambda photo: said)
    assert rnr(PHOTO).diagnosis == said
    assert rnr(PHOTO, sure=0.8).diagnosis == Diagnosis(noise=said.noise)
    assert rnr(PHOTO, sure=1, overrule={"fog": 30}).diagnosis.fog.severity == 30, "a person is sure"


@pytest.mark.parametrize("best_of", [1, 3])
def test_so_much_of_the_change_is_made_as_asked_for(rnr, best_of):
    whole = rnr(PHOTO, best_of=best_of).image
    assert torch.equal(rnr(PHOTO, best_of=best_of, strength=1).image, whole)
    assert torch.equal(rnr(PHOTO, best_of=best_of, strength=0).image, PHOTO)
    assert torch.allclose(rnr(PHOTO, best_of=best_of, strength=0.25).image, 0.75 * PHOTO + 0.25 * whole)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"strength must lie within \[0, 1\]"):
            rnr(PHOTO, best_of=best_of, strength=strength)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (PHOTO * 255, r"lie within \[0, 1\], got .* to 25\d"),
        (PHOTO - 0.5, r"lie within \[0, 1\], got -0\.\d+"),
        (PHOTO * float("nan"), r"lie within \[0, 1\], got nan"),
        (PHOTO[None], r"\(3, H, W\) in floating point, got \(1, 3, 20, 30\)"),
        (PHOTO[:1], r"got \(1, 20, 30\)"),
        (PHOTO[:, :0], r"got \(3, 0, 30\)"),
        ((PHOTO * 255).byte(), r"got \(3, 20, 30\) in torch.uint8"),
    ],
)
def test_what_is_no_photo_is_refused(rnr, wrong, said):
    for phase in (rnr, rnr.diagnose, lambda photo: rnr.restore(photo, None)):
        with pytest.raises(ValueError, match=said):
            phase(wrong)


def test_double_precision_is_taken(rnr):
    assert torch.equal(rnr(PHOTO.double()).image, rnr(PHOTO.double().float()).image)
