"""The three stages of training, as LightningModules, and the evaluation they share."""

from rnr.stages.reasoner_sft import ReasonerSFT
from rnr.stages.restorer_grpo import RestorerGRPO
from rnr.stages.restorer_sft import RestorerSFT

__all__ = ["ReasonerSFT", "RestorerGRPO", "RestorerSFT"]
