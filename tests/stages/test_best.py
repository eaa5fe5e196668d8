"""The weights that are left are those of the best validation, and the run stops where none gets better."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_stages import tiny_data, tiny_stage, tiny_trainer

from rnr.data.datamodule import Sources
from rnr.data.photos import shipped_photos
from rnr.stages.best import FILE, BestAverage, BestWeights
from rnr.stages.callbacks import KeepCheckpoint
from rnr.stages.evaluation import Evaluation

VALIDATIONS = {"limit_val_batches": 1, "num_sanity_val_steps": -1, "check_val_every_n_epoch": 1}


@pytest.fixture
def data(tmp_path):
    """An epoch of one step, a validation of one small photo."""
    (tmp_path / "val").mkdir()
    Image.open(shipped_photos("val")[0].path).crop((200, 40, 232, 72)).save(tmp_path / "val" / "0.png")
    return {"batch_size": 6, "visits": 2, "crops": (16,), "sources": Sources(val=[str(tmp_path / "val")])}


@pytest.fixture
def says(monkeypatch):
    """Validation says these figures, one after the other; the first is the start's."""
    plain = Evaluation.mean

    def script(*figures: float):
        told = iter(figures)
        monkeypatch.setattr(
            Evaluation, "mean", lambda self, key: next(told) if key == "scripted" else plain(self, key)
        )

    return script


def fitted(folder, data, checkpoint=None, **settings):
    """The trainer, the callback, and the weights after each step (0: at the start)."""
    stage, best = tiny_stage("restorer_sft"), BestAverage(decay=0.5, figure="scripted", **settings)
    stage.judge = None
    keep, averages = KeepCheckpoint(minutes=0), {}
    trainer = tiny_trainer(folder, 6, callbacks=[best, keep], **VALIDATIONS)
    judge = best._judge

    def watched(trainer, stage, value):
        averages[trainer.global_step] = {k: v.clone() for k, v in stage.restorer.state_dict().items()}
        judge(trainer, stage, value)
        if (folder / "checkpoints").exists():
            shutil.copytree(folder, folder.with_name(f"{folder.name}_{trainer.global_step}"))

    best._judge = watched
    trainer.fit(stage, tiny_data(**data), ckpt_path=checkpoint)
    return trainer, best, averages


def is_left(folder, state) -> bool:
    left = load_file(folder / "weights" / "model.safetensors")
    return all(torch.equal(left[name], value) for name, value in state.items())


def test_the_average_of_the_best_validation_is_left_and_patience_ends(tmp_path, data, says):
    says(20.0, 20.1, 20.5, 20.4, 20.3, 21.0, 22.0)
    trainer, best, averages = fitted(tmp_path / "run", data, patience=2)
    assert trainer.global_step == 4 and (best.best, best.best_step) == (20.5, 2)
    assert is_left(tmp_path / "run", averages[2]) and not is_left(tmp_path / "run", averages[3])
    assert not list((tmp_path / "run").glob("weights.*"))


def test_where_no_step_is_an_improvement_the_start_is_left(tmp_path, data, says):
    says(20.0, 19.9, 19.8, 19.9)
    trainer, best, averages = fitted(tmp_path / "run", data, patience=3)
    assert trainer.global_step == 3 and best.best_step == 0
    assert is_left(tmp_path / "run", averages[0])


@pytest.mark.parametrize("fallen", [18.9, float("nan")])
def test_a_run_that_falls_is_stopped_at_once(tmp_path, data, says, fallen):
    says(20.0, 20.1, fallen)
    trainer, _, averages = fitted(tmp_path / "run", data, patience=9, fall=1.0)
    assert trainer.global_step == 2
    assert is_left(tmp_path / "run", averages[1])


def test_a_first_figure_that_is_no_number_is_no_fall(tmp_path, data, says):
    says(float("nan"), float("nan"), 20.1, 20.0, 19.9, 20.0, 19.9)
    trainer, best, averages = fitted(tmp_path / "run", data, patience=9)
    assert trainer.global_step == 6 and (best.best, best.best_step) == (20.1, 2)
    assert is_left(tmp_path / "run", averages[2])


def test_where_validation_never_says_a_number_the_last_weights_are_left(tmp_path, data, says):
    says(*[float("nan")] * 7)
    trainer, _, averages = fitted(tmp_path / "run", data, patience=2)
    assert trainer.global_step == 1 and is_left(tmp_path / "run", averages[1])


def test_a_check_of_the_first_batches_is_no_validation(tmp_path, data, says):
    says(30.0, 20.1, 20.5, 20.4, 20.3, 20.2, 20.1)
    stage, best = tiny_stage("restorer_sft"), BestWeights(figure="scripted", patience=9)
    stage.judge = None
    settings = VALIDATIONS | {"num_sanity_val_steps": 1}
    tiny_trainer(tmp_path / "run", 6, callbacks=[best], **settings).fit(stage, tiny_data(**data))
    assert (best.best, best.best_step) == (20.5, 2)


def test_a_loss_that_is_no_number_leaves_the_best(tmp_path, data, says):
    says(20.0, 20.1, 20.2, 20.3)
    stage, best = tiny_stage("restorer_sft"), BestAverage(figure="scripted")
    stage.judge, plain = None, stage.restorer.loss
    stage.restorer.loss = lambda *given: plain(*given) * (float("nan") if stage.global_step == 2 else 1)
    with pytest.raises(FloatingPointError, match="at step 2"):
        tiny_trainer(tmp_path, 6, callbacks=[best, KeepCheckpoint()], **VALIDATIONS).fit(
            stage, tiny_data(**data)
        )
    assert best.best_step == 2
    assert all(value.isfinite().all() for value in load_file(tmp_path / "weights" / "model.safetensors").values())


def test_a_resumed_run_remembers_the_best_and_ends_the_same(tmp_path, data, says):
    figures = (20.0, 20.6, 20.5, 20.4, 20.3, 20.2, 20.1)
    says(*figures)
    _, undisturbed, averages = fitted(tmp_path / "run", data, patience=9)
    folder = tmp_path / "run_3"  # as it was when step 3 was judged; the checkpoint is the one after step 3
    says(*figures[4:])
    _, again, resumed = fitted(folder, data, folder / "checkpoints" / "last.ckpt", patience=9)
    assert (again.best, again.best_step) == (undisturbed.best, undisturbed.best_step) == (20.6, 1)
    assert all(torch.equal(value, resumed[6][name]) for name, value in averages[6].items())
    assert is_left(folder, averages[1])


def test_killed_after_its_best_validation_a_run_remembers_that(tmp_path, data, says):
    """The last checkpoint is from before that validation, as it always is."""
    figures = (20.0, 20.1, 20.5, 20.4, 20.3, 20.2, 20.1)
    says(*figures)
    *_, averages = fitted(tmp_path / "run", data, patience=9)
    folder = tmp_path / "run_2"
    says(*figures[3:])
    _, again, _ = fitted(folder, data, folder / "checkpoints" / "last.ckpt", patience=9)
    assert (again.best, again.best_step) == (20.5, 2)
    assert is_left(folder, averages[2])


@pytest.mark.parametrize(
    "change", [None, {"step": 4}, {"figure": "ssim"}, {"run": "another"}], ids=["torn", "later", "figure", "run"]
)
def test_what_is_no_validation_of_this_run_does_not_count(tmp_path, data, says, change):
    figures = (20.0, 20.1, 20.5, 20.6, 20.3, 20.2, 20.1)
    says(*figures)
    fitted(tmp_path / "run", data, patience=9)
    folder = tmp_path / "run_2"
    file = folder / "weights" / FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "best": 99, **change}) if change else "[]")
    says(*figures[3:])
    _, again, _ = fitted(folder, data, folder / "checkpoints" / "last.ckpt", patience=9)
    assert (again.best, again.best_step) == (20.6, 3)


def test_in_another_folder_a_run_looks_for_the_best_anew(tmp_path, data, says):
    figures = (20.0, 20.6, 20.5, 20.4, 20.3, 20.2, 20.1)
    says(*figures)
    fitted(tmp_path / "run", data, patience=9)
    says(*figures[4:])
    *_, resumed = fitted(tmp_path / "elsewhere", data, tmp_path / "run_3" / "checkpoints" / "last.ckpt", patience=9)
    assert is_left(tmp_path / "elsewhere", resumed[4])


def test_by_another_figure_a_run_looks_for_the_best_anew(tmp_path, data, says):
    says(20.0, 20.6, 20.5, 20.4, 20.3, 20.2, 20.1)
    fitted(tmp_path / "run", data, patience=9)
    file = tmp_path / "run_3" / "weights" / FILE
    file.write_text(file.read_text().replace("scripted", "psnr"))  # as if the run had gone by another one
    says(0.4, 0.5, 0.6)
    trainer, again, _ = fitted(tmp_path / "run_3", data, tmp_path / "run_3" / "checkpoints" / "last.ckpt", patience=9)
    assert (again.best, again.best_step, trainer.global_step) == (0.6, 6, 6)


def test_a_run_that_is_through_leaves_what_it_left(tmp_path, data, says):
    says(20.0, 20.6, 20.5, 20.4, 20.3, 20.2, 20.1)
    *_, averages = fitted(tmp_path / "run", data, patience=9)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    _, best, _ = fitted(tmp_path / "again", data, tmp_path / "again" / "checkpoints" / "last.ckpt", patience=9)
    assert best.best_step == 1 and is_left(tmp_path / "again", averages[1])


@pytest.mark.parametrize("cut_off", [False, True])
def test_without_validation_the_last_average_is_left(tmp_path, data, cut_off):
    """Also by a run that was cut off before it had written it."""
    for checkpoint in [None, tmp_path / "checkpoints" / "last.ckpt"][: 1 + cut_off]:
        shutil.rmtree(tmp_path / "weights", ignore_errors=True)
        best, stage = BestAverage(decay=0.5), tiny_stage("restorer_sft")
        trainer = tiny_trainer(tmp_path, 2, callbacks=[best, KeepCheckpoint(minutes=0)])
        trainer.fit(stage, tiny_data(**data), ckpt_path=checkpoint, weights_only=True)
    assert is_left(tmp_path, stage.restorer.state_dict())


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="patience must be at least 1 and fall above 0, got 0"):
        BestAverage(patience=0)


def test_without_an_average_the_weights_themselves_are_judged(tmp_path, data, says):
    says(20.0, 20.1, 20.5, 20.4, 20.3)
    stage, best = tiny_stage("restorer_sft"), BestWeights(figure="scripted", patience=2)
    stage.judge, judge, seen = None, best._judge, {}

    def watched(trainer, stage, value):
        seen[trainer.global_step] = {k: v.clone() for k, v in stage.restorer.state_dict().items()}
        judge(trainer, stage, value)

    best._judge = watched
    trainer = tiny_trainer(tmp_path, 6, callbacks=[best, KeepCheckpoint(minutes=0)], **VALIDATIONS)
    trainer.fit(stage, tiny_data(**data))
    assert trainer.global_step == 4 and (best.best, best.best_step) == (20.5, 2)
    assert is_left(tmp_path, seen[2]) and not is_left(tmp_path, seen[3])
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    known = {"best": 20.5, "best_step": 2, "waited": 1, "run": best.run}
    assert known in state.values(), "as it was before the last validation"
