"""Hypothesis strategies for diagnoses, built from the declared ranges of their quantities."""

from hypothesis import strategies as st

from rnr.diagnosis import FIELDS, Diagnosis
from rnr.diagnosis.types import FINDINGS, MAX_SCENE_WORDS, Quantity, quantities

SURE = st.just(1.0)


def number(spec: Quantity):
    single = st.floats(spec.low, spec.high)
    return st.tuples(*[single] * spec.count) if spec.count > 1 else single


def finding(kind: str, chance=SURE):
    return st.builds(
        FINDINGS[kind], **{key: number(spec) for key, spec in quantities(FINDINGS[kind]).items()}, chance=chance
    )


def whole(chance=SURE):
    return st.builds(Diagnosis, **{kind: st.none() | finding(kind, chance) for kind in FINDINGS}, scene=st.none() | scenes)


words = st.text(min_size=1, max_size=12).map(lambda word: "".join(word.split())).filter(bool)
scenes = st.lists(words, min_size=1, max_size=MAX_SCENE_WORDS).map(" ".join)
diagnoses = whole()
doubtful = whole(st.floats(0, 1, exclude_min=True))
subsets = st.sets(st.sampled_from(FIELDS[1:])).map(lambda fields: ("presence", *sorted(fields)))
