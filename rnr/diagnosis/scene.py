"""The rules for the description of a clean scene (appendix A.1): short, in one line, and not a word of degradation.

What is forbidden is the word where it speaks of the picture, not where it names a thing in it: "fog" but not "fog
lamp", "rainy" but not "rain boots", "film grain" but not "wood grain". Where a word is nearly always a thing ("faded
jeans", "streaked plumage", "soft folds", "snow"), it is allowed.
"""

import re

from rnr.diagnosis.types import MAX_SCENE_WORDS

_THINGS = {
    "fog": "horn lamp lamps light lights",
    "mist": "fan fans net nets sprayer",
    "rain": "barrel barrels boot boots bonnet cape capes chain chains coat coats cover covers forest forests garden "
    "gardens gauge gauges gear gutter gutters hat hats hood hoods jacket jackets pipe pipes poncho ponchos shelter "
    "shelters spout spouts suit suits tree trees",
    "noise": "barrier barriers wall walls",
}
"""What follows one of these words where both together name a thing."""


def _but_things(word: str) -> str:
    return rf"{word}(?![ -](?:{'|'.join(_THINGS[word].split())})\b)"


_PICTURE = r"(?:film|image|photo|photographic|picture|sensor|camera|colou?r|digital|luminance|chroma|heavy|visible)"
_DEGRADATION = re.compile(
    r"\b(?:"
    + "|".join(
        (
            _but_things("fog"),
            r"(?:de)?fogg(?:y|ed|ing|iness)|fogs",
            r"(?:de)?haz(?:e|es|y|ed|ing|ier|ily|iness)",
            _but_things("mist"),
            r"mist(?:s|y|ed|ing|iness)",
            r"smog(?:gy)?",
            r"(?:de|un)?blur(?:s|red|ring|ry|rier|riness)?",
            r"(?:de|un)focus+ed|defocus|out[ -]of[ -]focus|motion[ -]smear\w*|camera[ -]shake",
            _but_things("rain"),
            r"(?:de)?rain(?:s|y|ed|ing)|raindrops?|rainfall|rainstorms?|downpours?|drizzl(?:e|es|y|ing)",
            # Water, clouds and plumage have streaks too; those of rain run across the picture.
            r"(?:diagonal|vertical|slant(?:ed|ing)|falling|motion) streaks?(?! of\b)",
            r"(?:de)?noised|denoising|noisy|noises|noisiness",
            _but_things("noise"),
            r"grainy|graininess",
            rf"{_PICTURE}[ -]grain",
            r"(?:low|lower|poor|weak|reduced|little|faint|lack of)[ -]contrast|washed[ -]out",
            r"(?:low|lower|poor|reduced|limited)[ -](?:quality|resolution|res|visibility)",
            r"art[ei]facts?",
            r"degrad(?:e|es|ed|ing|ations?)",
            r"pixelat(?:ed|ion)|jpe?g|(?:over|under)-?exposed",
        )
    )
    + r")\b",
    re.IGNORECASE,
)


def degradation_words(scene: str) -> list[str]:
    """The words of ``scene`` that speak of degradation, as they stand there, in their order; [] if it is clean."""
    return [match[0] for match in _DEGRADATION.finditer(" ".join(scene.split()))]


def problems(scene: str) -> list[str]:
    """What breaks the rules of A.1 in ``scene``, each as a phrase that goes on from "the scene ..."; [] if nothing."""
    if not scene.strip():
        return ["is empty"]
    found = []
    if (lines := len(scene.strip().splitlines())) > 1:
        found.append(f"has {lines} lines, not one")
    if (words := len(scene.split())) > MAX_SCENE_WORDS:
        found.append(f"has {words} words, over the limit of {MAX_SCENE_WORDS}")
    if forbidden := degradation_words(scene):
        found.append(f"speaks of degradation ({', '.join(dict.fromkeys(forbidden))})")
    return found


def shortened(scene: str) -> str:
    """``scene`` cut after its last word within the limit if length is its one fault; otherwise as it is."""
    words = scene.split()
    if len(words) <= MAX_SCENE_WORDS or len(problems(scene)) > 1:
        return scene
    return " ".join(words[:MAX_SCENE_WORDS]).rstrip(",;:-")
