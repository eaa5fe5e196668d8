"""AdamW under a cosine, the same for all three stages."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """AdamW; the rate climbs linearly over ``warmup`` steps and falls along a half cosine to ``final`` of itself."""

    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    final: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate:g}")

    def configure(self, parameters: Iterable[nn.Parameter], steps: int | float) -> dict[str, Any]:
        """What ``configure_optimizers`` returns, for a run of ``steps`` optimiser steps. Vectors are not decayed."""
        trained = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas)
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
