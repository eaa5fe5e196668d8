"""The degradation model of Eq. 1 and appendix A.2, batched and on any device. Needs torch and kornia only."""

from rnr.degradation.degrader import Degradation, Degraded, Degrader, Mixture
from rnr.degradation.fog import FogParams, FogPrior
from rnr.degradation.noise import NoiseParams, NoisePrior
from rnr.degradation.rain import RainParams, RainPrior
from rnr.degradation.shake import ShakeParams, ShakePrior

__all__ = [
    "Degradation",
    "Degraded",
    "Degrader",
    "FogParams",
    "FogPrior",
    "Mixture",
    "NoiseParams",
    "NoisePrior",
    "RainParams",
    "RainPrior",
    "ShakeParams",
    "ShakePrior",
]
