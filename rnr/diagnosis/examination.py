"""A diagnosis and how sure it is: the chance that each degradation is there, and an interval for each of its numbers."""

import dataclasses
from dataclasses import dataclass, field

from rnr.diagnosis.types import KINDS, Diagnosis

Interval = tuple[float, float]
CHANCE_DECIMALS = 4  # of what a finding is told: the last bits of a probability depend on what else was in the batch


@dataclass(frozen=True)
class Examination:
    """What a reasoner makes of one photo.

    diagnosis: its numbers are expectations where the reasoner weighs several; what it finds gets the chance that it is
    there, rounded as all that is said. presence: for each of ``KINDS`` that chance, in [0, 1]; the diagnosis says yes from
    1/2 on. intervals: for the quantities of what is there (``{"fog": {"severity": [(48, 63)], "atmospheric_light": [R, G,
    B]}}``), between which values the middle 90 % of the probability lie; those of an angle may reach beyond its period.
    """

    diagnosis: Diagnosis
    presence: dict[str, float]
    intervals: dict[str, dict[str, list[Interval]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.presence) != set(KINDS) or not all(0 <= chance <= 1 for chance in self.presence.values()):
            raise ValueError(f"presence must give a chance in [0, 1] for each of {', '.join(KINDS)}, got {self.presence}")
        chances = {kind: round(chance, CHANCE_DECIMALS) for kind, chance in self.presence.items()}
        sure = {
            kind: dataclasses.replace(self.diagnosis[kind], chance=chance)
            for kind, chance in chances.items()
            if chance > 0 and self.diagnosis[kind] is not None
        }
        object.__setattr__(self, "diagnosis", dataclasses.replace(self.diagnosis, **sure))
