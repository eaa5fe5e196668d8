"""What the three stages share: a schedule, checks of the loss, evaluation, pictures, and weights written at the end."""

import math
from abc import abstractmethod
from pathlib import Path

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from rnr.data.batch import DegradedBatch, RealBatch
from rnr.data.photos import save_photo
from rnr.diagnosis import Diagnosis, ParseFailure, files, render
from rnr.stages.evaluation import Evaluation
from rnr.stages.optimizer import Schedule

PICTURES = 4
"""How many photos of the first validation batch are shown in TensorBoard."""


def trainable(model: nn.Module) -> str:
    """How many parameters are trained, a line a part."""
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        part = ".".join([word for word in name.split(".") if word not in ("model", "reasoner", "restorer")][:2])
        count = counts.setdefault(part, [0, 0])
        count[0] += parameter.numel() * parameter.requires_grad
        count[1] += parameter.numel()
    width = max(map(len, counts), default=0)
    return "\n".join(f"{part:<{width}} {some:>15,} of {all_:>15,} trained" for part, (some, all_) in counts.items())


class Frozen:
    """Holds a model that a stage uses and neither trains nor saves: it is no part of the stage's parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.requires_grad_(False).eval()

    def on(self, device: torch.device) -> nn.Module:
        return self.model.to(device)


class Stage(LightningModule):
    """Base of the three stages. A subclass has a model to train and says how a batch is evaluated."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.evaluation = Evaluation()

    @abstractmethod
    def repair(
        self, images: Tensor, seeds: list[int], truth: list[Diagnosis] | None
    ) -> tuple[list[Diagnosis | ParseFailure] | None, Tensor | None]:
        """The reasoner's answers on images (B, 3, H, W) in [0, 1] and the restored photos, each where the stage has it.
        ``truth`` is what a stage without a reasoner goes by; None for real photos."""

    @abstractmethod
    def save_weights(self, directory: Path) -> None:
        """Writes the trained model where the next stage can load it from."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.schedule.configure(self.named_parameters(), self.trainer.estimated_stepping_batches)

    def on_fit_start(self) -> None:
        """Says what is trained, part by part: a frozen part or an adapter in the wrong place is then seen at once."""
        rank_zero_info(trainable(self))

    def log_loss(self, loss: Tensor, count: int) -> Tensor:
        """Logs and returns ``loss``; raises ``FloatingPointError`` if it is not finite, before any weight is touched."""
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}; weights are those of the step before, "
                f"checkpoints in {self.trainer.default_root_dir} are kept. Lower schedule.learning_rate?"
            )
        self.log("train/loss", loss, prog_bar=True, batch_size=count)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.evaluation = Evaluation()

    def on_test_epoch_start(self) -> None:
        self.evaluation = Evaluation()

    def validation_step(self, batch: DegradedBatch, batch_idx: int) -> None:
        answers, restored = self.repair(batch.degraded, batch.seed, batch.truth)
        self.evaluation.add(batch, answers, restored)
        if batch_idx == 0:
            self.show(batch, answers, restored)

    def test_step(self, batch: DegradedBatch, batch_idx: int) -> None:
        self.evaluation.add(batch, *self.repair(batch.degraded, batch.seed, batch.truth))

    def predict_step(self, batch: RealBatch, batch_idx: int) -> None:
        """Writes ``predictions/<name>.json`` and, restored, ``predictions/<name>.png`` for photos as they are."""
        answers, restored = self.repair(batch.image, [0] * len(batch.names), None)
        for i, name in enumerate(batch.names):
            path = Path(self.trainer.default_root_dir) / "predictions" / Path(name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            if restored is not None:
                save_photo(restored[i], path)
            if answers is not None and isinstance(answers[i], Diagnosis):
                files.save(answers[i], path.with_suffix(".json"))

    def on_validation_epoch_end(self) -> None:
        figures = {}
        if "psnr" in self.evaluation.photos[0]:
            figures |= {f"val/{key}": self.evaluation.mean(key) for key in ("psnr", "ssim", "input_psnr", "input_ssim")}
        if (answers := self.evaluation.figures()) is not None:
            figures["val/parse_rate"] = answers.parse_rate
            for kind in answers.kinds:
                figures |= {
                    f"val/f1_{kind.kind}": kind.f1,
                    f"val/severity_mae_{kind.kind}": kind.severity_mae,
                    f"val/rank_{kind.kind}": kind.severity_rank_correlation,
                }
            figures["val/f1"] = sum(kind.f1 for kind in answers.kinds) / len(answers.kinds)
        # A figure without photos to stand on is not logged: a checkpoint callback would take NaN for the best.
        self.log_dict({name: value for name, value in figures.items() if math.isfinite(value)}, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        directory = Path(self.trainer.default_root_dir)
        self.evaluation.report(directory if self.trainer.is_global_zero else None)
        figures = {"test/input_psnr": self.evaluation.mean("input_psnr")}
        if "psnr" in self.evaluation.photos[0]:
            figures |= {f"test/{key}": self.evaluation.mean(key) for key in ("psnr", "ssim")}
        self.log_dict(figures, logger=False, prog_bar=False)

    def show(
        self, batch: DegradedBatch, answers: list[Diagnosis | ParseFailure] | None, restored: Tensor | None
    ) -> None:
        """Pictures (degraded, restored, clean) and diagnoses of the first photos, to TensorBoard if that is the logger."""
        board = getattr(self.logger, "experiment", None)
        if not hasattr(board, "add_image"):
            return
        columns = [batch.degraded, *([] if restored is None else [restored.clamp(0, 1)]), batch.clean]
        rows = [torch.cat([column[i] for column in columns], dim=2) for i in range(min(PICTURES, len(batch.clean)))]
        board.add_image("val/photos", torch.cat(rows, dim=1).float(), self.global_step)
        for i, answer in enumerate((answers or [])[:PICTURES]):
            said = answer.text if isinstance(answer, ParseFailure) else render(answer)
            text = f"**said**\n\n```\n{said}\n```\n\n**true**\n\n```\n{render(batch.truth[i])}\n```"
            board.add_text(f"val/diagnosis_{i}", text, self.global_step)
