import dataclasses

import pytest
import torch

from rnr.degradation import fog
from rnr.diagnosis import Diagnosis, Fog
from rnr.models.haze import DOUBT_BOUND, LIGHT_BOUND, MEAN_BOUND, HazeNetwork, bent
from rnr.models.inverse import Physics, dehaze
from rnr.models.unet import UNetSize

FOG = Diagnosis(fog=Fog(53, (0.9, 0.85, 0.8), 0.5))
FACTS = torch.zeros(2, 1)


def network(head=0.0):
    torch.manual_seed(0)
    model = HazeNetwork(1, UNetSize((8, 8), (1, 1), 8))
    torch.nn.init.normal_(model.network.head.weight, std=head)  # 0 as at the start
    return model


@pytest.fixture
def uneven():
    """(2, 1, 20, 30) > 0."""
    return torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.05


@pytest.mark.parametrize("mean", [0.08, 0.3, 0.5, 0.8, 0.97])
def test_the_map_has_the_stated_mean_and_keeps_the_order_of_depth(uneven, mean):
    t = bent(uneven, torch.tensor([mean, 1.0]).double())
    assert t[0].mean().item() == pytest.approx(mean, abs=1e-4)
    assert ((t >= 0.05) & (t <= 1)).all()
    assert t[1].eq(1).all()
    far_first = uneven[0].flatten().argsort(descending=True)
    assert t[0].flatten()[far_first].diff().ge(0).all()


def test_the_gradient_is_that_of_the_map_with_its_mean_held(uneven):
    depth = uneven[:1, :, :4, :5].clone().requires_grad_()
    mean = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bent, (depth, mean), atol=1e-4, rtol=1e-3)


def test_untrained_it_finds_the_dark_channels_fog(photo, depth):
    light, beta = torch.tensor([[0.9, 0.85, 0.8]]), torch.tensor([1.0])
    t = fog.transmission(depth[None], beta)
    foggy = photo * t + light.view(1, 3, 1, 1) * (1 - t)
    told = Diagnosis(fog=dataclasses.replace(FOG.fog, transmission=t.mean().item()))
    found = network()(foggy, Physics.of([told], foggy), FACTS[:1])
    assert found.light.equal(light)
    restored = dehaze(foggy, found.light, found.t)
    assert (restored - photo).square().mean() < 0.5 * (foggy - photo).square().mean()


@pytest.mark.parametrize("size", [(64, 48), (300, 400), (1, 1), (2, 500)])
def test_without_a_diagnosed_fog_nothing_is_found(size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    physics = Physics.of([None, Diagnosis()], images)
    found = network(head=1.0)(images, physics, FACTS)
    assert found.t.eq(1).all()
    assert max(found.t.shape[-2:]) <= 192
    assert found.light.equal(physics.light)


def test_it_corrects_no_further_than_it_may(photo):
    images = photo.expand(2, -1, -1, -1)
    physics = Physics.of([FOG, FOG], images)
    found = network(head=30.0)(images, physics, FACTS)
    off = (found.light - physics.light).abs()
    assert 0 < off.max() <= LIGHT_BOUND + 1e-6
    assert 0 < found.t.mean(dim=(1, 2, 3)).logit().abs().max() <= MEAN_BOUND + 1e-3


@pytest.mark.parametrize("chance", [1.0, 0.9, 0.5])
def test_it_may_overrule_a_fog_as_far_as_it_is_doubted(photo, chance):
    doubted = dataclasses.replace(FOG.fog, chance=chance)
    physics = Physics.of([Diagnosis(fog=doubted)], photo[None])
    model = network()
    torch.nn.init.constant_(model.network.head.bias[-4:], 30.0)  # all for less fog, as far as that is allowed
    found = model(photo[None], physics, FACTS[:1])
    further = DOUBT_BOUND * (2 - 2 * chance)
    assert found.t.mean().logit().item() == pytest.approx(physics.transmission.logit().item() + further, abs=0.03)
    assert found.light.equal(physics.light)


def test_overruled_towards_dense_fog_it_can_still_learn(photo):
    physics = Physics.of([Diagnosis(fog=dataclasses.replace(FOG.fog, chance=0.5))], photo[None])
    model = network()
    torch.nn.init.constant_(model.network.head.bias[-4:], -30.0)
    t = model(photo[None], physics, FACTS[:1]).t
    assert t.isfinite().all() and 0.05 < t.mean() < 0.07 and t.std() > 0


def test_it_learns_where_the_fog_is(photo, depth):
    light, beta = torch.tensor([[0.9, 0.85, 0.8]]), torch.tensor([1.5])
    t = fog.transmission(depth[None], beta)
    foggy = photo * t + light.view(1, 3, 1, 1) * (1 - t)
    physics = Physics.of([FOG], foggy)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = (model(foggy, physics, FACTS[:1]).t - t).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
