import itertools
import json
from collections import defaultdict

import pytest
import torch
from lightning import LightningModule, Trainer

from rnr.data.batch import DegradedBatch
from rnr.data.batches import Visit
from rnr.data.datamodule import DegradationDataModule, Sources
from rnr.data.pairs import PairBatch, PairDataset, PairStream, pairs_in
from rnr.data.photos import PhotoError
from rnr.data.sample import Recipe, Record
from rnr.degradation import Degrader


def windows(image, side):
    """All squares of ``image`` (C, H, W), and their mirror images, by (top, left, mirrored)."""
    for top, left in itertools.product(range(image.shape[1] - side + 1), range(image.shape[2] - side + 1)):
        window = image[:, top : top + side, left : left + side]
        yield (top, left, False), window
        yield (top, left, True), window.flip(2)


@pytest.mark.parametrize("form", [0, 1])
def test_crops_of_clean_and_degraded_are_cut_alike(built_forms, form):
    dataset = PairDataset(pairs_in([str(built_forms[form])])[0], seed=1)
    whole = dataset[Visit(3, 0, 0)]
    places = set()
    for epoch in range(4):
        item = dataset[Visit(3, epoch, 24)]
        places |= (found := {place for place, w in windows(whole.clean, 24) if w.equal(item.clean)})
        assert any(w.equal(item.degraded) for place, w in windows(whole.degraded, 24) if place in found)
        assert item.record == whole.record
        assert item.clean.equal(dataset[Visit(3, epoch, 24)].clean)
    assert len(places) > 1


def test_pairs_may_be_shown_nearly_whole_but_not_those_of_a_stream(built_forms):
    folder, shards = (
        DegradationDataModule(Sources(train=[str(form)], val_share=0.3), batch_size=2, crops=("whole",))
        for form in built_forms
    )
    for module in (folder, shards):
        module.setup("fit")
    shapes = [(batch.clean.shape, batch.degraded.shape) for batch in folder.train_dataloader()]
    assert all(clean == degraded and 31 <= clean[2] <= 40 and 44 <= clean[3] <= 56 for clean, degraded in shapes)
    with pytest.raises(ValueError, match="read as a stream"):
        shards.train_dataloader()


def test_built_sets_and_plain_folders_do_not_mix(built_forms, small_photos):
    assert pairs_in([str(small_photos)]) is None
    with pytest.raises(PhotoError, match=r"is a built set and .* is not"):
        pairs_in([str(built_forms[0]), str(small_photos)])
    first, second = pairs_in([str(built_forms[0]), str(built_forms[1])])
    assert (first[0].name, second[0].name) == ("0/0.png", "1/0.png")


def stream(built_forms, rank=0, world=1, visits=1, crops=(16,), batch_size=2, keep=lambda pair: True):
    pairs = [pair for pair in pairs_in([str(built_forms[1])])[0] if keep(pair)]
    return PairStream(pairs, batch_size, crops, 0, visits, rank, world, workers=0)


def seen(batches):
    """(name, look) of every pair, in order."""
    return [
        (name, json.loads(record)["look"])
        for batch in batches
        for name, record in zip(batch.names, batch.records, strict=True)
    ]


def test_an_epoch_of_a_stream_is_every_sample_once_in_another_order_each_time(built_forms):
    everything = {(f"{i}.png", look) for i in range(6) for look in (0, 1)}
    one, same = stream(built_forms), stream(built_forms)
    first = seen(one)
    one.epoch = 1
    second = seen(one)
    assert set(first) == set(second) == everything and len(first) == len(second) == 12
    assert first != second and first == seen(same)


def test_each_process_reads_shards_of_its_own_and_takes_as_many_steps(built_forms):
    batches = [list(stream(built_forms, rank, 2)) for rank in (0, 1)]
    assert len(batches[0]) == len(batches[1]) == 3
    shard_of = {pair.key: pair.shard for pair in pairs_in([str(built_forms[1])])[0]}
    read = [{shard_of[f"00000{name[0]}-00{look}"] for name, look in seen(own)} for own in batches]
    assert not read[0] & read[1]


def test_a_stream_leaves_out_what_is_held_out_and_visits_as_often_as_asked(built_forms):
    names = [name for name, _ in seen(stream(built_forms, visits=2, keep=lambda pair: pair.name < "4"))]
    assert set(names) == {f"{i}.png" for i in range(4)} and len(names) == 16


def test_crops_of_a_stream_have_one_size_a_batch(built_forms):
    batches = list(stream(built_forms, crops=(16, 24)))
    assert {batch.clean.shape[1:] for batch in batches} == {(3, 16, 16), (3, 24, 24)}
    assert all(batch.clean.shape == batch.degraded.shape for batch in batches)


def test_more_readers_than_shards_are_refused(built_forms):
    with pytest.raises(ValueError, match="shards cannot be dealt out to 99 processes of 1 readers"):
        stream(built_forms, 0, 99)


def test_a_broken_sample_is_named(make_set, tmp_path):
    make_set(tmp_path / "set", Recipe("paper", Degrader()))
    (tmp_path / "set/000001-000/degraded.png").write_bytes(b"broken")
    (tmp_path / "set/000002-000/clean.png").unlink()
    dataset = PairDataset(pairs_in([str(tmp_path / "set")])[0], seed=0)
    for index in (1, 2):
        with pytest.raises(PhotoError, match=f"sample 00000{index}-000 is broken"):
            dataset[Visit(index, 0, 16)]


# The DataModule


class Recorder(LightningModule):
    """Trains nothing and keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = defaultdict(list)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch, index):
        self.seen["train"].append(batch)
        return self.weight * 0

    def validation_step(self, batch, index):
        self.seen["val"].append(batch)

    def test_step(self, batch, index):
        self.seen["test"].append(batch)


def trainer(folder, **options):
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("form", [0, 1])
def test_a_built_set_trains_for_as_many_steps_as_asked(built_forms, tmp_path, form, workers):
    sources = Sources(train=[str(built_forms[form])], val_share=0.3)
    module = DegradationDataModule(sources, batch_size=3, crops=(16,), num_workers=workers)
    recorder = Recorder()
    trainer(tmp_path, max_steps=7, max_epochs=-1, check_val_every_n_epoch=1).fit(recorder, datamodule=module)
    assert len(recorder.seen["train"]) == 7
    truths = {
        (pair.name, Record.from_json(pair.built.read(pair.key, ["sample.json"])["sample.json"].decode()).diagnosis)
        for pair in pairs_in([str(built_forms[form])])[0]
    }
    for split, names in (("train", "0123"), ("val", "45")):
        for batch in recorder.seen[split]:
            assert isinstance(batch, DegradedBatch) and set(batch.names) <= {f"{name}.png" for name in names}
            assert set(zip(batch.names, batch.truth, strict=True)) <= truths
    assert {batch.clean.shape[1:] for batch in recorder.seen["train"]} == {(3, 16, 16)}
    assert {batch.clean.shape[1:] for batch in recorder.seen["val"]} == {(3, 40, 56), (3, 39, 56)}
    assert len({seed for batch in recorder.seen["train"][:2] for seed in batch.seed}) == 6


@pytest.mark.parametrize("form", [0, 1])
def test_an_evaluation_of_a_built_set_is_that_of_its_photos_with_the_same_seed(
    built_forms, small_photos, two_looks, tmp_path, form
):
    seen = []
    for source in (built_forms[form], small_photos):
        module = DegradationDataModule(
            Sources(test=[str(source)]), eval_batch_size=1, eval_draws=2, eval_degrader=two_looks.degrader,
            eval_seed=two_looks.seed,
        )  # fmt: skip
        recorder = Recorder()
        trainer(tmp_path).test(recorder, datamodule=module, verbose=False)
        batches = sorted(recorder.seen["test"], key=lambda batch: (batch.names, batch.seed))
        seen.append(batches)
    assert len(seen[0]) == len(seen[1]) == 12
    for built, plain in zip(*seen, strict=True):
        assert (built.names, built.truth, built.seed) == (plain.names, plain.truth, plain.seed)
        assert built.clean.equal(plain.clean) and built.degraded.equal(plain.degraded)


def test_its_loaders_yield_integers_and_text_only(built_forms):
    for form in built_forms:
        module = DegradationDataModule(Sources(train=[str(form)], val_share=0.3), crops=(16,))
        module.setup("fit")
        for loader in (module.train_dataloader(), module.val_dataloader()):
            for batch in loader:
                assert isinstance(batch, PairBatch)
                assert [value.dtype for value in batch[:3]] == [torch.uint8, torch.uint8, torch.int64]
                assert all(isinstance(text, str) for text in batch.names + batch.records)
