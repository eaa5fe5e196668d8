"""The semi-realworld degradation model (Eq. 1): I_d = B_k(t J + (1 - t) A) + S(J) + N, step by step as appendix A.2 goes.

``Degrader.sample`` draws what will be applied; ``apply`` is deterministic and applies just that. Clipping to [0, 1]
follows every step. Recorded is what was applied, never what was asked for.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rnr.degradation import fog, noise, rain, shake
from rnr.degradation.fog import FogParams, FogPrior
from rnr.degradation.noise import NoiseParams, NoisePrior
from rnr.degradation.rain import RainParams, RainPrior
from rnr.degradation.severity import Applied, check_probability
from rnr.degradation.shake import ShakeParams, ShakePrior


@dataclass(frozen=True)
class Degradation:
    """What to apply to a batch of B photos."""

    fog: FogParams
    shake: ShakeParams
    rain: RainParams
    noise: NoiseParams

    @classmethod
    def joined(cls, batches: Sequence["Degradation"]) -> "Degradation":
        """One batch of several, in their order."""
        parts = [[getattr(batch, field.name) for batch in batches] for field in dataclasses.fields(cls)]
        return cls(
            *(
                type(part[0])(*(torch.cat([getattr(p, f.name) for p in part]) for f in dataclasses.fields(part[0])))
                for part in parts
            )
        )

    def rows(self, index: Tensor) -> "Degradation":
        """Those of the photos at ``index`` (N,), in that order."""
        return self._each(lambda values: values[index])

    def to(self, device: torch.device) -> "Degradation":
        """On ``device``, in float64 as drawn, or in float32 where the device has no other (Apple's)."""

        def move(values: Tensor) -> Tensor:
            short = device.type == "mps" and values.is_floating_point()
            return values.to(device, torch.float32 if short else values.dtype)

        return self._each(move)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Degradation":
        return Degradation(
            *(
                dataclasses.replace(part, **{f.name: change(getattr(part, f.name)) for f in dataclasses.fields(part)})
                for part in (self.fog, self.shake, self.rain, self.noise)
            )
        )


@dataclass(frozen=True)
class Degraded:
    """image: (B, 3, H, W) in [0, 1]. steps: what each of fog, shake, rain, noise did, in this order."""

    image: Tensor
    steps: dict[str, Applied]

    @property
    def present(self) -> Tensor:
        """(B, 4) bool."""
        return torch.stack([step.present for step in self.steps.values()], dim=1)

    @property
    def severity(self) -> Tensor:
        """(B, 4): severity in [1, 100] where present, 0 where absent."""
        scores = torch.stack([step.severity.float() for step in self.steps.values()], dim=1)
        return torch.where(self.present, scores, 0.0)


@dataclass(frozen=True)
class Degrader:
    """Eq. 1 with its priors.

    clean: probability that a photo is left as it is. light: probability that a photo gets one or two of the four at
    most and no more, so that a restorer also learns what to leave alone. Both are 0 in the paper's setting. Any other
    photo is degraded: where the draw leaves it none of the four, it gets one, chosen evenly among those that may occur.
    """

    fog: FogPrior = field(default_factory=FogPrior)
    shake: ShakePrior = field(default_factory=ShakePrior)
    rain: RainPrior = field(default_factory=RainPrior)
    noise: NoisePrior = field(default_factory=NoisePrior)
    clean: float = 0.0
    light: float = 0.0

    def __post_init__(self) -> None:
        check_probability("clean", self.clean)
        check_probability("light", self.light)
        check_probability("clean + light", self.clean + self.light)

    def sample(self, generators: Sequence[torch.Generator]) -> Degradation:
        """One row of parameters a photo, each from that photo's own (CPU) generator: independent of the batch."""
        priors = (self.fog, self.shake, self.rain, self.noise)
        counts = [prior.draws for prior in priors]
        u = torch.stack([torch.rand(4 + sum(counts), generator=g, dtype=torch.float64) for g in generators])
        first, *parts = u.split([4, *counts], dim=1)
        drawn_fog = self.fog.sample(parts[0])
        drawn = [
            drawn_fog,
            self.shake.sample(parts[1]),
            self.rain.sample(parts[2], drawn_fog.atmospheric_light),
            self.noise.sample(parts[3]),
        ]
        present = self._present(first, torch.stack([part.present for part in drawn], dim=1))
        return Degradation(*(dataclasses.replace(part, present=present[:, i]) for i, part in enumerate(drawn)))

    def _present(self, u: Tensor, drawn: Tensor) -> Tensor:
        """(B, 4) bool from u (B, 4) and what was drawn of each kind for itself, (B, 4) bool.

        None of the four on a clean photo, two (perhaps the same) at most on a light one, at least one on all others.
        """
        possible = torch.tensor([p.probability > 0 for p in (self.fog, self.shake, self.rain, self.noise)])
        clean, light = u[:, :1] < self.clean, u[:, :1] < self.clean + self.light
        chosen = _nth(possible.expand_as(drawn), u[:, 1:2]) | _nth(possible.expand_as(drawn), u[:, 2:3])
        allowed = possible & ~clean & (~light | chosen)
        present = drawn & allowed
        stand_in = _nth(allowed, u[:, 3:])
        return torch.where(present.any(dim=1, keepdim=True), present, stand_in)

    @staticmethod
    def apply(image: Tensor, depth: Tensor, degradation: Degradation) -> Degraded:
        """image: (B, 3, H, W) in [0, 1]; depth: (B, 1, H, W) relative, in [0, 1]. Deterministic, on image's device."""
        degradation = degradation.to(image.device)
        steps: dict[str, Applied] = {}
        light, beta = degradation.fog.atmospheric_light.to(image), degradation.fog.beta.to(image)
        steps["fog"] = fog.apply(image, depth, dataclasses.replace(degradation.fog, atmospheric_light=light, beta=beta))
        steps["shake"] = shake.apply(steps["fog"].image, degradation.shake)
        steps["rain"] = rain.apply(steps["shake"].image, degradation.rain)
        steps["noise"] = noise.apply(steps["rain"].image, degradation.noise)
        return Degraded(steps["noise"].image, steps)


class Mixture:
    """Several degradation models, one of which each photo draws evenly from its own generator."""

    apply = staticmethod(Degrader.apply)

    def __init__(self, degraders: Sequence[Degrader]) -> None:
        """``ValueError`` for none at all."""
        if not degraders:
            raise ValueError("a mixture needs at least one degradation model")
        self.degraders = list(degraders)

    def sample(self, generators: Sequence[torch.Generator]) -> Degradation:
        """See :meth:`Degrader.sample`."""
        choices = torch.stack([torch.randint(len(self.degraders), (), generator=generator) for generator in generators])
        places = {choice: (choices == choice).nonzero().flatten() for choice in choices.unique().tolist()}
        drawn = [
            self.degraders[choice].sample([generators[i] for i in rows.tolist()]) for choice, rows in places.items()
        ]
        return Degradation.joined(drawn).rows(torch.cat(list(places.values())).argsort())


def _nth(among: Tensor, u: Tensor) -> Tensor:
    """(B, 4) bool: one of the n places where ``among`` (B, 4) is true, the one at floor(u n); u: (B, 1) in [0, 1)."""
    return among & (among.cumsum(dim=1) - 1 == (u * among.sum(dim=1, keepdim=True)).floor())
