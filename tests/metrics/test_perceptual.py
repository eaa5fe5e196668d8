"""LPIPS against its formula, written out again. torchvision is stood in for: it lends only the form of the networks."""

import sys
import types
from pathlib import Path

import pytest
import torch
import torchmetrics.functional.image.lpips as theirs
from safetensors.torch import load_file, save_file
from torch import nn

from rnr.metrics.perceptual import MARKS, Lpips
from rnr.metrics.restoration import as_saved

SHIFT, SCALE = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
READ = (1, 4, 7, 9, 11)  # the layers of AlexNet after which features are compared


def alexnet():
    """torchvision's ``alexnet().features``."""
    relu, pool = nn.ReLU(), nn.MaxPool2d(3, 2)
    first, second = nn.Conv2d(3, 64, 11, 4, 2), nn.Conv2d(64, 192, 5, padding=2)
    rest = [nn.Conv2d(192, 384, 3, padding=1), nn.Conv2d(384, 256, 3, padding=1), nn.Conv2d(256, 256, 3, padding=1)]
    return nn.Sequential(first, relu, pool, second, relu, pool, rest[0], relu, rest[1], relu, rest[2], relu, pool)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = types.SimpleNamespace(features=alexnet())
    path = tmp_path / "alexnet.safetensors"
    save_file({f"features.{name}": value for name, value in network.features.state_dict().items()}, path)
    models = types.SimpleNamespace(alexnet=lambda weights: types.SimpleNamespace(features=alexnet()))
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    monkeypatch.setattr(theirs, "_TORCHVISION_AVAILABLE", True)
    return path


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(2, 3, 64, 80, generator=generator)
    return clean + 0.1 * torch.randn(clean.shape, generator=generator), clean


def by_the_formula(restored, clean, path):
    network = alexnet()
    network.load_state_dict({key.removeprefix("features."): value for key, value in load_file(path).items()})
    lines = torch.load(Path(theirs.__file__).parent / "lpips_models" / "alex.pth", "cpu", weights_only=True)
    total = torch.zeros(len(clean))
    values = [(2 * as_saved(x) - 1 - SHIFT.view(3, 1, 1)) / SCALE.view(3, 1, 1) for x in (restored, clean)]
    level = 0
    with torch.no_grad():
        for index, layer in enumerate(network):
            values = [layer(x) for x in values]
            if index in READ:
                unit = [x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-8) for x in values]
                apart = (unit[0] - unit[1]).square() * lines[f"lin{level}.model.1.weight"]
                total += apart.sum(dim=1).mean(dim=(1, 2))
                level += 1
    return total


@pytest.mark.parametrize("named", ["the file", "its folder"])
def test_it_is_the_formula_on_the_users_weights(named, weights, images):
    if named == "its folder":
        weights.rename(weights.with_name("model.safetensors"))
        weights = weights.with_name("model.safetensors")
    lpips = Lpips(str(weights if named == "the file" else weights.parent))
    assert lpips.name == "LPIPS (alex)"
    torch.testing.assert_close(lpips(*images), by_the_formula(*images, weights), rtol=1e-4, atol=1e-6)
    assert lpips(*images).min() > 0
    assert lpips(images[1], images[1]).tolist() == [0, 0]
    torch.testing.assert_close(lpips(images[0][:1], images[1][:1]), lpips(*images)[:1])


def test_weights_that_are_not_there_are_told(tmp_path):
    for name in (str(tmp_path / "nowhere"), "owner/no-such-model"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no weights of LPIPS's network there"):
            Lpips(name)


def test_weights_of_something_else_are_told(tmp_path):
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: holds neither AlexNet"):
        Lpips(str(tmp_path / "other.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken\.safetensors: is no safetensors file"):
        Lpips(str(tmp_path / "broken.safetensors"))


def test_without_torchvision_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(theirs, "_TORCHVISION_AVAILABLE", False)
    key, shape = MARKS["alex"]
    save_file({key: torch.zeros(shape)}, tmp_path / "a.safetensors")
    with pytest.raises(ModuleNotFoundError, match=r"LPIPS needs torchvision: pip install 'rnr\[lpips\]'"):
        Lpips(str(tmp_path / "a.safetensors"))
