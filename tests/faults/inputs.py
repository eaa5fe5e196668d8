"""Valid examples of what rnr reads, and what must hold of whatever else it is given: an answer or the one error."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from rnr.data.photos import FORMATS, PhotoError, open_photo, photo_size
from rnr.diagnosis import Diagnosis, Fog, Noise, ParseFailure, Rain, Shake, files, parse, render

FULL = Diagnosis(
    Fog(55.9, (0.86, 0.91, 0.79), 0.43, chance=0.7), Shake(20, 45, 7.5, 0.2),
    Rain(8, 0.002, -10, 20, 2, 0.5, (0.8, 0.8, 0.9)), Noise(12.4, 0.12, 5), "A red bus before a brick building.",
)  # fmt: skip
TEXTS = [render(FULL), render(Diagnosis()), render(Diagnosis(fog=FULL.fog, scene="Überall 雨."))]
JSON = json.dumps(files.to_dict(FULL)).encode()


def check_text(text: str) -> None:
    answer = parse(text)
    if isinstance(answer, Diagnosis):
        assert render(answer) == text.strip()
    else:
        assert isinstance(answer, ParseFailure) and answer.text == text and answer.reason


def check_json(path: Path) -> None:
    try:
        diagnosis = files.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        return
    files.save(diagnosis, path)
    assert files.load(path) == diagnosis
    assert isinstance(parse(render(diagnosis)), Diagnosis)


def check_photo(path: Path) -> bool:
    """Whether it opens."""
    try:
        photo = open_photo(path, max_pixels=100_000)
    except PhotoError as error:
        assert str(path) in str(error)
        return False
    assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3 and photo[..., 0].size <= 100_000
    assert photo.shape[:2] == photo_size(path)
    return True


def photos_of(form: str) -> list[bytes]:
    """Small files of a format: in colour, in grey, with a palette, each to be turned where the format can say so."""
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8))
    examples = []
    for image in (pixels, pixels.convert("L"), pixels.convert("P") if form in ("PNG", "BMP", "TIFF") else pixels):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, form, **({"exif": exif} if form in ("JPEG", "PNG", "TIFF", "WEBP") else {}))
        examples.append(file.getvalue())
    return examples


PHOTOS = {form: photos_of(form) for form in FORMATS}
