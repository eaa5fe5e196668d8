import pytest
import torch

from rnr.data import presets
from rnr.data.datamodule import DegradationDataModule
from rnr.degradation import Degrader, FogPrior


def test_the_defaults_of_the_code_are_the_papers_preset():
    assert presets.load("paper") == Degrader()


def test_every_preset_loads_and_is_one_of_a_kind():
    loaded = [presets.load(name) for name in presets.names()]
    named = {"paper", "paper_outdoor", "overcast", "half", "light", "clean", "training", "fog", "shake", "rain", "noise"}
    assert set(presets.names()) == named
    assert all(loaded.count(each) == 1 for each in loaded)


@pytest.mark.parametrize("kind", ["fog", "shake", "rain", "noise"])
def test_a_preset_of_one_degradation_has_just_that_one(kind):
    degrader = presets.load(kind)
    chances = {name: getattr(degrader, name).probability for name in ("fog", "shake", "rain", "noise")}
    assert chances == {name: float(name == kind) for name in chances}


def test_a_file_of_ones_own_states_what_it_changes(tmp_path):
    (tmp_path / "mine.yaml").write_text("fog: {beta: [1, 2]}\nclean: 0.5\n")
    assert presets.load(str(tmp_path / "mine.yaml")) == Degrader(fog=FogPrior(beta=(1, 2)), clean=0.5)
    assert DegradationDataModule(degrader=str(tmp_path / "mine.yaml"), eval_degrader="light").eval_degrader == presets.load(
        "light"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fogg: {beta: [1, 2]}", "fogg"),
        ("fog: {beta: [3, 2]}", "fog.beta must be an ordered range"),
        ("fog: {beta: [much, more]}", "could not be converted to Float"),
        ("fog: [", "mine.yaml"),
        ("- fog\n- rain\n", "mine.yaml"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml") as raised:
        presets.load(str(tmp_path / "mine.yaml"))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_name_lists_the_presets():
    with pytest.raises(ValueError, match=r"'papers' is neither a file nor a preset; presets are .*paper"):
        presets.load("papers")


def test_of_several_names_each_photo_draws_one():
    module = DegradationDataModule(degrader=["fog", "noise"])
    drawn = module.degrader.sample([torch.Generator().manual_seed(seed) for seed in range(200)])
    foggy, noisy = drawn.fog.present, drawn.noise.present
    assert torch.equal(foggy, ~noisy)
    assert foggy.double().mean().item() == pytest.approx(0.5, abs=0.12)
    for seed in range(12):
        alone = module.degrader.sample([torch.Generator().manual_seed(seed)])
        assert torch.equal(alone.fog.beta, drawn.fog.beta[seed, None])
        assert torch.equal(alone.shake.kernel, drawn.shake.kernel[seed, None])
        assert torch.equal(alone.noise.present, drawn.noise.present[seed, None])


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one degradation model"):
        presets.mixture([])
