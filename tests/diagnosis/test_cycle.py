import pytest
import torch

from rnr.degradation import Degrader
from rnr.diagnosis import Diagnosis, Fog, Noise, Rain, Shake, cycle
from rnr.diagnosis.cycle import cycle_errors, degraded_again, shrunk
from rnr.diagnosis.truth import degradation

SEEN = Diagnosis(fog=Fog(50, (0.8, 0.85, 0.9), 0.5), shake=Shake(15, 30, 2.0, 0.2))
REST = {"rain": Rain(8, 0.001, 10, 15, 1.5, 0.5, (0.8, 0.8, 0.8)), "noise": Noise(10, 0.05, 5)}
FULL = Diagnosis(SEEN.fog, SEEN.shake, **REST)


def degraded(photo, depth, diagnosis):
    return Degrader.apply(photo[None], depth[None], degradation([diagnosis], depth[None], [7])).image


def test_the_clean_photo_closes_the_cycle_and_what_is_not_restored_does_not(photo, depth):
    image = degraded(photo, depth, SEEN)
    candidates = torch.stack([photo, image[0], photo.flip(-1), 0.9 * photo])[None]
    errors = cycle_errors(candidates, image, depth[None], [SEEN])[0]
    assert errors[0] < 1e-6
    assert errors[1:].min() > 0.02


def test_streaks_and_noise_are_not_asked_for(photo, depth):
    clean, worse = cycle_errors(
        torch.stack([photo, degraded(photo, depth, FULL)[0]])[None], degraded(photo, depth, FULL), depth[None], [FULL]
    )[0]
    assert clean < worse / 2
    again = degraded_again(photo[None, None], depth[None], [FULL])
    assert torch.equal(again, degraded_again(photo[None, None], depth[None], [SEEN]))


@pytest.mark.parametrize("unstated", [None, Diagnosis(), FULL.keep(("presence", "severity"))])
def test_without_parameters_a_candidate_is_compared_as_it_is(photo, depth, unstated):
    assert torch.equal(degraded_again(photo[None, None], depth[None], [unstated])[0], shrunk(photo[None]))


def test_a_photo_is_reckoned_with_once_whatever_its_candidates(photo, depth, monkeypatch):
    asked, plain = [], cycle.degradation
    monkeypatch.setattr(cycle, "degradation", lambda *each: asked.append(len(each[0])) or plain(*each))
    eight = photo.expand(1, 8, -1, -1, -1)
    assert degraded_again(eight, depth[None], [SEEN]).shape[:2] == (1, 8)
    assert asked == [1]


def test_each_photo_is_degraded_by_its_own_diagnosis(photo, depth):
    both = torch.stack([photo, photo.flip(-1)])[None].expand(2, -1, -1, -1, -1)
    again = degraded_again(both, depth[None].expand(2, -1, -1, -1), [SEEN, None])
    assert torch.equal(again[0], degraded_again(both[:1], depth[None], [SEEN])[0])
    assert torch.equal(again[1], shrunk(both[1]))
    with pytest.raises(ValueError, match="2 photos need as many diagnoses and depths, got 1 and 2"):
        degraded_again(both, depth[None].expand(2, -1, -1, -1), [SEEN])


def test_the_gradient_of_the_error_equals_a_finite_difference(photo, depth):
    image, step = degraded(photo, depth, SEEN), 0.02
    candidates = (0.6 * photo + 0.2)[None, None].requires_grad_()
    direction = torch.randn(candidates.shape, generator=torch.Generator().manual_seed(0)) * 0.05 + 0.1

    def error(x):
        return cycle_errors(x, image, depth[None], [SEEN]).square().sum()

    error(candidates).backward()
    with torch.no_grad():
        slope = (error(candidates + step * direction) - error(candidates - step * direction)) / (2 * step)
    assert (candidates.grad * direction).sum().item() == pytest.approx(slope.item(), rel=0.01)
