import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from rnr.models.reference import without_adapters


def adapted():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).requires_grad_(False)
    plain = model(torch.ones(1, 4))
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False), model)
    return model, plain


def test_within_the_model_is_its_own_start_and_afterwards_as_it_was():
    model, plain = adapted()
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    learned = model(torch.ones(1, 4))
    assert not torch.equal(learned, plain)
    with pytest.raises(RuntimeError, match="cut off"), without_adapters(model):
        assert torch.equal(model(torch.ones(1, 4)), plain)
        raise RuntimeError("cut off")
    assert torch.equal(model(torch.ones(1, 4)), learned)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trained
    assert any(trained.values()) and not all(trained.values())


def test_a_part_of_an_adapter_that_is_frozen_stays_frozen():
    model, _ = adapted()
    frozen = [parameter.requires_grad_(False) for name, parameter in model.named_parameters() if name.startswith("0.lora")]
    with without_adapters(model):
        pass
    assert frozen and not any(parameter.requires_grad for parameter in frozen)


def test_a_model_without_an_adapter_has_no_reference():
    with pytest.raises(ValueError, match="Linear has no adapter"), without_adapters(nn.Linear(2, 2)):
        pass
