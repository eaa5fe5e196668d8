"""Figures 4 to 8: photos as they went in, as each system leaves them, and as they should be.

A photo is measured as in ``rnr test``. A real one is restored as in ``rnr predict``, and the reasoner says how much is left.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import skimage.data
from matplotlib.figure import Figure
from torch import Tensor

from rnr.command_line import Failures, progress
from rnr.data.photos import Photo, photo_at, shipped_photos
from rnr.diagnosis import KINDS, Diagnosis, ParseFailure, render
from rnr.diagnosis.text import NAMES
from rnr.figure_cases import DEVICE, RULES, Case, Draws, Rule, seen, stated
from rnr.figure_rows import System, of_table_2, of_table_3
from rnr.models.interfaces import Reasoner
from rnr.models.load import load_reasoner
from rnr.panels import Panel, Severities, Strip, comparison
from rnr.stages.evaluation import Evaluation, Rows, markdown
from rnr.stages.stage import Stage

CONFIGS, RUNS = Path("lightning_configs"), Path("runs/ablations")
INPUT, CLEAN = "input", "clean"


@dataclass(frozen=True)
class PaperFigure:
    """What a figure shows.

    systems: its columns between the input and the clean photo. The last one's diagnosis is shown, and ``rule`` goes by it.
    rule, count: which of ``draws``, and how many. width: in inches, None for as much as it needs. reasoner: measures real
    photos. remark: on the systems. left_out: systems that are not here, and why.

    ``ValueError`` for columns of the same name, and for a rule that needs clean photos where there are none.
    """

    title: str
    draws: Draws
    systems: Sequence[System]
    rule: Rule = RULES["spread"]
    count: int = 3
    width: float | None = None
    reasoner: str = "shipped/reasoner"
    remark: str = ""
    left_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.rule.needs_clean and self.draws.preset is None:
            raise ValueError("PSNR is not known of photos without a clean one: pick them by spread or severity")
        labels = [INPUT, *(system.label for system in self.systems), CLEAN]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"two columns are called {twice[0]!r}: name one of them ROW=LABEL")

    def draw(self) -> "Drawn":
        """Restores and draws. What cannot be used, of photos and of systems but the last, costs a line on stderr, and the
        rest go on. ``ValueError`` if no photo is left; what the last system fails of is raised."""
        failures, last = Failures(), self.systems[-1]
        stage, reasoner = last.load().to(DEVICE), load_reasoner(self.reasoner).eval().to(DEVICE)
        cases = self.draws.picked(self.rule, self.count, stage, reasoner, failures)
        if not cases:
            raise ValueError("none of the photos could be used")
        shown = {INPUT: [_shown(INPUT, case, case.image, None, reasoner) for case in cases]}
        with progress("systems") as bar:
            for system in bar.track(self.systems[:-1]):
                try:
                    shown[system.label] = _column(system.label, system.load().to(DEVICE), cases, reasoner)
                except (OSError, RuntimeError, ValueError) as error:
                    failures.tell(f"{system.label}: {error}")
        shown[last.label] = _column(last.label, stage, cases, reasoner)
        strips = [_strip(case, [column[i] for column in shown.values()]) for i, case in enumerate(cases)]
        text = "\n".join([f"# {self.title}\n\n{self.caption}\n", *(strip.text for strip in strips)])
        return Drawn(comparison([strip.drawn for strip in strips], self.caption, self.width), text, failures.count)

    @property
    def caption(self) -> str:
        """How it was made, in a few sentences."""
        draws, real = self.draws, self.draws.preset is None
        count = f"{len(draws.photos)} photo{'s' * (len(draws.photos) > 1)}"
        how = "as they are" if real else f"in {draws.each} draws each, by the preset {draws.preset}, seed {draws.seed}"
        parts = [f"Shown: {self.rule.says.format(last=self.systems[-1].label)}, of {count} {how}."]
        if not draws.crop:
            parts.append(f"Enlarged: the part with the most detail in the {'input' if real else 'clean photo'}.")
        if real:
            parts.append("Severities are those that the reasoner sees; beneath a photo, their sum.")
        return " ".join([*parts, *([self.remark] if self.remark else [])])


@dataclass(frozen=True)
class Drawn:
    """figure: to be shown or saved. text: all figures in it and every diagnosis in full, in Markdown. failures: how much
    could not be used."""

    figure: Figure
    text: str
    failures: int


@dataclass(frozen=True)
class _Shown:
    """A photo as one system leaves it. row: of the table in the text. seen: severities that the reasoner sees in it, if it is
    asked."""

    panel: Panel
    row: dict[str, str]
    answer: Diagnosis | ParseFailure | None
    seen: Sequence[float] = ()


@dataclass(frozen=True)
class _Told:
    drawn: Strip
    text: str


def _column(label: str, stage: Stage, cases: Sequence[Case], reasoner: Reasoner) -> list[_Shown]:
    both = ((case, *case.restored(stage)) for case in cases)
    return [_shown(label, case, image, said, reasoner) for case, said, image in both]


def _shown(
    label: str, case: Case, image: Tensor, answer: Diagnosis | ParseFailure | None, reasoner: Reasoner
) -> _Shown:
    if case.known is None:
        severities = seen(reasoner, image)
        row = {"": label, **{NAMES[kind]: f"{value:.1f}" for kind, value in zip(KINDS, severities, strict=True)}}
        note = "no diagnosis" if math.isnan(sum(severities)) else f"severity {sum(severities):.0f}"
        return _Shown(Panel.of(label, image[0], case.crop, note), row, answer, severities)
    evaluation = Evaluation()
    evaluation.add(case.known, None, image)
    of = evaluation.photos[0]
    row = {"": label, "PSNR (dB)": f"{of['psnr']:.2f}", "SSIM": f"{of['ssim']:.4f}"}
    return _Shown(Panel.of(label, image[0], case.crop, f"{of['psnr']:.2f} dB / {of['ssim']:.3f}"), row, answer)


def _strip(case: Case, shown: Sequence[_Shown]) -> _Told:
    """shown: the input first, the system whose diagnosis is shown last."""
    first, last = shown[0], shown[-1]
    panels = [each.panel for each in shown]
    rows: Rows = [each.row for each in shown]
    said = {f"{last.row['']} says": last.answer}
    if case.known is None:
        severities = Severities(first.seen, last.seen, "bar: before, line: after")
    else:
        panels.append(Panel.of(CLEAN, case.known.clean[0], case.crop, "PSNR / SSIM"))
        severities = Severities(stated(last.answer), stated(case.known.truth[0]), "bar: said, line: true")
        said["true"] = case.known.truth[0]
    size = tuple(case.image.shape[-2:])
    blocks = "".join(f"{who}:\n\n```\n{_words(answer)}\n```\n\n" for who, answer in said.items() if answer is not None)
    text = f"## {case.name}\n\n{markdown(rows)}\n{blocks}"
    return _Told(Strip(case.name, size, case.crop, panels, severities, _words(last.answer, beside=True)), text)


def _words(answer: Diagnosis | ParseFailure | None, beside: bool = False) -> str:
    """A diagnosis in words; ``beside`` bars, without what they show."""
    if answer is None:
        return ""
    if isinstance(answer, ParseFailure):
        return f"No diagnosis: {answer.reason}"
    return "\n".join(render(answer, ("presence", "parameters", "scene")).split("\n")[1:]) if beside else render(answer)


@dataclass(frozen=True)
class Kind:
    """A figure of the paper, as it is without options. photos: from a fresh clone."""

    title: str
    photos: Callable[[], list[Photo]]
    preset: str | None = "paper"
    rule: Rule = RULES["spread"]
    count: int = 3
    ablation: bool = False


def _all() -> list[Photo]:
    return [*shipped_photos("test"), *shipped_photos("val")]


def _as_they_are() -> list[Photo]:
    """Photos of scikit-image's that are not good: one is blurred by motion, the others are pale, unevenly lit or soft."""
    folder = Path(skimage.data.__file__).parent
    return [photo_at(folder / name) for name in ("clock_motion.png", "moon.png", "page.png", "text.png")]


FIGURES = {
    "indoor": Kind("Figure 4: indoor photos", lambda: _all()[:1]),
    "outdoor": Kind("Figure 4: outdoor photos", lambda: _all()[1:]),
    "real": Kind("Figure 5: real photos", _as_they_are, None, count=4),
    "ablation": Kind("Figure 6: the rows of Table 3", _all, ablation=True),
    "hard": Kind("Figure 7: hard cases", _all, rule=RULES["gain"]),
    "hard-real": Kind("Figure 8: hard real photos", _as_they_are, None, RULES["severity"], count=2),
}


def of_paper(
    name: str,
    photos: Sequence[Photo] | None = None,
    systems: Sequence[System] | None = None,
    configs: Path = CONFIGS,
    runs: Path = RUNS,
) -> PaperFigure:
    """A figure of the paper, to be drawn, or changed by ``dataclasses.replace`` and drawn.

    name: of :data:`FIGURES`. photos: None: those that scikit-image ships. systems: None: all rows of Table 2 that can run
    here, or those of Table 3. configs: where the rows are. runs: where ``rnr ablations`` trained.
    """
    kind, left_out, remark = FIGURES[name], [], ""
    if systems is None and kind.ablation:
        systems, remark = of_table_3(configs, runs)
    elif systems is None:
        systems, left_out = of_table_2(configs, told=kind.preset is not None)
    draws = Draws(kind.photos() if photos is None else photos, kind.preset)
    return PaperFigure(kind.title, draws, systems, kind.rule, kind.count, remark=remark, left_out=left_out)
