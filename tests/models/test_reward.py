import math

import pytest
import torch
from fakes import Untrained

from rnr.degradation import Degrader
from rnr.diagnosis import Diagnosis, Fog
from rnr.diagnosis.truth import degradation
from rnr.models.reward import Reward, depth_of_degraded

FOGGY = Diagnosis(fog=Fog(50, (0.9, 0.9, 0.9), 0.5))


class Brightness(Untrained):
    """Sees as much fog as the photo is bright, and counts how often it is asked."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def severities(self, images):
        self.batches.append(len(images))
        assert torch.equal((images * 255).round() / 255, images), "judged as a file would hold them"
        return torch.stack([100 * images.mean(dim=(1, 2, 3)), *[torch.zeros(len(images))] * 3], dim=1)


def test_the_reward_is_the_fall_in_severity_judged_in_batches(photo):
    reasoner, before = Brightness(), torch.tensor([[60.0, 10, 0, 0], [70, 0, 0, 0]])
    candidates = torch.stack([photo, photo * 0.5, photo - 2, *[photo] * 2]).expand(2, -1, -1, -1, -1)
    found = Reward()(reasoner, candidates, photo.expand(2, -1, -1, -1), [None, None], before)
    assert reasoner.batches == [8, 2]
    assert found.cycle is None and torch.equal(found.total, found.severity)
    brightness = 100 * photo.mean().item()
    assert found.severity[1, :3].tolist() == pytest.approx([70 - brightness, 70 - brightness / 2, 70], abs=0.3)
    assert found.severities.shape == (2, 5, 4)


def test_the_cycle_costs_what_its_weight_says_and_likes_the_clean_photo(photo):
    depth = depth_of_degraded(photo[None])
    image = Degrader.apply(photo[None], depth, degradation([FOGGY], depth, [0])).image
    candidates = torch.stack([photo, image[0]])[None]
    found, double = (
        Reward(weight)(Brightness(), candidates, image, [FOGGY], torch.zeros(1, 4)) for weight in (100, 200)
    )
    assert 0 > found.cycle[0, 0] > found.cycle[0, 1] + 2
    torch.testing.assert_close(double.cycle, 2 * found.cycle)
    torch.testing.assert_close(found.total, found.severity + found.cycle)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_nonsense_weights_are_refused(weight):
    with pytest.raises(ValueError, match="cycle_weight must be a finite number of at least 0, got"):
        Reward(weight)
