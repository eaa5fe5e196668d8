"""The panels of a paper's figure: every photo, its enlarged part, what stands beneath and beside."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from rnr.panels import DPI, LARGEST, Crop, Panel, Severities, Strip, comparison, most_detailed, save

PART = Crop(6, 9, 12, 8)
WORDS = "Fog: transmission 0.50.\nScene: $5 for a cup."


def strip(size=(40, 60), crop=PART, count=3, words=WORDS, name="cup"):
    torch.manual_seed(0)
    panels = [Panel.of(f"system {i}", torch.rand(3, *size), crop, f"{i}.00 dB") for i in range(count)]
    return Strip(
        name, size, crop, panels, Severities((50, 0, 7, math.nan), (40, 3, 0, 0), "bar: said, line: true"), words
    )


def texts(figure):
    return [text.get_text() for text in figure.texts] + [text.get_text() for axes in figure.axes for text in axes.texts]


def photos(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_the_most_detailed_part_is_where_the_texture_is():
    image = torch.full((3, 90, 120), 0.5)
    image[:, 50:70, 80:110] = (torch.arange(30) // 3 % 2).float()
    left, top, width, height = most_detailed(image)
    assert (width, height) == (30, 20)
    assert abs(left - 80) <= 6 and abs(top - 50) <= 6


def test_the_most_detailed_part_is_not_led_by_noise():
    generator = torch.Generator().manual_seed(0)
    image = torch.full((3, 90, 120), 0.5)
    image[:, 50:70, 80:110] = (torch.arange(30) // 6 % 2).float()
    image[:, :, :40] += 0.2 * torch.randn(3, 90, 40, generator=generator)
    assert most_detailed(image).left > 70


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (400, 3), (2000, 1500)], ids=str)
def test_the_most_detailed_part_lies_in_the_photo(size):
    crop = most_detailed(torch.rand(3, *size))
    assert 1 <= crop.width <= 256 and crop.left + crop.width <= size[1] and crop.top + crop.height <= size[0]
    assert crop.of(torch.rand(3, *size)).shape == (3, crop.height, crop.width)


def test_every_panel_shows_its_photo_and_the_same_part_of_it():
    drawn = strip()
    shown = photos(comparison([drawn], ""))
    for panel, photo, inset in zip(drawn.panels, shown[::2], shown[1::2], strict=True):
        np.testing.assert_array_equal(photo, panel.photo.permute(1, 2, 0))
        np.testing.assert_array_equal(inset, photo[9:17, 6:18])


def test_all_that_is_said_is_printed():
    figure = comparison([strip(), strip(name="jug")], "How it was made.")
    said = texts(figure)
    assert [said.count(f"system {i}") for i in range(3)] == [1, 1, 1], "titles stand above the first strip alone"
    assert [said.count(f"{i}.00 dB") for i in range(3)] == [2, 2, 2]
    assert {"cup", "jug", "How it was made."} <= set(said) and "bar: said, line: true" in said
    assert [said.count(numbers) for numbers in ("50 | 40", "– | 3", "7 | –", "? | –")] == [2, 2, 2, 2]
    assert "$5 for a cup." in " ".join(said)


def test_nothing_lies_over_anything_else():
    strips = [strip(words="word " * 120), strip((90, 40), name="tall"), strip((20, 300), Crop(0, 0, 3, 2))]
    figure = comparison(strips, "Foot. " * 90)
    boxes = [axes.get_position() for axes in figure.axes]
    for i, one in enumerate(boxes):
        assert min(one.x0, one.y0) >= 0 and max(one.x1, one.y1) <= 1
        for other in boxes[:i]:
            apart = (one.x1 <= other.x0, other.x1 <= one.x0, one.y1 <= other.y0, other.y1 <= one.y0)
            assert any(apart)


def test_text_stays_on_the_figure():
    figure = comparison([strip(words="word " * 120)], "Foot. " * 90, width=7)
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.texts:
        box = text.get_window_extent()
        assert min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()


@pytest.mark.parametrize("count", [2, 8])
def test_a_width_is_kept(count):
    assert comparison([strip(count=count)], "", width=7.0).get_size_inches()[0] == pytest.approx(7)


def test_a_large_photo_is_shown_smaller_but_its_part_as_it_is():
    image = torch.rand(3, 30, 3 * LARGEST)
    panel = Panel.of("", image, Crop(2000, 10, 9, 6), "")
    assert panel.photo.shape == (3, 10, LARGEST)
    torch.testing.assert_close(panel.photo[:, 0, 0], image[:, :3, :3].mean(dim=(1, 2)))
    assert (panel.inset == image[:, 10:16, 2000:2009]).all()


@pytest.mark.parametrize("suffix", [".png", ".PDF", ".svg", ".jpg"])
def test_a_figure_is_saved_by_its_suffix(suffix, tmp_path):
    figure, path = comparison([strip()], "How it was made."), tmp_path / f"a{suffix}"
    save(figure, path)
    if suffix in (".png", ".jpg"):
        assert Image.open(path).size == tuple(int(side * DPI) for side in figure.get_size_inches())
    else:
        content = path.read_bytes()
        assert content.startswith(b"%PDF" if suffix == ".PDF" else b"<?xml")
        assert b"/FontFile2" in content if suffix == ".PDF" else b"How it was made." in content


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gif: a figure ends in one of \.png"):
        save(comparison([strip()], ""), tmp_path / "a.gif")
