import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnr.degradation import FogPrior, NoisePrior, RainPrior, ShakePrior
from rnr.degradation.severity import scale


@pytest.mark.parametrize(("ratio", "score"), [(0, 1), (1, 100), (0.5, 50.5), (1 / 99, 2), (-0.3, 1), (7, 100)])
def test_the_scale_runs_from_one_to_a_hundred(ratio, score):
    assert scale(torch.tensor(ratio, dtype=torch.float64)).item() == pytest.approx(score, abs=1e-12)


@given(st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(sorted))
def test_more_never_scores_less(pair):
    less, more = scale(torch.tensor(pair, dtype=torch.float64)).tolist()
    assert 1 <= less <= more <= 100


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FogPrior(probability=1.2), r"fog\.probability must lie within \[0, 1\], got 1\.2"),
        (
            lambda: FogPrior(atmospheric_light=(0.7, 1.5)),
            r"fog\.atmospheric_light .* within \[0, 1\], got \(0\.7, 1\.5\)",
        ),
        (lambda: FogPrior(beta=(3.0, 0.8)), r"fog\.beta must be an ordered range within \[0, 20\], got \(3\.0, 0\.8\)"),
        (lambda: FogPrior(beta=(float("nan"), 1.0)), r"fog\.beta .* got \(nan, 1\.0\)"),
        (lambda: ShakePrior(probability=-0.1), r"shake\.probability must lie within \[0, 1\], got -0\.1"),
        (lambda: ShakePrior(steps=(1, 64)), r"shake\.steps .* within \[2, 64\], got \(1, 64\)"),
        (lambda: ShakePrior(steps=(16, 65)), r"shake\.steps .* within \[2, 64\], got \(16, 65\)"),
        (lambda: ShakePrior(stride=(0.0, 1.0)), r"shake\.stride .* within \[0\.01, 4\], got \(0\.0, 1\.0\)"),
        (lambda: ShakePrior(turn=(0, 181)), r"shake\.turn .* within \[0, 180\], got \(0, 181\)"),
        (lambda: RainPrior(probability=float("nan")), r"rain\.probability must lie within \[0, 1\], got nan"),
        (lambda: RainPrior(density=(0.0, 0.1)), r"rain\.density .* within \[1e-06, 1\], got \(0\.0, 0\.1\)"),
        (lambda: RainPrior(slant=(-91, 0)), r"rain\.slant .* within \[-90, 90\], got \(-91, 0\)"),
        (lambda: RainPrior(length=(10, 65)), r"rain\.length .* within \[1, 64\], got \(10, 65\)"),
        (lambda: RainPrior(width=(0.1, 2)), r"rain\.width .* within \[0\.5, 9\], got \(0\.1, 2\)"),
        (lambda: RainPrior(opacity=(0.5, 1.1)), r"rain\.opacity .* within \[0, 1\], got \(0\.5, 1\.1\)"),
        (lambda: NoisePrior(probability=2), r"noise\.probability must lie within \[0, 1\], got 2"),
        (lambda: NoisePrior(k=(-0.1, 0.3)), r"noise\.k .* within \[0, 1\], got \(-0\.1, 0\.3\)"),
        (lambda: NoisePrior(b=(-20, 100)), r"noise\.b .* within \[-99, 99\], got \(-20, 100\)"),
    ],
)
def test_a_prior_that_makes_no_sense_is_refused_with_its_value_and_limit(build, message):
    with pytest.raises(ValueError, match=message):
        build()
