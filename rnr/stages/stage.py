"""What the three stages share: a schedule, checks of the loss, evaluation, pictures, and weights written at the end."""

import math
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from rnr.data.batch import DegradedBatch, RealBatch
from rnr.data.photos import inside, save_photo
from rnr.diagnosis import Diagnosis, ParseFailure, files, render
from rnr.metrics.perceptual import Lpips
from rnr.models.buffers import ExactBuffers
from rnr.pipeline import grey_as
from rnr.stages.checkpoints import CheckpointError
from rnr.stages.cost import Meter
from rnr.stages.evaluation import Evaluation
from rnr.stages.frozen import Frozen
from rnr.stages.optimizer import Schedule
from rnr.stages.sharding import local, whole

PICTURES = 4
"""How many photos of the first validation batch are shown in TensorBoard."""


def trainable(model: nn.Module) -> str:
    """How many parameters are trained, a line a part."""
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        part = ".".join([word for word in name.split(".") if word not in ("model", "reasoner", "restorer")][:2])
        count = counts.setdefault(part, [0, 0])
        size = getattr(parameter, "ds_numel", parameter.numel())  # of ZeRO-3, which keeps a share of it
        count[0] += size * parameter.requires_grad
        count[1] += size
    width = max(map(len, counts), default=0)
    return "\n".join(f"{part:<{width}} {some:>15,} of {all_:>15,} trained" for part, (some, all_) in counts.items())


class Stage(ExactBuffers, LightningModule):
    """Base of the three stages. A subclass has a model to train and says how a batch is evaluated.

    Photos are evaluated by all processes, on weights that are :func:`whole` while it lasts, and counted together.

    judge: a frozen reasoner, if the stage has one.
    """

    judge: Frozen | None = None

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.lpips: Lpips | None = None  # measured too, if given
        self.evaluation = Evaluation()
        self._evaluating = ExitStack()
        self.strict_loading = False  # on_load_checkpoint looks at what has to be there

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out what is frozen, which is as it was loaded: with an adapter nearly all of a model. DeepSpeed does so by
        ``exclude_frozen_parameters``; FSDP2 and a moving average know of no such thing."""
        whole_files = isinstance(self.trainer.strategy, (DDPStrategy, SingleDeviceStrategy))
        if whole_files and "averaging_state" not in checkpoint:
            names = self.named_parameters(remove_duplicate=False)  # tied ones have two
            frozen = {name for name, parameter in names if not parameter.requires_grad}
            kept = {name: tensor for name, tensor in checkpoint["state_dict"].items() if name not in frozen}
            checkpoint["state_dict"] = kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ``CheckpointError`` for that of another model."""
        if (state := checkpoint.get("state_dict")) is None:
            return  # of a sharded model, which its strategy loads
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        if wrong := sorted((trained - state.keys()) | (state.keys() - self.state_dict().keys())):
            raise CheckpointError(f"the checkpoint is that of another model: {len(wrong)} names differ, such as {wrong[0]}")

    def on_fit_start(self) -> None:
        """Says what is trained, part by part: a frozen part or an adapter in the wrong place is then seen at once. Warns of
        weights that are trained in fewer digits than an optimiser's small steps have.

        Switches off the attention whose gradients are not to be trusted.
        """
        rank_zero_info(trainable(self))
        low = {p.dtype for p in self.parameters() if p.requires_grad and torch.finfo(p.dtype).bits < 32}
        if low and not isinstance(self.trainer.strategy, DeepSpeedStrategy):  # which keeps copies in float32
            rank_zero_warn(
                f"weights are trained in {', '.join(map(str, low))}: steps of less than a few thousandths of a weight are "
                f"lost. Train adapters alone (lora_rank), or under DeepSpeed or FSDP2"
            )
        # From torch 2.11 on the first choice for bfloat16 on a Hopper GPU, and its gradients may be NaN (pytorch#196678).
        torch.backends.cuda.enable_cudnn_sdp(False)

    def log_loss(self, loss: Tensor, count: int) -> Tensor:
        """Logs and returns ``loss``; raises ``FloatingPointError`` if it is not finite, before any weight is touched."""
        finite = bool(torch.isfinite(loss))
        self._demand(finite, f"the loss is {'' if finite else loss.item()}")
        self.log("train/loss", loss, prog_bar=True, batch_size=count)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises ``FloatingPointError`` for a gradient that is not finite, though the loss is: clipped by its norm, it would
        make every weight NaN. float16 is not looked at, whose scaler leaves such a step out, nor DeepSpeed, which keeps
        gradients to itself (see :meth:`optimizer_step`)."""
        gradients = [local(p.grad) for p in self.parameters() if p.grad is not None]
        if gradients and self.trainer.scaler is None:
            finite = bool(torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).isfinite().all())
            self._demand(finite, f"a gradient is {'' if finite else 'not finite'}")

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Raises ``FloatingPointError`` where DeepSpeed has left a step out because a gradient was not finite. It does so on
        all processes and says nothing: a run whose every step is left out would go on to its end."""
        if not isinstance(self.trainer.strategy, DeepSpeedStrategy):
            return super().optimizer_step(*arguments, **named)
        engine = self.trainer.strategy.model
        # Lightning counts what is accumulated from each epoch's beginning on, DeepSpeed from the run's.
        engine.set_gradient_accumulation_boundary(not self.trainer.fit_loop._should_accumulate())
        before = engine.skipped_steps
        super().optimizer_step(*arguments, **named)
        if engine.skipped_steps != before and not engine.fp16_enabled():
            self._demand(False, "a gradient is not finite")

    def _demand(self, finite: bool, what: str) -> None:
        """All processes raise if one of them has to, so that none waits for it."""
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            where = "not finite on another process" if finite else ""
            raise FloatingPointError(
                f"{what}{where} at step {self.global_step}; weights are those of the step before, checkpoints in "
                f"{self.trainer.default_root_dir} are kept. Lower schedule.learning_rate?"
            )

    def evaluate(self, batch: DegradedBatch) -> tuple[list[Diagnosis | ParseFailure] | None, Tensor | None]:
        """Repairs a batch, and puts what became of it, and what that cost, into the evaluation."""
        with self._meter.measuring(len(batch.names)) as cost:
            answers, restored = self.repair(batch.degraded, batch.seed, batch.truth)
        self.evaluation.add(batch, answers, restored, cost)
        return answers, restored

    def judging(self) -> AbstractContextManager[None]:
        """In training, the frozen reasoner is asked within; all processes have to come here together."""
        return nullcontext() if self.judge is None else self.judge.together(self.device)

    def _all_weights(self) -> None:
        self._evaluating.enter_context(whole(self))
        if self.judge is not None:
            self._evaluating.enter_context(self.judge.whole(self.device))

    def on_validation_epoch_start(self) -> None:
        self._all_weights()
        self._meter = Meter(self.device)
        self.evaluation = Evaluation(lpips=self.lpips, where=self._meter.where)

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def on_predict_epoch_start(self) -> None:
        self._all_weights()

    def on_predict_epoch_end(self) -> None:
        self._evaluating.close()

    def validation_step(self, batch: DegradedBatch, batch_idx: int) -> None:
        answers, restored = self.evaluate(batch)
        if batch_idx == 0:
            self.show(batch, answers, restored)

    def test_step(self, batch: DegradedBatch, batch_idx: int) -> None:
        self.evaluate(batch)

    def predict_step(self, batch: RealBatch, batch_idx: int) -> None:
        """Writes ``predictions/<name>.json`` and, restored, ``predictions/<name>.png`` for photos as they are."""
        answers, restored = self.repair(batch.image, [0] * len(batch.names), None)
        for i, name in enumerate(batch.names):
            path = inside(Path(self.trainer.default_root_dir) / "predictions", name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            if restored is not None:
                save_photo(grey_as(batch.image[i], restored[i]), path)
            if answers is not None and isinstance(answers[i], Diagnosis):
                files.save(answers[i], path.with_suffix(".json"))

    def on_validation_epoch_end(self) -> None:
        self._evaluating.close()
        self.evaluation = self.evaluation.gathered()
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
        self._evaluating.close()
        self.evaluation = self.evaluation.gathered()
        if self.trainer.is_global_zero:
            self.evaluation.report(Path(self.trainer.default_root_dir))
        figures = {"test/input_psnr": self.evaluation.mean("input_psnr")}
        if "psnr" in self.evaluation.photos[0]:
            figures |= {f"test/{key}": self.evaluation.mean(key) for key in ("psnr", "ssim")}
        self.log_dict(figures, logger=False, prog_bar=False, sync_dist=True)

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
