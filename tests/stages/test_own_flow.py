"""The policy gradient of a flow model: energies to its own candidates, by the loss that it was trained with."""

import torch

from rnr import grpo
from rnr.data.batch import DegradedBatch
from rnr.diagnosis import Diagnosis, Fog
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.stages.aims import FlowRestorer, OwnFlow


def test_velocities_are_what_the_loss_compares():
    torch.manual_seed(0)
    restorer = QwenImageEditRestorer(steps=2)
    degraded, clean = torch.rand(2, 1, 3, 32, 40)
    given = [Diagnosis(fog=Fog(50, (0.8,) * 3, 0.5))]
    loss = restorer.loss(degraded, clean, given, torch.Generator().manual_seed(8))
    predicted, target = restorer.velocities(degraded, torch.stack([clean, clean], dim=1), given, [7])
    torch.testing.assert_close(grpo.distances(predicted, target), loss.expand(1, 2))


def test_a_flow_model_learns_from_its_own_candidates():
    torch.manual_seed(0)
    restorer = QwenImageEditRestorer(steps=2, lora_rank=2)
    assert isinstance(restorer, FlowRestorer)
    degraded = torch.rand(2, 3, 32, 32)
    batch = DegradedBatch(degraded, degraded, [Diagnosis()] * 2, [7, 9], ["a", "b"])
    images, prediction = OwnFlow().draw(restorer, batch, [None, Diagnosis()], 3)
    assert images.shape == (2, 3, 3, 32, 32) and prediction.energies.shape == (2, 3)
    assert torch.equal(OwnFlow().predict(restorer, batch, [None, Diagnosis()], images).value, prediction.value)
    grpo.PolicyGradient(0.01)(
        prediction.energies, grpo.advantages(torch.tensor([[1.0, 2, 3], [5, 1, 1]]), 0.1)
    ).backward()
    grads = [p.grad for p in restorer.parameters() if p.requires_grad]
    assert all(g is not None for g in grads) and sum(g.abs().sum() for g in grads) > 0
