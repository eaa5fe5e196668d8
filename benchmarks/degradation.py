"""How fast Eq. 1 is applied, beside other ways to do it, and its share of a training step.

    python -m benchmarks.degradation

The contestants are given the same photos and degrade each of them by all four. See benchmarks/README.md.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or its import asks a server for the newest version
sys.path.append(str(Path(__file__).parent.parent / "tests" / "degradation"))

import albumentations
import cv2
import numpy as np
import reference
import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.timing import CONSOLE, Contestant, Goal, print_race, print_table, race, seconds_on_gpu, single_core
from rnr.data import presets
from rnr.data.batches import Visit
from rnr.data.datamodule import DegradationDataModule, degrade
from rnr.data.dataset import PhotoDataset, collate
from rnr.data.photos import shipped_photos
from rnr.degradation import Degrader, FogPrior, NoisePrior, RainPrior, ShakePrior
from rnr.models.compact import CompactRestorer
from rnr.stages.conditioning import Conditioning
from rnr.stages.optimizer import Schedule

BATCH = 16
GOALS = [Goal("plain batched torch", 3), Goal("NumPy reference", 20)]
SHARE_GOAL = 0.1  # of a training step

ALL_FOUR = Degrader(FogPrior(1), ShakePrior(1), RainPrior(1), NoisePrior(1))


def photos(side: int, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Crops (B, 3, side, side) of photos that ship along and their depth (B, 1, side, side), uint8."""
    dataset = PhotoDataset(shipped_photos("train"), seed=0)
    items = [dataset[Visit(i % len(dataset), epoch=i, crop=side)] for i in range(batch)]
    clean = collate(items)
    return clean.photo, clean.depth


# Each contestant is made of photos (B, 3, H, W) and depth (B, 1, H, W), uint8, and holds them as it likes them best.


def of_rnr(photo: Tensor, depth: Tensor) -> Callable[[], object]:
    image, far = photo.float() / 255, depth.float() / 255
    seeds = count()

    def run() -> object:
        drawn = ALL_FOUR.sample([torch.Generator().manual_seed(next(seeds)) for _ in image])
        return ALL_FOUR.apply(image, far, drawn)

    return run


def of_plain_torch(photo: Tensor, depth: Tensor) -> Callable[[], object]:
    image, far = photo.float() / 255, depth.float() / 255
    return lambda: plain.degrade(image, far)


def of_numpy_reference(photo: Tensor, depth: Tensor) -> Callable[[], object]:
    pairs = list(zip(photo.permute(0, 2, 3, 1).double().numpy() / 255, depth[:, 0].double().numpy() / 255, strict=True))
    rng = np.random.default_rng(0)
    return lambda: [_by_reference(image, far, rng) for image, far in pairs]


def _by_reference(image: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> object:
    drawn = {kind: {key: rng.uniform(*ends) for key, ends in keys.items()} for kind, keys in reference.RANGES.items()}
    light = rng.uniform(*reference.RANGES["fog"]["atmospheric_light"], size=3)
    steps = round(drawn["shake"]["steps"])
    heading = rng.uniform(0, 2 * np.pi) + np.radians(drawn["shake"]["turn"]) * rng.standard_normal(steps).cumsum()
    path = drawn["shake"]["stride"] * np.stack([np.cos(heading), np.sin(heading)], axis=-1).cumsum(axis=0)
    seeds = rng.random(depth.shape) < drawn["rain"].pop("density")
    applied = reference.Parameters(
        reference.Fog(light, drawn["fog"]["beta"]),
        reference.Shake(reference.kernel_of(path, steps)),
        reference.Rain(**drawn["rain"], color=light),
        reference.Noise(**drawn["noise"]),
    )
    return reference.degrade(image, depth, applied, seeds, rng.standard_normal(image.shape))


def of_albumentations(photo: Tensor, depth: Tensor) -> Callable[[], object]:
    """The nearest that albumentations has: fog without depth, straight blurs, noise of one deviation. On uint8."""
    images = [np.ascontiguousarray(image) for image in photo.permute(0, 2, 3, 1).numpy()]
    transform = albumentations.Compose(
        [
            albumentations.RandomFog(fog_coef_range=(0.3, 1.0), p=1),
            albumentations.MotionBlur(blur_limit=(3, 33), p=1),
            albumentations.RandomRain(slant_range=(-20, 20), p=1),
            albumentations.GaussNoise(std_range=(0.02, 0.3), p=1),
        ]
    )
    return lambda: [transform(image=image)["image"] for image in images]


CONTESTANTS = {
    "rnr": of_rnr,
    "plain batched torch": of_plain_torch,
    "NumPy reference": of_numpy_reference,
    "albumentations": of_albumentations,
}


def on_one_core(side: int) -> None:
    batch = photos(side)
    contestants = [Contestant(name, BATCH, make(*batch)) for name, make in CONTESTANTS.items()]
    print_race(f"All four degradations, {side} px, batch {BATCH}, one core", "images", race(contestants), GOALS)


def share_of_a_training_step(steps: int = 9, side: int = 128) -> None:
    """Reading from memory, cropping, collating and degrading, as the DataModule does it, beside what the model takes."""
    restorer = CompactRestorer().train()
    optimizer = Schedule().configure(restorer.named_parameters(), 1000)["optimizer"]
    rows = []
    for name, degrader in (("preset training", presets.load("training")), ("all four", ALL_FOUR)):
        spent = list(_steps(degrader, restorer, optimizer, steps + 1, side))[1:]  # the first also fills the cache
        data, model = (statistics.median(column) for column in zip(*spent, strict=True))
        share = statistics.median(one / (one + other) for one, other in spent)
        reached = "reached" if share < SHARE_GOAL else "not reached"
        figures = f"{data * 1e3:.0f} ms", f"{model * 1e3:.0f} ms", f"{share:.1%}", f"under {SHARE_GOAL:.0%}: {reached}"
        rows.append([name, *figures])
    title = f"A training step of the compact restorer, {side} px, batch {BATCH}, one core"
    print_table(title, ["degradation", "data", "model", "share of data", "goal"], rows)


def _steps(
    degrader: Degrader, restorer: CompactRestorer, optimizer: torch.optim.Optimizer, steps: int, side: int
) -> Iterator[tuple[float, float]]:
    """Seconds of CPU time for the data and for the model, step by step."""
    data = DegradationDataModule(batch_size=BATCH, crops=[side], visits=BATCH * steps, degrader=degrader)
    data.setup("fit")
    generator, batches = torch.Generator().manual_seed(0), iter(data.train_dataloader())
    for _ in range(steps):
        start = time.process_time()
        clean = next(batches)
        names = [data.sets["train"].photos[i].name for i in clean.index.tolist()]
        batch = degrade(clean.photo.float() / 255, clean, data.degrader, [None] * len(names), names)
        half_way = time.process_time()
        given = Conditioning().train(batch, None, generator)
        optimizer.zero_grad()
        restorer.loss(batch.degraded, batch.clean, given, generator).backward()
        optimizer.step()
        yield half_way - start, time.process_time() - half_way


def on_gpu(side: int = 512, batch: int = 64) -> None:
    """Against the least that the work can take: photo and depth read once, the degraded photo written once."""
    photo, depth = (part.cuda() for part in photos(side, batch))
    image = photo.float() / 255
    buffer = torch.empty(2**28, device="cuda")  # 1 GiB
    target = torch.empty_like(buffer)
    bandwidth = 2 * buffer.nbytes / seconds_on_gpu(lambda: target.copy_(buffer))
    least = (2 * image.nbytes + image.nbytes // 3) / bandwidth
    rows = []
    for name in ("rnr", "plain batched torch"):
        seconds = seconds_on_gpu(CONTESTANTS[name](photo, depth))
        rows.append([name, f"{seconds * 1e3:.2f} ms", f"{batch / seconds:.0f}", f"{seconds / least:.1f}"])
    title = f"All four degradations, {side} px, batch {batch}, {torch.cuda.get_device_name()}"
    print_table(title, ["", "time", "images/s", f"times its memory traffic ({bandwidth / 1e9:.0f} GB/s)"], rows)


def main() -> None:
    single_core()
    cv2.setNumThreads(0)
    for side in (128, 256):
        on_one_core(side)
    share_of_a_training_step()
    if torch.cuda.is_available():
        on_gpu()
    else:
        CONSOLE.print("No CUDA device: the comparison with memory traffic at 512 px is left out.")


if __name__ == "__main__":
    main()
