import pytest

from rnr.diagnosis import Diagnosis
from rnr.diagnosis.prompt import EXAMPLE
from rnr.diagnosis.scene import degradation_words, problems, shortened


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ("A tower in fog.", ["fog"]),
        ("Foggy street, hazy hills, a misty lake.", ["Foggy", "hazy", "misty"]),
        ("Cars on a rainy road, streaks of rain in front.", ["rainy", "rain"]),
        ("A dog behind diagonal streaks.", ["diagonal streaks"]),
        ("Raindrops on glass; a blurry face, blurred by motion blur.", ["Raindrops", "blurry", "blurred", "blur"]),
        ("A noisy, grainy sky full of noise and film grain.", ["noisy", "grainy", "noise", "film grain"]),
        ("A low-contrast face with compression artifacts.", ["low-contrast", "artifacts"]),
        ("A low\n contrast face.", ["low contrast"]),
        ("A degraded photo, out of focus.", ["degraded", "out of focus"]),
        ("No haze at all.", ["haze"]),
        ("A man in a raincoat in the RAIN.", ["RAIN"]),
    ],
)
def test_words_of_degradation_are_found(scene, words):
    assert degradation_words(scene) == words
    assert any("degradation" in problem for problem in problems(scene))


@pytest.mark.parametrize(
    "scene",
    [
        "A child in a yellow raincoat, rain boots and an umbrella under a rainbow.",
        "A train in training on a terrain of grain; a grain field, wood grain, a brain, rainforest and a rain barrel.",
        "A hazel bush with mistletoe beside a hazard sign and a car with fog lamps.",
        "A noise barrier; a foghorn; a contrast of red and green, high contrast walls.",
        "Streaked plumage, speckled counter, water with swirling surface streaks, soft folds, faded jeans, snow.",
        "A ceiling under exposed beams; low table, overcast sky.",
        EXAMPLE.scene,
    ],
)
def test_things_whose_names_hold_such_a_word_are_not(scene):
    assert problems(scene) == []


def test_every_rule_has_its_phrase():
    assert problems(" \n") == ["is empty"]
    assert problems("A dog.\n") == []
    assert problems("- A dog\n- A cat") == ["has 2 lines, not one"]
    assert problems("word " * 30) == []
    assert problems("fog " * 31) == ["has 31 words, over the limit of 30", "speaks of degradation (fog)"]


def test_what_is_too_long_is_cut_only_if_that_is_all():
    words = [f"w{i}" for i in range(40)]
    words[29] += ","
    cut = shortened(" ".join(words))
    assert cut.split() == [f"w{i}" for i in range(30)] and problems(cut) == []
    assert Diagnosis(scene=cut).scene == cut
    for other in ("A dog, on grass.", " ".join([*words, "fog"]), " ".join(words) + "\nmore"):
        assert shortened(other) == other
