import itertools
import json

import pytest

from rnr.data import sample
from rnr.data.batches import Visit
from rnr.data.built import open_set
from rnr.data.datamodule import degrade
from rnr.data.dataset import PhotoDataset, collate
from rnr.data.photos import find_photos
from rnr.data.sample import Recipe
from rnr.degradation import Degrader, FogPrior, NoisePrior, RainPrior, ShakePrior
from rnr.diagnosis import render

PAPER = Degrader()


def test_a_sample_is_what_the_data_module_makes_of_the_same_seed(small_photos):
    found = find_photos(small_photos)
    for look, photo in itertools.product((0, 1), range(3)):
        files = sample.make(found[photo], look, Recipe("paper", PAPER, seed=5))
        batch = collate([PhotoDataset(found, seed=5)[Visit(photo, look, 0)]])
        expected = degrade(batch.photo.float() / 255, batch, PAPER, [found[photo].scene], ["x"])
        assert sample.read_png(files["clean.png"]).equal(batch.photo[0])
        assert (sample.read_png(files["degraded.png"]) / 255).equal(expected.degraded[0])
        assert sample.Record.from_json(files["sample.json"].decode()).diagnosis == expected.truth[0]


def test_a_cropped_sample_is_a_training_photo(small_photos):
    found = find_photos(small_photos)
    files = sample.make(found[0], 1, Recipe("paper", PAPER, seed=5, crop=24))
    batch = collate([PhotoDataset(found, seed=5)[Visit(0, 1, 24)]])
    expected = degrade(batch.photo.float() / 255, batch, PAPER, [None], ["x"])
    assert (sample.read_png(files["degraded.png"]) / 255).equal(expected.degraded[0])


def test_what_is_recorded_makes_the_photo_again_to_the_bit(built_forms):
    built = open_set(built_forms[0])
    for key in built.keys:
        files = built.read(key, sample.FILES)
        steps = sample.again(files).steps
        for kind, name in sample.AFTER.items():
            assert ((steps[kind].image[0] * 255).round() == sample.read_png(files[name])).all()


def test_each_image_is_that_after_its_step(small_photos):
    degrader = Degrader(FogPrior(1), ShakePrior(0), RainPrior(1), NoisePrior(0))
    files = sample.make(find_photos(small_photos)[0], 0, Recipe("x", degrader))
    images = {name: sample.read_png(files[name]) for name in sample.IMAGES}
    assert not images["clean.png"].equal(images["fog.png"])
    assert images["fog.png"].equal(images["shake.png"])
    assert not images["shake.png"].equal(images["rain.png"])
    assert images["rain.png"].equal(images["degraded.png"])


def test_the_json_says_everything_in_words_and_numbers(built_forms):
    content = json.loads(open_set(built_forms[0]).read("000000-001", ["sample.json"])["sample.json"])
    record = sample.Record.from_json(json.dumps(content))
    assert (content["photo"], content["look"], content["size"]) == ("0.png", 1, [40, 56])
    assert content["text"] == render(record.diagnosis) and "Waves." in content["text"]
    for kind, there in content["present"].items():
        assert there == (content["severity"][kind] > 0) == (content["diagnosis"][kind] is not None)
    assert {"seed", "slant", "density"} <= content["parameters"]["rain"].keys()
    assert {"seed", "k", "b"} <= content["parameters"]["noise"].keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "All is well."}, "text is not what the diagnosis says"),
        ({"present": {"fog": None}}, "which the diagnosis contradicts"),
        ({"diagnosis": {}}, "lacks the key"),
        ({"size": None}, "no record of a sample"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(built_forms, change, message):
    content = json.loads(open_set(built_forms[0]).read("000000-000", ["sample.json"])["sample.json"])
    with pytest.raises(ValueError, match=message):
        sample.Record.from_json(json.dumps({**content, **change}))


def test_large_photos_are_scaled_down_and_small_ones_kept(small_photos):
    found = find_photos(small_photos)
    for size, expected in ((28, (20, 28)), (500, (40, 56))):
        files = sample.make(found[0], 0, Recipe("paper", PAPER, size=size))
        assert {sample.read_png(files[name]).shape[1:] for name in (*sample.IMAGES, "depth.png")} == {expected}
