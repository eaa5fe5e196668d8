"""Small trainings by several processes on one machine's CPU, as torchrun would start them, and by one process alone."""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from safetensors.torch import load_file
from tiny_stages import opinionated, tiny_data, tiny_restorer, tiny_stage, tiny_trainer

from rnr.data import batches
from rnr.data.batches import TrainBatches
from rnr.data.datamodule import DegradationDataModule
from rnr.models.qwen_image_edit import QwenImageEditRestorer
from rnr.models.small_restorer import SmallRestorer
from rnr.stages import RestorerSFT
from rnr.stages.best import BestWeights
from rnr.stages.callbacks import KeepCheckpoint, SaveWeights
from rnr.stages.conditioning import Conditioning
from rnr.stages.optimizer import Schedule
from rnr.stages.sharding import FSDP2, OffloadedZeRO

PROCESSES = 2


class ZeroOnCPU(DeepSpeedStrategy):
    """Lightning's strategy refuses a CPU; DeepSpeed's engine does not mind one."""

    def setup_environment(self) -> None:
        self.accelerator.setup_device(self.root_device)
        self.setup_distributed()

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", self.local_rank)  # the engine wants an index


class OffloadedOnCPU(ZeroOnCPU, OffloadedZeRO):
    pass


def zero(stage: int, kind: type[ZeroOnCPU] = ZeroOnCPU, offload: bool = False) -> Strategy:
    strategy = kind(stage=stage, offload_optimizer=offload, zero_allow_untested_optimizer=True, logging_batch_size_per_gpu=2,
                    reduce_bucket_size=1_000_000, allgather_bucket_size=1_000_000, exclude_frozen_parameters=True,
                    process_group_backend="gloo")  # fmt: skip
    strategy.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # or small weights would stay whole
    return strategy


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "DDP": partial(DDPStrategy, process_group_backend="gloo"),
    "FSDP2": partial(FSDP2, process_group_backend="gloo"),
    "ZeRO-2": partial(zero, 2),
    "ZeRO-3": partial(zero, 3),
    "ZeRO-3 offloaded": partial(zero, 3, OffloadedOnCPU, True),
}


class Losses(Callback):
    def __init__(self) -> None:
        self.of: list[float] = []
        self.steps = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.of.append(outputs["loss"].item())
        engine = trainer.strategy.model if isinstance(trainer.strategy, DeepSpeedStrategy) else trainer
        self.steps = engine.global_steps if engine is not trainer else trainer.global_step


@dataclass(frozen=True)
class Task:
    """What a process is to do. photos: for validation. sizes differ, so that processes have unequal work. hold: stand still
    before the last step, to be killed. best: keep the weights of the second validation, as the best of them. accumulate:
    how many batches of each process make up a step, in epochs of three."""

    stage: str
    folder: Path
    photos: Path
    strategy: str | None = None
    steps: int = 3
    stop_after: int | None = None
    resume: bool = False
    hold: bool = False
    best: bool = False
    accumulate: int = 1


class Hold(Callback):
    """Before the last step, for a minute."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == trainer.max_steps - 1:
            time.sleep(60)


class SecondIsBest(BestWeights):
    def _judge(self, trainer, stage, value):
        assert value > 0
        super()._judge(trainer, stage, {0: 20.0, 1: 21.0}.get(trainer.global_step, 20.5))


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("cut off")


class OneProcess(DegradationDataModule):
    """The batches that two processes take in one step, one after the other."""

    def train_dataloader(self):
        plans = []
        for rank in range(PROCESSES):
            batches.rank_and_world = lambda rank=rank: (rank, PROCESSES)
            plans.append(TrainBatches(len(self.sets["train"]), self.batch_size, self.crops, self.seed, self.visits))
            plans[-1]._plan()
        batches.rank_and_world = lambda: (0, 1)
        loader = super().train_dataloader()
        loader.plan._plans = {0: [batch for step in zip(*(p._plan() for p in plans), strict=True) for batch in step]}
        return loader


def edit_restorer() -> QwenImageEditRestorer:
    small = SmallRestorer(depth=2, width=32, text_width=32)
    return QwenImageEditRestorer(small=small, steps=2, lora_rank=4, gradient_checkpointing=True)


def stage_of(name: str):
    """``grpo edit``: an adapter, on the real classes of Qwen-Image-Edit. DeepSpeed takes no weights in ``channels_last``, so
    nobody gets them."""
    return _stage(name).to(memory_format=torch.contiguous_format)


def _stage(name: str):
    if name == "restorer_sft":  # nothing drawn: each process would draw for itself
        torch.manual_seed(0)
        return RestorerSFT(tiny_restorer(), None, Conditioning(none=0, drop=0, jitter=0), Schedule(1e-3, warmup=1))
    stage = tiny_stage(name.removesuffix(" edit"))
    if name == "grpo edit":
        stage.restorer = edit_restorer()
    if name == "reasoner_sft":  # untied, as Qwen3-VL-8B is
        head = stage.reasoner.model.lm_head
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        stage.reasoner.model.config.tie_word_embeddings = False
        stage.reasoner.model.config.text_config.tie_word_embeddings = False
    return opinionated(stage) if name.startswith("grpo") else stage


def train(task: Task) -> tuple[list[float], dict[str, float]]:
    """The losses of this process, the figures of its last validation, and how many steps were made."""
    torch.set_num_threads(1)
    losses = Losses()
    alone = task.strategy is None
    callbacks = [losses, SecondIsBest() if task.best else SaveWeights(), KeepCheckpoint(minutes=0)]
    if task.stop_after is not None:
        callbacks.append(StopAfter(task.stop_after))
    from rnr.data.datamodule import Sources

    data = tiny_data(sources=Sources(val=[str(task.photos)]), visits=4, eval_batch_size=1)
    if alone:
        data.__class__ = OneProcess
    trainer: Trainer = tiny_trainer(
        task.folder, task.steps, callbacks=callbacks, devices=1 if alone else PROCESSES,
        strategy="auto" if alone else STRATEGIES[task.strategy](),
        accumulate_grad_batches=PROCESSES if alone else task.accumulate,
        use_distributed_sampler=False, gradient_clip_val=0.1,
        limit_val_batches=1.0, num_sanity_val_steps=-1 if task.best else 0,
        **({} if task.accumulate == 1 else {"limit_train_batches": 3}),
        **({"val_check_interval": 1, "check_val_every_n_epoch": None} if task.best else {}),
    )  # fmt: skip
    checkpoint = task.folder / "checkpoints/last.ckpt" if task.resume else None
    try:
        trainer.fit(stage_of(task.stage), data, ckpt_path=checkpoint)
    except RuntimeError as error:
        if str(error) != "cut off":
            raise
    figures = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    return losses.of, figures | {"steps": losses.steps}


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """What a run has left of what it trained: its adapter, if it has one."""
    names = ("pytorch_lora_weights.safetensors", "adapter/adapter_model.safetensors", "model.safetensors")
    return load_file(next(file for name in names if (file := folder / "weights" / name).exists()))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment(rank: int, port: int) -> None:
    """That of torchrun."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES),
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tests",
        "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def together(function: Callable, *arguments, seconds: float = 900) -> list:
    """What ``function(*arguments)`` returns on each of the processes, which know of each other as under torchrun."""
    port = free_port()
    context = multiprocessing.get_context("forkserver")
    results = context.Queue()
    processes = [
        context.Process(target=_one_of_them, args=(rank, port, results, function, arguments))
        for rank in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    answers = {}
    try:
        for _ in processes:
            rank, answer = results.get(timeout=seconds)
            if isinstance(answer, str):
                raise RuntimeError(f"process {rank}: {answer}")
            answers[rank] = answer
    finally:
        for process in processes:
            process.join(5 if len(answers) == PROCESSES else 0)
            process.kill()
    return [answers[rank] for rank in range(PROCESSES)]


def _one_of_them(rank: int, port: int, results, function: Callable, arguments: tuple) -> None:
    environment(rank, port)
    try:
        results.put((rank, function(*arguments)))
    except BaseException:
        results.put((rank, traceback.format_exc()))
    results.close()
    results.join_thread()
    os._exit(0)


def start(function: Callable, task: Task) -> list[multiprocessing.Process]:
    """``function(task)`` on each of the processes, which end as they may. What they say lies beside the run's folder."""
    context, port = multiprocessing.get_context("forkserver"), free_port()
    processes = [context.Process(target=_one_alone, args=(rank, port, task, function)) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    return processes


def _one_alone(rank: int, port: int, task: Task, function: Callable) -> None:
    environment(rank, port)
    for number in (1, 2):
        os.dup2(os.open(task.folder.parent / f"log{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    function(task)


def until(there: Callable[[], bool], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.05)
    assert there()


def ends(processes: list[multiprocessing.Process], seconds: float = 120) -> list[int]:
    """Their exit statuses, below 0 the signal that killed one."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert None not in codes, f"exit statuses {codes} after {seconds} s: a process waits for ever"
    return codes
