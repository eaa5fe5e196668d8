"""The one DataModule of all stages: integers from the loader, degradation on the device (``on_after_batch_transfer``)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from rnr.data import pairs, presets
from rnr.data.batch import CleanBatch, DegradedBatch, RealBatch
from rnr.data.batches import (
    LARGEST,
    WHOLE,
    Crop,
    TrainBatches,
    WholeBatches,
    WholePhotoBatches,
    rank_and_world,
    seed_of,
)
from rnr.data.dataset import PhotoDataset, collate
from rnr.data.jpeg import Jpeg
from rnr.data.layouts import photos_in
from rnr.data.loader import TrainLoader, unmoved
from rnr.data.pairs import Pair, PairBatch, PairDataset, PairStream, pairs_in
from rnr.data.photos import Photo, held_out, limited, shipped_photos, told_apart
from rnr.data.rescale import Rescale
from rnr.data.tone import Tone
from rnr.degradation import Degrader, Mixture
from rnr.diagnosis.truth import diagnoses

Photos = list[Photo] | list[Pair]
"""To degrade, or degraded already."""


@dataclass(frozen=True)
class Sources:
    """Clean photos for each split, and real degraded ones for ``predict``: sources, or a single one. None: what scikit-image
    ships.

    A source is a folder of one's own, a published set (``reside:FOLDER``, ``ots:FOLDER``, ``scenes:FOLDER``, see
    :mod:`rnr.data.layouts`) or, but for ``predict``, a built set (:mod:`rnr.data.built`): its photos are degraded
    already, and the DataModule's degraders, tones, sizes, JPEG, seeds and ``eval_draws`` do not apply to them.

    A folder that ``train`` names twice is looked at twice as often.

    Without ``val`` the last ``val_share`` of each training folder is held out: photos taken one after the other often
    show the same room, so neighbours stay together.
    """

    train: list[str] | str | None = None
    val: list[str] | str | None = None
    test: list[str] | str | None = None
    predict: list[str] | str | None = None
    val_share: float = 0.05

    def __post_init__(self) -> None:
        for split in ("train", "val", "test", "predict"):
            if isinstance(only := getattr(self, split), str):
                object.__setattr__(self, split, [only])
        if not 0 <= self.val_share < 1:
            raise ValueError(f"val_share must lie within [0, 1), got {self.val_share:g}")


class DegradationDataModule(LightningDataModule):
    """Clean photos in, degraded ones with their true diagnosis out.

    Training photos are cropped and degraded anew each epoch; validation and test photos stay whole, and each draws
    its degradation from ``eval_seed`` and its own name, whatever the batch size, order or number of devices.

    Args:
        sources: where the photos are.
        batch_size: training photos a step.
        crops: sides of the square training crops, in pixels, or ``whole``; each batch takes one of them. A batch of nearly
            whole photos has photos of one size (:class:`rnr.data.batches.TrainBatches`), so that a folder of many sizes
            makes small batches.
        visits: looks at each training photo an epoch.
        eval_batch_size: whole photos a step in validation, test and prediction.
        limit_eval: at most so many validation or test photos, evenly spread; None for all.
        limit_val: at most so many validation photos; None for ``limit_eval``.
        eval_draws: degradations drawn for each validation or test photo, each by itself.
        degrader: the degradation model of training: its priors, or a preset's name (:mod:`rnr.data.presets`), or several
            names, of which each look at a photo draws one.
        eval_degrader: that of validation and test.
        tone: in what other tones clean training photos come.
        rescale: at what other sizes.
        jpeg: what of the degraded training photos is saved as JPEG, as most photos of the world are.
        eval_jpeg: what of those of validation and test.
        seed: of the training order, crops and degradations.
        eval_seed: of the validation and test degradations.
        num_workers: loader processes.
        cache_gb: memory for decoded training photos, a loader process.
        trim: pixels cut off each side of training and validation photos: NYU's come in a white frame of some 8, which
            RESIDE cuts off as well, by 10. Not of sets that were built before.
    """

    def __init__(
        self,
        sources: Sources = Sources(),
        batch_size: int = 16,
        crops: Sequence[Crop] = (128,),
        visits: int = 1,
        eval_batch_size: int = 4,
        limit_eval: int | None = None,
        limit_val: int | None = None,
        eval_draws: int = 1,
        degrader: Degrader | str | list[str] = "paper",
        eval_degrader: Degrader | str | list[str] = "paper",
        tone: Tone = Tone(),  # noqa: B008  (frozen)
        rescale: Rescale = Rescale(),  # noqa: B008  (frozen)
        jpeg: Jpeg = Jpeg(),  # noqa: B008  (frozen)
        eval_jpeg: Jpeg = Jpeg(),  # noqa: B008  (frozen)
        seed: int = 0,
        eval_seed: int = 0,
        num_workers: int = 0,
        cache_gb: float = 2.0,
        trim: int = 0,
    ) -> None:
        super().__init__()
        if min(batch_size, eval_batch_size, visits, eval_draws) < 1:
            raise ValueError("batch_size, eval_batch_size, visits and eval_draws must be at least 1")
        if trim < 0:
            raise ValueError(f"trim must be at least 0 pixels, got {trim}")
        if min(limit for limit in (limit_eval, limit_val, 1) if limit is not None) < 1:
            raise ValueError("limit_eval and limit_val must be at least 1, or None")
        if not crops or min((crop for crop in crops if crop != WHOLE), default=16) < 16:
            raise ValueError(f"crops must be sides of at least 16 pixels or {WHOLE!r}, got {list(crops)}")
        self.sources = sources
        self.batch_size, self.crops, self.visits = batch_size, tuple(crops), visits
        self.eval_batch_size, self.eval_draws = eval_batch_size, eval_draws
        self.limit_test, self.limit_val = limit_eval, limit_eval if limit_val is None else limit_val
        self.degrader, self.eval_degrader = presets.mixture(degrader), presets.mixture(eval_degrader)
        self.tone, self.rescale, self.jpeg, self.eval_jpeg = tone, rescale, jpeg, eval_jpeg
        self.seed, self.eval_seed = seed, eval_seed
        self.num_workers, self.cache_bytes, self.trim = num_workers, int(cache_gb * 2**30), trim
        self.sets: dict[str, PhotoDataset | PairDataset] = {}

    def setup(self, stage: str) -> None:
        """Finds the photos of the splits that ``stage`` needs. Raises ``PhotoError`` for a folder without any."""
        if stage == "fit" and "train" not in self.sets:
            train, val = self._training_photos()
            self.sets["train"] = _dataset(train, self.seed, self.cache_bytes, self.trim)
            self.sets["val"] = _dataset(limited(val, self.limit_val), self.eval_seed, trim=self.trim)
        if stage == "validate" and "val" not in self.sets:
            val = limited(self._training_photos()[1], self.limit_val)
            self.sets["val"] = _dataset(val, self.eval_seed, trim=self.trim)
        if stage == "test" and "test" not in self.sets:
            self.sets["test"] = _dataset(limited(_all(self.sources.test, "test"), self.limit_test), self.eval_seed)
        if stage == "predict" and "predict" not in self.sets:
            found = photos_in(self.sources.predict, "predict") if self.sources.predict else [shipped_photos("test")]
            self.sets["predict"] = _dataset(told_apart(_joined(found)), self.eval_seed)

    def _training_photos(self) -> tuple[Photos, Photos]:
        if self.sources.val or self.sources.train is None:
            return _all(self.sources.train, "train"), _all(self.sources.val, "val")
        parts = [held_out(photos, self.sources.val_share) for photos in _found(self.sources.train, "train")]
        val = _once(_joined([held for _, held in parts]))
        held = {_file(photo) for photo in val}  # of a folder within another that is named as well, too
        return [photo for kept, _ in parts for photo in kept if _file(photo) not in held], val

    def train_dataloader(self) -> DataLoader:
        photos = self.sets["train"]
        if isinstance(photos, PairDataset) and photos.in_shards:
            return self._stream(photos)
        sizes = photos.sizes() if WHOLE in self.crops else None
        # Pairs are only cut: another size would change what was done to them.
        rescale, largest = (Rescale(), None) if isinstance(photos, PairDataset) else (self.rescale, LARGEST)
        batches = TrainBatches(len(photos), self.batch_size, self.crops, self.seed, self.visits, rescale, sizes, largest)
        return TrainLoader(photos, batches, self._epoch, _collate(photos), self.num_workers)

    def _stream(self, photos: PairDataset) -> DataLoader:
        if WHOLE in self.crops:
            raise ValueError("crops: a set in shards is read as a stream, and has no whole photos of one size; name sides")
        rank, world = rank_and_world()
        workers = min(self.num_workers, len(photos.shards) // world)  # each reads shards of its own
        stream = PairStream(photos.pairs, self.batch_size, self.crops, self.seed, self.visits, rank, world, workers)
        return TrainLoader(None, stream, self._epoch, None, workers)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def val_dataloader(self) -> DataLoader:
        return self._whole("val")

    def test_dataloader(self) -> DataLoader:
        return self._whole("test")

    def predict_dataloader(self) -> DataLoader:
        return self._whole("predict")

    def _whole(self, split: str) -> DataLoader:
        photos = self.sets[split]
        if isinstance(photos, PairDataset):
            batches = WholeBatches(photos.sizes(), self.eval_batch_size)
        else:
            draws = 1 if split == "predict" else self.eval_draws
            batches = WholePhotoBatches(photos.photos, self.eval_batch_size, draws)
        workers = {"num_workers": self.num_workers, "worker_init_fn": unmoved}
        return DataLoader(photos, batch_sampler=batches, collate_fn=_collate(photos), **workers)

    def on_after_batch_transfer(self, batch: CleanBatch | PairBatch, dataloader_idx: int) -> DegradedBatch | RealBatch:
        """Degrades on the device that the batch is on, in float32 whatever the training precision."""
        if isinstance(batch, PairBatch):
            return pairs.degraded_batch(batch)
        trainer = self.trainer
        split = (
            "train" if trainer.training else "test" if trainer.testing else "predict" if trainer.predicting else "val"
        )
        photos = [self.sets[split].photos[i] for i in batch.index.tolist()]
        names = [photo.name for photo in photos]
        clean = batch.photo.float() / 255
        if split == "predict":
            return RealBatch(clean, names)
        training = split == "train"
        degrader, jpeg = (self.degrader, self.jpeg) if training else (self.eval_degrader, self.eval_jpeg)
        if training:
            clean = self.tone.apply(clean, batch.seed.tolist())
        return degrade(clean, batch, degrader, [photo.scene for photo in photos], names, jpeg)


def _found(sources: Sequence[str], split: str) -> list[Photos]:
    """The photos of each source."""
    return pairs_in(sources) or photos_in(sources, split)


def _joined(parts: Sequence[Photos]) -> Photos:
    return [photo for part in parts for photo in part]


def _all(sources: Sequence[str] | None, split: str) -> Photos:
    """For training all that the sources name, else no photo twice."""
    if not sources:
        return shipped_photos(split)
    photos = _joined(_found(sources, split))
    return photos if split == "train" else _once(photos)


def _once(photos: Photos) -> Photos:
    return list({_file(photo): photo for photo in photos}.values())


def _file(photo: Photo | Pair) -> object:
    """What is the same for a photo, whichever source names it."""
    return photo.path.resolve() if isinstance(photo, Photo) else (photo.built.root.resolve(), photo.key)


def _dataset(photos: Photos, seed: int, cache_bytes: int = 0, trim: int = 0) -> PhotoDataset | PairDataset:
    if photos and isinstance(photos[0], Pair):
        return PairDataset(photos, seed, cache_bytes)
    return PhotoDataset(photos, seed, cache_bytes, trim)


def _collate(photos: PhotoDataset | PairDataset) -> Callable:
    return pairs.collate if isinstance(photos, PairDataset) else collate


def degrade(
    clean: torch.Tensor,
    batch: CleanBatch,
    degrader: Degrader | Mixture,
    scenes: list[str | None],
    names: list[str],
    jpeg: Jpeg = Jpeg(),  # noqa: B008  (frozen)
) -> DegradedBatch:
    """Draws each photo's degradation from its seed and applies it. clean: (B, 3, H, W) in [0, 1]."""
    seeds = batch.seed.tolist()
    with torch.no_grad(), torch.autocast(clean.device.type, enabled=False):
        drawn = degrader.sample([torch.Generator().manual_seed(seed) for seed in seeds])
        degraded = degrader.apply(clean, batch.depth.float() / 255, drawn)
        saved = jpeg.apply((degraded.image * 255).round() / 255, seeds)
    return DegradedBatch(clean, saved, diagnoses(degraded, scenes), [seed_of(s, "model") for s in seeds], names)
