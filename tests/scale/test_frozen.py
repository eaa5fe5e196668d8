"""A frozen reasoner that is dealt out over two processes answers as one that is whole on each of them."""

from dataclasses import replace

import pytest
import torch
from tiny_stages import tiny_data, tiny_reasoner, tiny_stage, tiny_trainer
from together import PROCESSES, STRATEGIES, Task, together, trained

from rnr.models.reward import Reward
from rnr.stages import RestorerGRPO
from rnr.stages.frozen import Frozen

CPU = torch.device("cpu")


def judged(reasoner, images: torch.Tensor) -> tuple[list, torch.Tensor, torch.Tensor]:
    """Diagnoses, severities and rewards of a group of two."""
    answers = reasoner.diagnose(images)
    group = torch.stack([images, images.flip(-1)], dim=1)
    rewards = Reward()(reasoner, group, images, answers, reasoner.severities(images))
    return answers, rewards.severities, rewards.total


def ask(tied: bool) -> dict[str, object]:
    """Each process its own photos, and another number of them."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    reasoner = tiny_reasoner()
    if not tied:
        head = reasoner.model.lm_head
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    images = torch.rand(2 + rank, 3, 48, 48, generator=torch.Generator().manual_seed(rank))
    expected, all_ = judged(reasoner, images), sum(p.numel() for p in reasoner.parameters())
    frozen = Frozen(reasoner, dealt=True)
    frozen.on(CPU)
    found = {"kept": sum(len(share.part) for share in frozen._layers.shares) / (4 * all_)}
    found["whole"] = sum(p.numel() for p in reasoner.parameters()) / all_
    with pytest.raises(RuntimeError, match="runs within Frozen"):
        judged(reasoner, images)
    with frozen.together(CPU):
        found["together"] = same(judged(reasoner, images), expected)
    with frozen.together(CPU):  # one asks twice, the other not at all
        found["one alone"] = all(same(judged(reasoner, images), expected) for _ in range(2 * rank))
    with torch.inference_mode(), frozen.whole(CPU):
        found["evaluating"] = all(same(judged(reasoner, images), expected) for _ in range(rank + 1))
    with frozen.together(CPU):
        found["again"] = same(judged(reasoner, images), expected)
    torch.distributed.destroy_process_group()
    return found


def same(a, b) -> bool:
    return a[0] == b[0] and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_reasoner_dealt_out_over_two_processes_answers_as_a_whole_one(tied):
    for found in together(ask, tied):
        assert all(found[name] for name in ("together", "one alone", "evaluating", "again"))
        assert found["whole"] == (pytest.approx(25_600 / 278_848) if tied else 0), "more than tied weights is whole"
        assert found["kept"] + found["whole"] / PROCESSES <= 0.51


def test_alone_it_stays_whole():
    reasoner, image = tiny_reasoner(), torch.rand(1, 3, 48, 48)
    expected, frozen = judged(reasoner, image), Frozen(reasoner, dealt=True)
    with frozen.together(CPU):
        assert same(judged(frozen.on(CPU), image), expected)


def train(task: Task, dealt: bool) -> None:
    torch.set_num_threads(1)
    plain = tiny_stage("grpo").to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
    stage = RestorerGRPO(
        plain.restorer, plain.reasoner, plain.loss, group=2, floor=1e-9, schedule=plain.schedule, deal_reasoner=dealt
    )
    trainer = tiny_trainer(
        task.folder, task.steps, devices=PROCESSES, strategy=STRATEGIES[task.strategy](), use_distributed_sampler=False,
        limit_val_batches=1.0, val_check_interval=1,
    )  # fmt: skip
    trainer.fit(stage, tiny_data())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["DDP", "FSDP2"])  # ZeRO-3: test_export.py
def test_a_stage_ends_the_same(strategy, tmp_path):
    task = Task("grpo", tmp_path / "whole", tmp_path, strategy, steps=2)
    together(train, task, False)
    together(train, replace(task, folder=tmp_path / "dealt"), True)
    expected, found = trained(tmp_path / "whole"), trained(tmp_path / "dealt")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
