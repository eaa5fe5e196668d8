"""Clean training photos in other tones."""

import pytest
import torch
from kornia.color import rgb_to_grayscale

from rnr.data.datamodule import DegradationDataModule
from rnr.data.tone import Tone

STILL = {"gamma": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "cast": (1, 1)}


@pytest.fixture
def images(photo):
    return photo.expand(60, -1, -1, -1)


def test_a_share_of_the_photos_changes_each_by_its_own_seed(images):
    seeds = list(range(60))
    toned = Tone(share=0.5).apply(images, seeds)
    changed = (toned != images).flatten(1).any(dim=1)
    assert changed.double().mean().item() == pytest.approx(0.5, abs=0.15)
    assert len(toned[changed].flatten(1).unique(dim=0)) == changed.sum()
    assert torch.equal((toned * 255).round() / 255, toned)
    torch.testing.assert_close(Tone(share=0.5).apply(images[:10], seeds[50:]), toned[50:])
    assert Tone().apply(images, seeds) is images


def test_each_part_does_what_it_says(images):
    few, seeds = images[:6], list(range(6))
    brightness = rgb_to_grayscale(few).mean(dim=(1, 2, 3))

    def toned(**parts):
        return Tone(share=1.0, **{**STILL, **parts}).apply(few, seeds)

    torch.testing.assert_close(toned(), few)
    torch.testing.assert_close(toned(gamma=(2, 2)), few.square(), atol=0.002, rtol=0)
    flat = toned(contrast=(0.5, 0.5))
    torch.testing.assert_close(flat.flatten(1).std(dim=1), few.flatten(1).std(dim=1) / 2, atol=0.003, rtol=0)
    torch.testing.assert_close(rgb_to_grayscale(flat).mean(dim=(1, 2, 3)), brightness, atol=0.003, rtol=0)
    pale = toned(saturation=(0.5, 0.5))
    torch.testing.assert_close(pale.std(dim=1), few.std(dim=1) / 2, atol=0.005, rtol=0)
    cast = toned(cast=(0.5, 0.9)) / few.clamp(min=0.2)
    factors = cast.flatten(2).quantile(0.9, dim=2)
    assert factors.min() > 0.45 and factors.max() < 0.95 and (factors.std(dim=1) > 0.01).all()


FLAT = torch.tensor([0.5, 0.5]).expand(3, 4, 2)
STRIPED = torch.tensor([0.4, 0.6]).expand(3, 4, 2)
COLOURED = torch.tensor([0.6, 0.5, 0.4]).view(3, 1, 1).expand(3, 4, 2)


@pytest.mark.parametrize(
    ("part", "image", "factor"),
    [
        ("gamma", FLAT, lambda toned: toned.mean(dim=(1, 2, 3)).log() / torch.tensor(0.5).log()),
        ("contrast", STRIPED, lambda toned: (toned[..., 1] - toned[..., 0]).mean(dim=(1, 2)) / 0.2),
        ("saturation", COLOURED, lambda toned: (toned[:, 0] - toned[:, 2]).mean(dim=(1, 2)) / 0.2),
        ("cast", FLAT, lambda toned: toned[:, 1].mean(dim=(1, 2)) / 0.5),
    ],
)
def test_each_part_is_log_uniform_within_its_bounds_and_a_draw_of_its_own(part, image, factor):
    images = image.expand(400, -1, -1, -1)
    toned = Tone(share=0.5, **{**STILL, part: (0.5, 2)}).apply((images * 255).round() / 255, range(400))
    factors = factor(toned)[(toned - images).abs().amax(dim=(1, 2, 3)) > 0.01]
    assert factors.min() > 0.48 and factors.max() < 2.04
    below = (factors < 1).double().mean().item()
    assert below == pytest.approx(0.5, abs=0.12), "of a uniform draw a third lies below 1; of the share's own draw, all"


def test_training_photos_are_toned_before_they_are_degraded_and_others_never():
    batches = {}
    for share in (0.0, 1.0):
        data = DegradationDataModule(
            tone=Tone(share=share), degrader="clean", batch_size=2, crops=(64,), eval_batch_size=1, limit_eval=1
        )
        data.setup("fit")
        for split, loader in (("training", data.train_dataloader()), ("validating", data.val_dataloader())):
            data.trainer = type("Doing", (), {"testing": False, "predicting": False, "training": split == "training"})
            data.trainer.current_epoch = 0
            batches[share, split] = data.on_after_batch_transfer(next(iter(loader)), 0)
    toned = batches[1.0, "training"]
    assert (batches[0.0, "training"].clean != toned.clean).flatten(1).any(dim=1).all()
    assert torch.equal(toned.degraded, toned.clean), "the preset degrades nothing"
    assert torch.equal(batches[0.0, "validating"].clean, batches[1.0, "validating"].clean)


@pytest.mark.parametrize("arguments", [{"share": 1.2}, {"gamma": (0, 1)}, {"contrast": (2, 1)}, {"cast": (1, 20)}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"tone\."):
        Tone(**arguments)
