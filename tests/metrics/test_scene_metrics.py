import math

import pytest

from rnr.metrics.scenes import overlap, scene_figures

REFERENCES = ["White kitchen with wooden cabinets.", "A red bus on a grey road.", "Green hills under a blue sky."]


def test_overlap_is_one_for_the_same_and_zero_for_nothing_in_common():
    assert overlap(REFERENCES[0], REFERENCES[0]) == pytest.approx(1)
    assert overlap("xxxx", "yyyy") == pytest.approx(0, abs=1e-6)
    assert overlap("White kitchen with shelves.", REFERENCES[0]) > 2 * overlap(REFERENCES[1], REFERENCES[0])


def test_what_is_said_stands_beside_another_photos_reference():
    perfect = scene_figures(REFERENCES, REFERENCES)
    assert (perfect.photos, perfect.overlap, perfect.forbidden) == (3, pytest.approx(1), 0)
    another = scene_figures(REFERENCES[1:] + REFERENCES[:1], REFERENCES)
    assert another.overlap == pytest.approx(another.overlap_of_another) == perfect.overlap_of_another < 0.4


def test_several_looks_at_a_photo_are_no_rival_to_each_other():
    thrice = [reference for reference in REFERENCES for _ in range(3)]
    assert scene_figures(thrice, thrice).overlap_of_another == pytest.approx(
        scene_figures(REFERENCES, REFERENCES).overlap_of_another
    )
    assert math.isnan(scene_figures(thrice[:3], thrice[:3]).overlap_of_another)


def test_scenes_that_are_not_there_do_not_count():
    figures = scene_figures(["A foggy road.", None, "Green hills."], [None, REFERENCES[1], REFERENCES[2]])
    assert figures.photos == 1
    assert figures.forbidden == 0.5
    assert all(math.isnan(value) for value in scene_figures([None], [None])[1:])
    with pytest.raises(ValueError, match="1 scenes do not fit 2 references"):
        scene_figures([None], [None, None])
