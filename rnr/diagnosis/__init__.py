"""The structured diagnosis of section 3.1: its types, its text, its JSON, and the prompt that asks for it."""

from rnr.diagnosis.text import parse, render
from rnr.diagnosis.types import FIELDS, KINDS, Diagnosis, Finding, Fog, Noise, ParseFailure, Rain, Shake

__all__ = [
    "FIELDS",
    "KINDS",
    "Diagnosis",
    "Finding",
    "Fog",
    "Noise",
    "ParseFailure",
    "Rain",
    "Shake",
    "parse",
    "render",
]
