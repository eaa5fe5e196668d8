"""Hypothesis strategies for diagnoses, built from the declared ranges of their quantities."""

from hypothesis import strategies as st

from rnr.diagnosis import FIELDS, Diagnosis
from rnr.diagnosis.types import FINDINGS, MAX_SCENE_WORDS, Quantity, quantities


def number(spec: Quantity):
    single = st.floats(spec.low, spec.high)
    return st.tuples(*[single] * spec.count) if spec.count > 1 else single


def finding(kind: str):
    return st.builds(FINDINGS[kind], **{key: number(spec) for key, spec in quantities(FINDINGS[kind]).items()})


words = st.text(min_size=1, max_size=12).map(lambda word: "".join(word.split())).filter(bool)
scenes = st.lists(words, min_size=1, max_size=MAX_SCENE_WORDS).map(" ".join)
diagnoses = st.builds(Diagnosis, **{kind: st.none() | finding(kind) for kind in FINDINGS}, scene=st.none() | scenes)
subsets = st.sets(st.sampled_from(FIELDS[1:])).map(lambda fields: ("presence", *sorted(fields)))
