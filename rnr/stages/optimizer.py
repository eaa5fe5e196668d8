"""AdamW under a cosine, the same for all three stages."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """AdamW; the rate climbs linearly over ``warmup`` steps and falls along a half cosine to ``final`` of itself.

    rates: learning rates of their own for the parameters whose name contains a key, such as ``{"visual.": 2e-6}`` for a
    vision tower; of several keys that fit, the longest counts.
    """

    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    final: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rate in {"learning_rate": self.learning_rate, **self.rates}.items():
            if not rate > 0:
                raise ValueError(f"{name} must be above 0, got {rate:g}")

    def rate_of(self, name: str) -> float:
        """The learning rate of the parameter of that name."""
        fitting = [key for key in self.rates if key in name]
        return self.rates[max(fitting, key=len)] if fitting else self.learning_rate

    def configure(self, parameters: Iterable[tuple[str, nn.Parameter]], steps: int | float) -> dict[str, Any]:
        """What ``configure_optimizers`` returns, for a run of ``steps`` optimiser steps. Vectors are not decayed."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in parameters:
            if parameter.requires_grad:
                decay = self.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((self.rate_of(name), decay), []).append(parameter)
        settings = [{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]
        optimizer = torch.optim.AdamW(settings, lr=self.learning_rate, betas=self.betas)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def factor(self, step: int, steps: int | float) -> float:
        """The rate at ``step`` as a share of ``learning_rate``. A run without an end keeps its rate after warm-up."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if not math.isfinite(steps):
            return 1.0
        progress = min(1.0, (step - self.warmup) / max(1.0, steps - self.warmup))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
