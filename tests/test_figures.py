"""Pictures for people, and the options of ``rnr degrade`` that choose what is drawn and show it."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from rnr import photo_commands
from rnr.data import presets
from rnr.degradation import Degrader, FogPrior, NoisePrior, RainPrior, ShakePrior
from rnr.diagnosis import KINDS, Diagnosis, Fog, Rain, files, render
from rnr.figures import contact_sheet, save_figure

STEPS = ["1_fog.png", "2_shake.png", "3_rain.png", "4_noise.png"]
ROWS = 5


def sheet(degrader, size=(24, 32), seed=0):
    """Of a plain grey photo at one depth: what each degradation does to it is known without computing it."""
    return contact_sheet(torch.full((3, *size), 0.5), torch.full((1, *size), 0.5), degrader, seed)


def columns(figure):
    """Title and pixels of each picture, column by column from top to bottom."""
    cells = [(axes.get_title(), np.asarray(axes.images[0].get_array())) for axes in figure.axes]
    width = len(cells) // ROWS
    assert len(cells) == ROWS * width
    return [cells[i::width] for i in range(width)]


def scores(title):
    return [int(number) for number in re.findall(r"\d+", title)]


def test_each_column_of_a_sheet_has_its_own_degradation_and_the_last_has_all():
    fog, shake, rain, noise, everything = columns(sheet(Degrader(), size=(120, 160)))  # room for even the rarest rain
    names = [column[0][0].split(":")[0] for column in (fog, shake, rain, noise, everything)]
    assert names == ["fog", "motion blur", "rain streaks", "sensor noise", "all"]
    for _, pixels in fog:  # one depth: the same haze everywhere, brighter than the grey
        assert np.ptp(pixels, axis=(0, 1)).max() < 1e-6 and (pixels > 0.51).all()
    for _, pixels in shake:  # nothing to blur
        np.testing.assert_allclose(pixels, 0.5, atol=1e-5)
    for _, pixels in rain:  # bright streaks, and the photo between them
        assert (pixels > 0.499).all() and (pixels > 0.51).any() and np.isclose(pixels, 0.5, atol=1e-6).any()
    for _, pixels in noise:  # to both sides
        assert pixels.min() < 0.5 < pixels.max() and abs(pixels.mean() - 0.5) < 0.1
    for title, _ in everything:
        assert len(scores(title)) == len(KINDS)


def test_a_sheet_leaves_out_what_cannot_be_seen_unless_nothing_can():
    for column in columns(sheet(Degrader(noise=NoisePrior(k=(0, 0), b=(-20, 20))))):  # in half of the draws no noise
        assert all(min(scores(title)) > 0 for title, _ in column)
    nothing = Degrader(FogPrior(0), ShakePrior(0), RainPrior(0), NoisePrior(k=(0, 0), b=(-20, -1)))
    assert [[scores(title) for title, _ in column] for column in columns(sheet(nothing))] == [[[0]] * ROWS]


def test_a_sheet_goes_from_faint_to_worst():
    for column in columns(sheet(Degrader())):
        sums = [sum(scores(title)) for title, _ in column]
        # Titles are rounded, so a sum of four may seem to fall by a little.
        assert all(b > a - 2 for a, b in pairwise(sums)) and sums[-1] > sums[0] + 5


def test_a_sheet_of_one_degradation_is_one_column():
    for name in KINDS:
        (column,) = columns(sheet(presets.load(name)))
        assert all(len(scores(title)) == 1 for title, _ in column)


def test_a_sheet_shows_ranges_and_not_how_often_something_occurs():
    rare, always = (
        Degrader(FogPrior(p), ShakePrior(p), RainPrior(p), NoisePrior(p), clean=clean) for p, clean in ((0.01, 0.9), (1, 0))
    )
    for one, other in zip(columns(sheet(rare)), columns(sheet(always)), strict=True):
        for (title, pixels), (same_title, same_pixels) in zip(one, other, strict=True):
            assert title == same_title and (pixels == same_pixels).all()


def test_a_sheet_is_the_same_for_a_seed_and_another_for_another():
    a, b, c = ([pixels for column in columns(sheet(Degrader(), seed=s)) for _, pixels in column] for s in (1, 1, 2))
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert any((x != y).any() for x, y in zip(a, c, strict=True))


@pytest.mark.parametrize(("size", "shown"), [((300, 400), (256, 256)), ((20, 400), (20, 256)), ((1, 1), (1, 1))], ids=str)
def test_a_sheet_shows_the_middle_of_a_photo_at_its_own_resolution(size, shown):
    image = torch.zeros(3, *size)
    top, left = (max(0, (whole - part) // 2) for whole, part in zip(size, shown, strict=True))
    image[:, top : top + shown[0], left : left + shown[1]] = 1
    still = Degrader(FogPrior(1, (1, 1), (1, 1)), ShakePrior(0), RainPrior(0), NoisePrior(0))  # white stays white
    (column,) = columns(contact_sheet(image, torch.zeros(1, *size), still, seed=0))
    for _, pixels in column:
        assert pixels.shape == (*shown, 3) and (pixels == 1).all()


@pytest.fixture
def saved(monkeypatch, tmp_path):
    """``save_figure``, answered with the figure that it wrote."""
    figures = []
    plain = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), plain(self, *a, **k)))

    def save(panels, diagnosis):
        save_figure(panels, diagnosis, tmp_path / "figure.png")
        Image.open(tmp_path / "figure.png").verify()
        return figures.pop()

    return save


def words(figure):
    return [word for part in figure.subfigs for text in part.texts for word in text.get_text().split()]


def test_a_figure_shows_the_panels_over_the_whole_diagnosis(saved):
    panels = [(name, torch.rand(3, 20, 30)) for name in ("input", "restored", "clean")]
    diagnosis = Diagnosis(Fog(50, (0.8, 0.9, 1.0), 0.5), None, Rain(20, 0.001, 5, 20, 2, 0.5, (1, 1, 1)), scene="A cup.")
    figure = saved(panels, diagnosis)
    for axes, (name, image) in zip(figure.axes, panels, strict=True):
        assert axes.get_title() == name
        np.testing.assert_array_equal(axes.images[0].get_array(), image.permute(1, 2, 0).numpy())
    assert words(figure) == render(diagnosis).split()


@pytest.mark.parametrize("scene", ["It costs $x_{ or $5.", "50 % of \\alpha", "a" * 200])
def test_a_figure_prints_any_scene_as_it_is(saved, scene):
    assert "".join(words(saved([("input", torch.zeros(3, 8, 8))], Diagnosis(scene=scene)))) == "".join(
        render(Diagnosis(scene=scene)).split()
    )


def test_a_figure_without_a_diagnosis_says_so(saved):
    assert words(saved([("input", torch.zeros(3, 8, 8))], None)) == ["no", "diagnosis"]


def test_a_large_photo_is_shown_smaller(saved):
    photo = torch.arange(6000.0).expand(3, 4, 6000) / 6000
    shown = saved([("input", photo)], None).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[0, :, 0], np.arange(0, 1, 5 / 6000), atol=1e-6)


# rnr degrade --preset, --sheet


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "in" / "field.png"
    path.parent.mkdir()
    rows, across = np.mgrid[0:30, 0:40]
    Image.fromarray(np.stack([8 * rows, 6 * across, 4 * (rows + across) % 256], axis=-1).astype(np.uint8)).save(path)
    return path


def degrade(photo, out, *options):
    """The output folder of ``photo``."""
    assert photo_commands.degrade([str(photo), "-o", str(out), *options]) == 0
    return out / photo.stem


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def refused(capsys, photo, out, preset):
    """The one line on stderr."""
    with pytest.raises(SystemExit) as stop:
        photo_commands.degrade([str(photo), "-o", str(out), "--preset", str(preset)])
    assert stop.value.code == 2 and not out.exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_the_preset_of_one_degradation_applies_just_that(kind, photo, tmp_path):
    folder = degrade(photo, tmp_path / "out", "--preset", kind, "--seed", "5")
    applied = files.load(folder / "diagnosis.json")
    assert [applied[k] is not None for k in KINDS] == [k == kind for k in KINDS]
    steps = [pixels(photo), *(pixels(folder / name) for name in STEPS)]
    changed = [bool((a != b).any()) for a, b in pairwise(steps)]
    assert changed == [k == kind for k in KINDS]


def test_without_a_preset_it_is_the_papers(photo, tmp_path):
    folders = degrade(photo, tmp_path / "a"), degrade(photo, tmp_path / "b", "--preset", "paper")
    assert (pixels(folders[0] / "degraded.png") == pixels(folders[1] / "degraded.png")).all()
    assert files.load(folders[0] / "diagnosis.json") == files.load(folders[1] / "diagnosis.json")


def test_a_preset_of_ones_own_is_a_file(photo, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "fog: {probability: 1, atmospheric_light: [0.8, 0.8]}\nshake: {probability: 0}\n"
        "rain: {probability: 0}\nnoise: {probability: 1, k: [0.1, 0.1], b: [3, 3]}\n"
    )
    folder = degrade(photo, tmp_path / "out", "--preset", str(tmp_path / "mine.yaml"))
    applied = files.load(folder / "diagnosis.json")
    assert applied.fog.atmospheric_light == pytest.approx((0.8, 0.8, 0.8))
    assert (applied.noise.k, applied.noise.b) == pytest.approx((0.1, 3))
    assert applied.shake is None and applied.rain is None


def test_a_preset_that_does_not_exist_is_refused_with_those_that_do(photo, tmp_path, capsys):
    line = refused(capsys, photo, tmp_path / "out", "drizzle")
    assert "'drizzle'" in line and all(name in line for name in presets.names())
    assert "nowhere.yaml" in refused(capsys, photo, tmp_path / "out", tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("fogg: {probability: 1}", "fogg"),
        ("fog: {probability: 2}", "fog.probability"),
        ("fog: {beta: [3, 1]}", "fog.beta"),
        ("fog: [", "mine.yaml"),
        ("", None),  # leaves all as it is
    ],
)
def test_a_preset_with_a_mistake_is_named_with_it(content, said, photo, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(content)
    if said is None:
        degrade(photo, tmp_path / "out", "--preset", str(tmp_path / "mine.yaml"))
    else:
        line = refused(capsys, photo, tmp_path / "out", tmp_path / "mine.yaml")
        assert "mine.yaml" in line and said in line


def test_degrade_writes_a_sheet_if_asked_and_else_the_same_files(photo, tmp_path):
    plain, more = degrade(photo, tmp_path / "a"), degrade(photo, tmp_path / "b", "--sheet", "--preset", "paper")
    names = {path.name for path in plain.iterdir()}
    assert {path.name for path in more.iterdir()} == {*names, "sheet.png"} and "sheet.png" not in names
    assert (pixels(plain / "degraded.png") == pixels(more / "degraded.png")).all()
    narrow = degrade(photo, tmp_path / "c", "--sheet", "--preset", "rain") / "sheet.png"
    widths = [Image.open(path).width for path in (narrow, more / "sheet.png")]
    assert 4.5 * widths[0] < widths[1] < 5.5 * widths[0], "one column for rain alone, four and one for all"
