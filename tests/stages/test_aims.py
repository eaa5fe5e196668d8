"""What each aim measures, on a restorer that can be worked out by hand."""

import pytest
import torch
from torch import nn

from rnr import grpo
from rnr.data.batch import DegradedBatch
from rnr.degradation import Degrader
from rnr.diagnosis import Diagnosis, Fog, Shake
from rnr.diagnosis.truth import degradation
from rnr.models.compact import CompactRestorer
from rnr.models.interfaces import TrainableRestorer
from rnr.models.reward import depth_of_degraded
from rnr.stages.aims import Clean, Cycle, Own, OwnFlow

N = 3
FOGGY = Diagnosis(fog=Fog(50, (0.9, 0.9, 0.9), 0.5))


class Gain(TrainableRestorer):
    """Multiplies a photo by its one weight; candidates differ by what is drawn from the seed, the first has nothing added."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.2))
        self.rollouts = []

    def restore(self, images, diagnoses, seeds):
        return self.rollout(images, diagnoses, seeds, 1)[:, 0].detach().clamp(0, 1)

    def rollout(self, degraded, diagnoses, seeds, group):
        self.rollouts.append((group, torch.is_grad_enabled()))
        draws = [torch.randn(group, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        noise = 0.1 * torch.stack(draws)
        noise[:, 0] = 0
        return (self.weight * degraded)[:, None] + noise.view(-1, group, 1, 1, 1)

    def loss(self, degraded, clean, diagnoses, generator):
        raise NotImplementedError

    def save(self, directory):
        raise NotImplementedError


@pytest.fixture
def batch(photo):
    clean = torch.stack([photo, photo.flip(-1)])
    return DegradedBatch(clean, 0.5 * clean + 0.1, [Diagnosis()] * 2, [3, 4], ["a", "b"])


def test_clean_is_algorithm_1s_energy_of_the_very_candidates_that_are_judged(batch):
    restorer = Gain()
    images, prediction = Clean().draw(restorer, batch, [None] * 2, N)
    assert not images.requires_grad and torch.equal(images, prediction.value)
    torch.testing.assert_close(prediction.energies, grpo.energies(images, batch.clean))
    prediction.energies[0, 1].backward()
    error = (images[0, 1] - batch.clean[0]) * batch.degraded[0]
    torch.testing.assert_close(restorer.weight.grad, 2 * error.mean())


def test_own_moves_the_first_candidate_and_holds_the_others_fixed(batch):
    restorer = Gain()
    images, prediction = Own().draw(restorer, batch, [None] * 2, N)
    assert restorer.rollouts == [(N, False), (1, True)], "candidates cost no graph"
    assert prediction.energies.shape == (2, N)
    assert (prediction.energies[:, 0] == 0).all() and (prediction.energies[:, 1:] > 0).all()
    prediction.energies[1, 2].backward()
    apart = (images[1, 0] - images[1, 2]) * batch.degraded[1]
    torch.testing.assert_close(restorer.weight.grad, 2 * apart.mean())


def test_own_begins_with_itself_however_wide_the_shake_that_the_restorer_undoes(photo):
    wide = Diagnosis(shake=Shake(60.0, 20.0, 9.0, 0.1))
    batch = DegradedBatch(photo[None], photo[None], [wide], [3], ["a"])
    energies = Own().draw(CompactRestorer("shipped/restorer").train(), batch, [wide], 3).prediction.energies[0]
    assert energies[0] < 1e-9 < 1e-6 < energies[1:].min()


def test_own_asks_for_no_clean_photo(batch):
    other = DegradedBatch(batch.clean.flip(-2), batch.degraded, batch.truth, batch.seed, batch.names)
    same = [Own().draw(Gain(), each, [None] * 2, N).prediction.energies for each in (batch, other)]
    assert torch.equal(*same)


def test_cycle_is_zero_where_the_candidate_explains_the_photo(photo):
    depth = depth_of_degraded(photo[None])
    again = Degrader.apply(photo[None], depth, degradation([FOGGY], depth, [0])).image
    batch = DegradedBatch(torch.zeros_like(again), again, [FOGGY], [3], ["a"])
    restorer = Gain()
    restorer.rollout = lambda degraded, given, seeds, group: torch.stack([photo, 0.8 * photo])[None]
    energies = Cycle().draw(restorer, batch, [FOGGY], 2).prediction.energies[0]
    assert energies[0] < energies[1] / 5


@pytest.mark.parametrize("aim", [Clean(), Own()])
def test_what_is_predicted_again_is_what_was_predicted(batch, aim):
    restorer = Gain()
    images, prediction = aim.draw(restorer, batch, [None] * 2, N)
    assert torch.equal(aim.predict(restorer, batch, [None] * 2, images).value, prediction.value)
    with torch.no_grad():
        restorer.weight += 0.1
    assert not torch.equal(aim.predict(restorer, batch, [None] * 2, images).value, prediction.value)


def test_a_restorer_without_velocities_is_no_flow_model(batch):
    with pytest.raises(ValueError, match="Gain is no flow model"):
        OwnFlow().draw(Gain(), batch, [None] * 2, N)
