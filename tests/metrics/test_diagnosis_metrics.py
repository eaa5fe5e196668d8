import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, ParseFailure, Rain, Shake
from rnr.diagnosis.types import FINDINGS, quantities
from rnr.metrics import diagnosis
from rnr.metrics.diagnosis import COLUMNS, encode

FAILURE = ParseFailure("I see a bus.", "the first line must state presence")


def draw(rng, failures=False):
    if failures and rng.random() < 0.2:
        return FAILURE
    findings = {}
    for kind, finding in FINDINGS.items():
        if rng.random() < 0.6:
            findings[kind] = finding(**{
                key: tuple(rng.uniform(spec.low, spec.high, 3).tolist()) if spec.count > 1
                else round(rng.uniform(spec.low, spec.high), spec.decimals)
                for key, spec in quantities(finding).items()
            })  # fmt: skip
    return Diagnosis(**findings)


def sample(n, seed=0):
    rng = np.random.default_rng(seed)
    truth = [draw(rng) for _ in range(n)]
    answers = [draw(rng, failures=True) for _ in range(n)]
    # One photo in three is answered right, or nearly so.
    for i in range(0, n, 3):
        answers[i] = truth[i]
        if truth[i].fog is not None:
            answers[i] = dataclasses.replace(truth[i], fog=dataclasses.replace(truth[i].fog, severity=40.0))
    return answers, truth


def figures(answers, truth):
    tables = (torch.tensor([encode(each) for each in side], dtype=torch.float64) for side in (answers, truth))
    return diagnosis.figures(*(table.view(-1, len(COLUMNS)) for table in tables))


def found(answer, kind):
    return None if isinstance(answer, ParseFailure) else answer[kind]


def independent(answers, truth, kind):
    """The figures of a kind, counted one by one and with scipy."""
    there = np.array([t[kind] is not None for t in truth])
    said = np.array([found(a, kind) is not None for a in answers])
    actual = np.array([t[kind].severity if t[kind] else 0.0 for t in truth])
    guess = np.array([found(a, kind).severity if found(a, kind) else 0.0 for a in answers])
    precision, recall = there[said].mean(), said[there].mean()
    share = there.mean()
    return {
        "photos": there.sum(),
        "precision": precision,
        "recall": recall,
        "f1": stats.hmean([precision, recall]),
        "f1_of_always_yes": stats.hmean([share, 1.0]),
        "severity_mae": np.abs(guess - actual)[there].mean(),
        "severity_mae_of_mean": np.abs(actual[there] - actual[there].mean()).mean(),
        "severity_rank_correlation": stats.spearmanr(guess, actual).statistic,
    }


def test_the_figures_of_each_kind_agree_with_an_independent_count():
    answers, truth = sample(200)
    result = figures(answers, truth)
    assert result.photos == 200
    assert result.parse_rate == pytest.approx(np.mean([a is not FAILURE for a in answers]))
    assert 0.5 < result.parse_rate < 1
    for row, kind in zip((each._asdict() for each in result.kinds), KINDS, strict=True):
        assert row.pop("kind") == kind
        assert row == pytest.approx(independent(answers, truth, kind), rel=1e-5)


def test_the_parameter_errors_agree_with_an_independent_count():
    answers, truth = sample(200)
    rows = {(row.kind, row.parameter): row for row in figures(answers, truth).parameters}
    assert len(rows) == sum(len(quantities(finding)) - 1 for finding in FINDINGS.values())
    for (kind, key), row in rows.items():
        pairs = [(found(a, kind), t[kind]) for a, t in zip(answers, truth, strict=True) if found(a, kind) and t[kind]]
        a, b = (np.array([getattr(side, key) for side in sides]) for sides in zip(*pairs, strict=True))
        error = np.abs(a - b)
        if key in ("direction", "slant"):  # the angle between two lines, by way of their directions
            dot = np.cos(np.deg2rad(a)) * np.cos(np.deg2rad(b)) + np.sin(np.deg2rad(a)) * np.sin(np.deg2rad(b))
            error = np.rad2deg(np.arccos(np.clip(np.abs(dot), 0, 1)))
        assert row.photos == len(pairs)
        assert row.mae == pytest.approx(error.mean(), rel=1e-5)
        assert row.unit == quantities(FINDINGS[kind])[key].unit


def test_angles_wrap_around():
    def mae(kind, key, answer, truth):
        rows = figures([Diagnosis(**{kind: answer})], [Diagnosis(**{kind: truth})]).parameters
        return next(row.mae for row in rows if (row.kind, row.parameter) == (kind, key))

    assert mae("shake", "direction", Shake(9, 179, 5, 0.2), Shake(9, 1, 5, 0.2)) == 2
    assert mae("shake", "direction", Shake(9, 10, 5, 0.2), Shake(9, 100, 5, 0.2)) == 90
    rains = (Rain(9, 0.1, slant, 9, 1, 0.5, (1, 1, 1)) for slant in (-89, 89))
    assert mae("rain", "slant", *rains) == 2


def test_by_hand():
    truth = [Diagnosis(fog=Fog(s, (0.5, 0.5, 0.5), 0.5)) for s in (20, 40, 60)] + [Diagnosis()]
    answers = [Diagnosis(fog=Fog(30, (0.5, 0.8, 0.5), 0.4)), FAILURE, Diagnosis(), truth[0]]
    result = figures(answers, truth)
    assert result.parse_rate == 0.75
    fog = result.kinds[0]
    assert (fog.kind, fog.photos) == ("fog", 3)
    assert (fog.precision, fog.recall, fog.f1) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert fog.f1_of_always_yes == pytest.approx(6 / 7)
    assert fog.severity_mae == pytest.approx((10 + 40 + 60) / 3)  # a failure finds nothing: severity 0
    assert fog.severity_mae_of_mean == pytest.approx(40 / 3)
    light, transmission = result.parameters[:2]
    assert (light.parameter, light.photos, transmission.parameter) == ("atmospheric_light", 1, "transmission")
    assert (light.mae, transmission.mae) == pytest.approx((0.1, 0.1), rel=1e-5)


def test_figures_without_samples_are_nan():
    result = figures([Diagnosis(fog=Fog(30, (0.5, 0.8, 0.5), 0.4)), Diagnosis()], [Diagnosis(), Diagnosis()])
    fog, noise = result.kinds[0], result.kinds[3]
    assert fog.precision == 0
    assert fog.f1 == 0
    assert noise.f1_of_always_yes == 0  # 'yes' twice, wrong twice
    empty = [fog.recall, fog.severity_mae, fog.severity_mae_of_mean, fog.severity_rank_correlation, noise.precision]
    assert all(math.isnan(v) for v in [*empty, noise.f1, *(p.mae for p in result.parameters)])
    assert all(p.photos == 0 for p in result.parameters)


def test_a_set_without_photos_gives_nan_throughout():
    result = figures([], [])
    assert result.photos == 0
    assert math.isnan(result.parse_rate)
    assert all(math.isnan(v) for row in result.kinds for key, v in row._asdict().items() if key not in ("kind", "photos"))


def test_answers_may_leave_fields_out():
    truth = [Diagnosis(noise=Noise(s, 0.1, 5)) for s in (10, 20)] + [Diagnosis()]
    full = figures(truth, truth)
    kept = figures([each.keep(["presence", "severity"]) for each in truth], truth)
    assert kept.kinds[3] == full.kinds[3]
    assert math.isnan(kept.parameters[-1].mae)
    assert full.parameters[-1][:5] == ("noise", "b", "", 2, 0.0)
    bare = figures([each.keep(["presence"]) for each in truth], truth).kinds[3]
    assert bare.f1 == 1
    assert math.isnan(bare.severity_mae)
    assert math.isnan(bare.severity_rank_correlation)


def test_perfect_answers():
    _, truth = sample(50)
    result = figures(truth, truth)
    assert result.parse_rate == 1
    for kind in result.kinds:
        assert (kind.precision, kind.recall, kind.f1, kind.severity_mae) == (1, 1, 1, 0)
        assert kind.severity_rank_correlation == pytest.approx(1)
    assert all(parameter.mae == 0 for parameter in result.parameters)


def test_an_encoded_answer_has_one_number_a_column():
    assert len(encode(Diagnosis())) == len(encode(FAILURE)) == len(COLUMNS)
    row = dict(zip(COLUMNS, encode(Diagnosis(noise=Noise(31, 0.1, 5))), strict=True))
    assert row["answer", "parsed"] == 1
    assert (row["noise", "present"], row["noise", "severity"], row["noise", "b"]) == (1, 31, 5)
    assert (row["fog", "present"], row["fog", "severity"]) == (0, 0)
    assert math.isnan(row["fog", "transmission"])
