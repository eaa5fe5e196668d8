import dataclasses
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from rnr.data.batch import CleanBatch, DegradedBatch, RealBatch
from rnr.data.batches import Visit, seed_of
from rnr.data.datamodule import DegradationDataModule, Sources, degrade
from rnr.data.photos import PhotoError
from rnr.degradation import Degrader, RainPrior
from rnr.diagnosis import KINDS

ROWS, COLUMNS = np.mgrid[:40, :48]


def write(folder, count, height=40, width=48):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        wave = 120 + 60 * np.sin(ROWS / (3 + i)) + 60 * np.cos(COLUMNS / 4)
        pixels = np.stack([wave, wave[::-1], 255 - wave], axis=-1)[:height, :width]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return str(folder)


@pytest.fixture
def folders(tmp_path):
    validation = write(tmp_path / "val", 5)
    write(tmp_path / "val/small", 3, 20, 33)
    return Sources(train=[write(tmp_path / "train", 6)], val=[validation])


class Recorder(LightningModule):
    """Trains nothing and keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = defaultdict(list)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch, index):
        self.seen["train", self.current_epoch].append(batch)
        return self.weight * 0

    def validation_step(self, batch, index):
        self.seen["val", self.current_epoch].append(batch)

    def test_step(self, batch, index):
        self.seen["test"].append(batch)

    def predict_step(self, batch, index):
        self.seen["predict"].append(batch)
        return batch.names


def trainer(folder, **options):
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, **options,
    )  # fmt: skip


def fit(module, folder, epochs=2):
    recorder = Recorder()
    trainer(folder, max_epochs=epochs).fit(recorder, datamodule=module)
    return recorder.seen


def by_name(batches):
    return {
        name: (batch.clean[i], batch.degraded[i], batch.truth[i], batch.seed[i])
        for batch in batches
        for i, name in enumerate(batch.names)
    }


def test_the_loader_yields_integers_only(folders):
    module = DegradationDataModule(folders, batch_size=4, crops=(32,))
    module.setup("fit")
    for loader in (module.train_dataloader(), module.val_dataloader()):
        for batch in loader:
            assert isinstance(batch, CleanBatch)
            assert not any(tensor.is_floating_point() for tensor in batch)


def test_a_fit_sees_degraded_photos_with_their_truth(folders, tmp_path):
    seen = fit(DegradationDataModule(folders, batch_size=4, crops=(16, 32)), tmp_path, epochs=1)
    assert [len(batch.names) for batch in seen["train", 0]] == [4, 2]
    assert sorted(name for batch in seen["train", 0] for name in batch.names) == [f"{i:02d}.png" for i in range(6)]
    for batch in seen["train", 0] + seen["val", 0]:
        assert isinstance(batch, DegradedBatch)
        for image in (batch.clean, batch.degraded):
            assert image.dtype == torch.float32
            torch.testing.assert_close(image * 255, (image * 255).round(), rtol=0, atol=1e-4)
            assert ((image >= 0) & (image <= 1)).all()
        for clean, degraded, truth in zip(batch.clean, batch.degraded, batch.truth, strict=True):
            assert clean.equal(degraded) == (not any(truth[kind] for kind in KINDS))
    assert {batch.clean.shape[-2:] for batch in seen["train", 0]} <= {(16, 16), (32, 32)}
    assert {batch.clean.shape[-2:] for batch in seen["val", 0]} == {(40, 48), (20, 33)}


def test_photos_may_be_shown_nearly_whole(folders, tmp_path):
    sources = Sources(train=[folders.train[0], write(tmp_path / "upright", 4, 40, 30)], val=folders.val)
    module = DegradationDataModule(sources, batch_size=3, crops=("whole",), trim=2, visits=2)
    batches = fit(module, tmp_path, epochs=1)["train", 0]
    assert sorted(len(batch.names) for batch in batches) == [2, 3, 3, 3, 3, 3, 3]
    shapes = [batch.clean.shape[-2:] for batch in batches]
    assert all(29 <= height <= 36 and (35 <= width <= 44 or 21 <= width <= 26) for height, width in shapes)
    assert {width > 30 for _, width in shapes} == {True, False} and len(set(shapes)) > 3


def test_training_photos_change_each_epoch_and_validation_photos_never(folders, tmp_path):
    seen = fit(DegradationDataModule(folders, batch_size=4, crops=(32,), eval_batch_size=2), tmp_path)
    for first, second in zip(seen["val", 0], seen["val", 1], strict=True):
        assert first.names == second.names
        assert first.degraded.equal(second.degraded)
        assert (first.truth, first.seed) == (second.truth, second.seed)
    before, after = by_name(seen["train", 0]), by_name(seen["train", 1])
    for name in before:
        assert before[name][2] != after[name][2]
        assert not before[name][1].equal(after[name][1])
        assert before[name][3] != after[name][3]


def test_photos_that_would_be_written_to_one_file_are_told_of(tmp_path):
    for name in ("a.png", "b.png", "a.jpg"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    module = DegradationDataModule(Sources(predict=[str(tmp_path)]))
    with pytest.raises(PhotoError, match=r"a\.jpg and .*a\.png would both be written as a\.png"):
        module.setup("predict")
    (tmp_path / "a.jpg").unlink()
    module.setup("predict")
    assert len(module.sets["predict"]) == 2


def test_the_same_seed_trains_on_the_same_photos(folders, tmp_path):
    first, second, other = (
        by_name(fit(DegradationDataModule(folders, crops=(32,), seed=seed), tmp_path, epochs=1)["train", 0])
        for seed in (0, 0, 1)
    )
    for name in first:
        assert first[name][1].equal(second[name][1])
        assert not first[name][1].equal(other[name][1])


def test_validation_photos_do_not_depend_on_the_batch_size(folders, tmp_path):
    one, four = (
        by_name(fit(DegradationDataModule(folders, eval_batch_size=size), tmp_path, epochs=1)["val", 0])
        for size in (1, 4)
    )
    assert len(one) == 8
    assert one.keys() == four.keys()
    for name in one:
        assert one[name][2].severities == pytest.approx(four[name][2].severities, abs=1e-3)
        assert one[name][3] == four[name][3]
        # The streaks' FFT is as large as the batch's longest streak: a value moves by 1e-7 and may tip a rounding.
        levels = ((one[name][1] - four[name][1]) * 255).abs()
        assert levels.max() < 1.01
        assert (levels > 0.5).double().mean() < 1e-3


def test_without_rain_not_a_bit_depends_on_the_batch_size(folders, tmp_path):
    dry = Degrader(rain=RainPrior(0))
    one, four = (
        by_name(fit(DegradationDataModule(folders, eval_batch_size=n, eval_degrader=dry), tmp_path, epochs=1)["val", 0])
        for n in (1, 4)
    )
    for name in one:
        assert one[name][1].equal(four[name][1])


def test_degradations_of_training_and_of_validation_have_their_own_model_and_seed(folders, tmp_path):
    module = DegradationDataModule(folders, crops=(32,), degrader=Degrader(clean=1.0), eval_degrader=Degrader())
    seen = fit(module, tmp_path, epochs=1)
    assert all(batch.clean.equal(batch.degraded) for batch in seen["train", 0])
    assert not any(batch.clean.equal(batch.degraded) for batch in seen["val", 0])
    other = DegradationDataModule(folders, crops=(32,), eval_degrader=Degrader(), eval_seed=1)
    before, after = by_name(seen["val", 0]), by_name(fit(other, tmp_path, epochs=1)["val", 0])
    assert all(before[name][2] != after[name][2] for name in before)


def test_degraded_is_what_the_degrader_makes_of_the_seed(photo, depth):
    clean = photo[None]
    batch = CleanBatch((clean * 255).byte(), (depth[None] * 255).byte(), torch.tensor([0]), torch.tensor([77]))
    degrader = Degrader()
    made = degrade(clean, batch, degrader, ["A face."], ["face.png"])
    expected = degrader.apply(clean, batch.depth / 255, degrader.sample([torch.Generator().manual_seed(77)]))
    assert made.degraded.equal((expected.image * 255).round() / 255)
    assert made.truth[0].severities == pytest.approx(expected.severity[0].tolist())
    assert made.truth[0].scene == "A face."
    assert made.seed == [seed_of(77, "model")]


def test_photos_for_prediction_stay_as_they_are(tmp_path):
    module = DegradationDataModule(Sources(predict=[write(tmp_path / "real", 3)]), eval_batch_size=2)
    recorder = Recorder()
    trainer(tmp_path).predict(recorder, datamodule=module)
    assert all(isinstance(batch, RealBatch) for batch in recorder.seen["predict"])
    assert [batch.names for batch in recorder.seen["predict"]] == [["00.png", "01.png"], ["02.png"]]
    stored = np.asarray(Image.open(tmp_path / "real/00.png"))
    np.testing.assert_array_equal((recorder.seen["predict"][0].image[0] * 255).byte().permute(1, 2, 0), stored)


def test_the_photos_of_scikit_image_are_the_default():
    module = DegradationDataModule(crops=(32,), batch_size=3, limit_eval=1)
    for stage in ("fit", "validate", "test", "predict"):
        module.setup(stage)
    assert {split: len(photos) for split, photos in module.sets.items()} == {
        "train": 3,
        "val": 1,
        "test": 1,
        "predict": 2,
    }
    module.trainer = SimpleNamespace(training=True, testing=False, predicting=False)
    (batch,) = (module.on_after_batch_transfer(batch, 0) for batch in module.train_dataloader())
    assert batch.clean.shape == (3, 3, 32, 32)
    assert all(truth.scene for truth in batch.truth)


def test_a_testing_trainer_gets_the_test_photos(tmp_path):
    module = DegradationDataModule(Sources(test=[write(tmp_path / "a", 2), write(tmp_path / "b", 1)]))
    recorder = Recorder()
    trainer(tmp_path).test(recorder, datamodule=module, verbose=False)
    assert sum(len(batch.names) for batch in recorder.seen["test"]) == 3
    assert all(isinstance(batch, DegradedBatch) for batch in recorder.seen["test"])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_tail_of_each_folder_is_held_out(tmp_path, share):
    sources = Sources(train=[write(tmp_path / "a", 8), write(tmp_path / "b", 4)], val_share=share)
    module = DegradationDataModule(sources, crops=(32,))
    module.setup("fit")
    train, val = ([photo.path for photo in module.sets[split].photos] for split in ("train", "val"))
    expected = {"train": [], "val": []}
    for folder, count in (("a", 8), ("b", 4)):
        for i in range(count):
            split = "val" if i >= count * (1 - share) else "train"
            expected[split].append(tmp_path / folder / f"{i:02d}.png")
    assert {"train": train, "val": val} == expected


def test_validation_alone_finds_the_same_photos_as_a_fit(tmp_path):
    sources = Sources(train=[write(tmp_path / "a", 8)], val_share=0.25)
    fitted, validated = DegradationDataModule(sources), DegradationDataModule(sources)
    fitted.setup("fit")
    validated.setup("validate")
    assert fitted.sets["val"].photos == validated.sets["val"].photos
    assert "train" not in validated.sets


def test_training_and_validation_photos_lose_their_frame_and_test_photos_keep_theirs(tmp_path):
    folder = write(tmp_path / "a", 4)
    module = DegradationDataModule(Sources(train=[folder], test=[folder], val_share=0.25), trim=3, crops=(16,))
    module.setup("fit")
    module.setup("test")
    plain = module.sets["test"][Visit(3, 0, 0)][0]
    assert module.sets["val"][Visit(0, 0, 0)][0].equal(plain[:, 3:-3, 3:-3])
    assert module.sets["train"][Visit(0, 0, 0)][0].equal(module.sets["test"][Visit(0, 0, 0)][0][:, 3:-3, 3:-3])


def test_a_folder_named_twice_is_trained_on_twice_as_often_and_validated_on_once(tmp_path):
    a, b = write(tmp_path / "a", 8), write(tmp_path / "b", 4)
    module = DegradationDataModule(sources=Sources(train=[a, b, b], val_share=0.25))
    module.setup("fit")
    trained, held = ([str(photo.path.parent) for photo in module.sets[split].photos] for split in ("train", "val"))
    assert (trained.count(a), trained.count(b)) == (6, 6)
    assert (held.count(a), held.count(b)) == (2, 1)


def test_what_any_source_holds_out_is_not_trained_on(tmp_path):
    """A folder within another that is named as well holds out other photos."""
    write(tmp_path / "all" / "a", 12)
    within, around = write(tmp_path / "all" / "b", 8), str(tmp_path / "all")
    for train in ([around, within], [within, around, within]):
        module = DegradationDataModule(sources=Sources(train=train, val_share=0.25))
        module.setup("fit")
        trained, held = ([photo.path for photo in module.sets[split].photos] for split in ("train", "val"))
        assert len(set(held)) == len(held) == 5, "the last 5 of 20, the last 2 of 8 among them"
        assert not set(trained) & set(held) and len(set(trained)) == 15


def test_no_photo_is_tested_twice(tmp_path):
    write(tmp_path / "all" / "a", 3)
    module = DegradationDataModule(Sources(test=[str(tmp_path / "all"), write(tmp_path / "all" / "b", 2)]))
    module.setup("test")
    assert len(module.sets["test"].photos) == 5


@pytest.mark.parametrize(("limit", "kept"), [(None, 8), (3, 3), (8, 8), (100, 8)])
def test_a_limit_takes_photos_evenly_from_all(folders, limit, kept):
    module = DegradationDataModule(folders, limit_eval=limit)
    module.setup("validate")
    names = [photo.name for photo in module.sets["val"].photos]
    assert len(set(names)) == len(names) == kept
    assert limit != 3 or names == ["00.png", "02.png", "small/00.png"]


@pytest.mark.parametrize(
    ("limits", "val", "test"),
    [({"limit_val": 3}, 3, 8), ({"limit_eval": 5, "limit_val": 3}, 3, 5), ({"limit_eval": 5}, 5, 5)],
)
def test_validation_may_have_a_limit_of_its_own(folders, limits, val, test):
    module = DegradationDataModule(dataclasses.replace(folders, test=folders.val), **limits)
    for stage in ("fit", "test"):
        module.setup(stage)
    assert (len(module.sets["val"]), len(module.sets["test"])) == (val, test)
    alone = DegradationDataModule(folders, **limits)
    alone.setup("validate")
    assert len(alone.sets["val"]) == val


@pytest.mark.parametrize("limits", [{"limit_eval": 0}, {"limit_val": 0}, {"limit_eval": 3, "limit_val": -1}])
def test_limits_that_leave_nothing_are_refused(limits):
    with pytest.raises(ValueError, match="limit_eval and limit_val must be at least 1"):
        DegradationDataModule(**limits)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_corrupt_photo_among_good_ones_is_named(folders, tmp_path, split):
    broken = tmp_path / split / "03.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(PhotoError) as error:
        fit(DegradationDataModule(folders, crops=(32,)), tmp_path, epochs=1)
    assert str(broken) in str(error.value)


def test_so_it_is_from_a_worker_process(folders, tmp_path):
    broken = tmp_path / "train/03.png"
    broken.write_bytes(b"broken")
    module = DegradationDataModule(folders, crops=(32,), num_workers=1)
    module.setup("fit")
    with pytest.raises(PhotoError) as error:
        list(module.train_dataloader())
    assert str(broken) in str(error.value)


def test_a_folder_without_photos_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError, match="empty: no photos found"):
        DegradationDataModule(Sources(train=[str(tmp_path / "empty")])).setup("fit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "must be at least 1"),
        ({"eval_batch_size": 0}, "must be at least 1"),
        ({"visits": 0}, "must be at least 1"),
        ({"trim": -1}, "trim must be at least 0 pixels, got -1"),
        ({"crops": ()}, r"at least 16 pixels or 'whole', got \[\]"),
        ({"crops": (64, 8)}, r"at least 16 pixels or 'whole', got \[64, 8\]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DegradationDataModule(**changes)


def test_so_is_a_share_that_holds_out_all():
    with pytest.raises(ValueError, match=r"val_share must lie within \[0, 1\), got 1"):
        Sources(val_share=1.0)


def test_sources_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sources().val_share = 0.5


def test_more_draws_are_more_degradations_of_the_same_photos(folders, tmp_path):
    once = fit(DegradationDataModule(folders, crops=(32,), eval_batch_size=2), tmp_path, epochs=1)["val", 0]
    twice = fit(DegradationDataModule(folders, crops=(32,), eval_batch_size=2, eval_draws=2), tmp_path, epochs=1)["val", 0]
    assert len(twice) == 2 * len(once)
    for first, same, other in zip(once, twice[: len(once)], twice[len(once) :], strict=True):
        assert first.names == same.names == other.names
        assert first.degraded.equal(same.degraded) and first.truth == same.truth
        assert other.clean.equal(first.clean)
        assert not other.degraded.equal(first.degraded)
        assert all(a != b for a, b in zip(first.truth, other.truth, strict=True))
