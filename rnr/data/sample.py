"""One sample of a built set: a photo before, during and after its degradation, and all that was drawn for it.

These are the paper's "Dataset Outputs" (A.2): the degraded image, the images between the steps, the sampled parameters,
presence flags, severities and the diagnosis. A sample is a handful of small files:

    clean.png  fog.png  shake.png  rain.png  degraded.png    8-bit RGB of one size: before, after each step, after noise
    depth.png    8-bit relative depth, 255 the farthest: what the fog was made with
    kernel.npy   (33, 33) float64, the camera's shake
    sample.json  the rest, in the words of :class:`Record`

With them the degraded image can be made again to the bit: :func:`again`.
"""

import dataclasses
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rnr.data.batches import seed_of
from rnr.data.dataset import random_crop
from rnr.data.depth import depth_of
from rnr.data.photos import Photo, open_photo
from rnr.degradation import Degradation, Degraded, Degrader, FogParams, NoiseParams, RainParams, ShakeParams
from rnr.diagnosis import KINDS, Diagnosis, files, render
from rnr.diagnosis.truth import diagnoses

AFTER = {"fog": "fog.png", "shake": "shake.png", "rain": "rain.png", "noise": "degraded.png"}
"""The image that each step leaves behind."""

IMAGES = ("clean.png", *AFTER.values())
FILES = (*IMAGES, "depth.png", "kernel.npy", "sample.json")
PARAMS = {"fog": FogParams, "shake": ShakeParams, "rain": RainParams, "noise": NoiseParams}


@dataclass(frozen=True)
class Recipe:
    """How samples are made. preset: the name that ``degrader`` was asked for by. looks: samples a photo. size: most
    pixels of the long side, larger photos are scaled down; crop: side of a random square cut from each look; 0 for
    neither."""

    preset: str
    degrader: Degrader
    seed: int = 0
    looks: int = 1
    size: int = 0
    crop: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("looks", 1, 999), ("size", 16, 1 << 16), ("crop", 16, 1 << 16)):
            value = getattr(self, name)
            if not least <= value <= most and not (value == 0 and least > 1):
                raise ValueError(f"{name} must lie within [{least}, {most}], got {value}")


@dataclass(frozen=True)
class Record:
    """What is said of a sample.

    photo: the clean photo's name. look: which of its looks. seed: of its degradation, 48 bit. size: (height, width).
    diagnosis: the truth, text: as a reasoner should write it. parameters: of each degradation all that was drawn,
    present or not, with the seeds of the fields of rain and noise; the kernel lies beside. In the JSON, ``present`` and
    ``severity`` (0 where absent) of each degradation also stand by themselves.
    """

    photo: str
    look: int
    seed: int
    size: tuple[int, int]
    diagnosis: Diagnosis
    parameters: dict[str, dict[str, Any]]

    def to_json(self) -> str:
        severities = dict(zip(KINDS, self.diagnosis.severities, strict=True))
        content = {
            "photo": self.photo,
            "look": self.look,
            "seed": self.seed,
            "size": self.size,
            "present": {kind: self.diagnosis[kind] is not None for kind in KINDS},
            "severity": severities,
            "parameters": self.parameters,
            "diagnosis": files.to_dict(self.diagnosis),
            "text": render(self.diagnosis),
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """``ValueError`` for what is no record, or one that contradicts itself."""
        try:
            content = json.loads(text)
            own = {key: content[key] for key in ("photo", "look", "seed", "parameters")}
            record = cls(**own, size=tuple(content["size"]), diagnosis=files.from_dict(content["diagnosis"]))
            present, said = content["present"], content["text"]
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no record of a sample ({type(error).__name__}: {error})") from error
        if present != {kind: record.diagnosis[kind] is not None for kind in KINDS}:
            raise ValueError(f"present is {present}, which the diagnosis contradicts")
        if said != render(record.diagnosis):
            raise ValueError("text is not what the diagnosis says")
        return record


def make(photo: Photo, look: int, recipe: Recipe) -> dict[str, bytes]:
    """The files of one sample. The draw is that of the DataModule for the same seed: for an evaluation photo's
    ``look``-th draw, or with ``crop`` for a training photo's ``look``-th visit. Raises ``PhotoError``."""
    pixels, seed = _open(photo, recipe.size), seed_of(recipe.seed, look, photo.name)
    depth = depth_of(photo, pixels)
    if recipe.crop:
        pixels, depth = random_crop(pixels, depth, (recipe.crop, recipe.crop), torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        drawn = recipe.degrader.sample([torch.Generator().manual_seed(seed)])
        degraded = Degrader.apply(pixels[None].float() / 255, depth[None].float() / 255, drawn)
    images = {"clean.png": pixels, "depth.png": depth}
    images |= {AFTER[kind]: _levels(step.image[0]) for kind, step in degraded.steps.items()}
    (truth,) = diagnoses(degraded, [photo.scene])
    record = Record(photo.name, look, seed, tuple(pixels.shape[1:]), truth, _stated(drawn))
    kernel = io.BytesIO()
    np.save(kernel, drawn.shake.kernel[0].double().numpy())
    return {
        **{name: _png(image) for name, image in images.items()},
        "kernel.npy": kernel.getvalue(),
        "sample.json": record.to_json().encode(),
    }


def again(contents: dict[str, bytes]) -> Degraded:
    """What a sample's recorded parameters do to its clean photo: its ``image``, rounded, is ``degraded.png``."""
    drawn = Record.from_json(contents["sample.json"].decode()).parameters
    drawn["shake"]["kernel"] = read_kernel(contents["kernel.npy"])
    parts = {
        kind: params(**{key: torch.from_numpy(np.array(value))[None] for key, value in drawn[kind].items()})
        for kind, params in PARAMS.items()
    }
    clean, depth = (read_png(contents[name])[None].float() / 255 for name in ("clean.png", "depth.png"))
    return Degrader.apply(clean, depth, Degradation(**parts))


def read_png(content: bytes) -> Tensor:
    """(3, H, W), or (1, H, W) for a grey one, uint8. ``OSError`` or ``ValueError`` if it cannot be read."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.array(image)
    except SyntaxError as error:  # which is what Pillow raises for a broken PNG
        raise ValueError(str(error)) from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"expected 8-bit grey or RGB, got {pixels.dtype} of shape {pixels.shape}")
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1).contiguous()


def read_kernel(content: bytes) -> np.ndarray:
    """(33, 33) float64. ``ValueError`` if it cannot be read."""
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except EOFError as error:
        raise ValueError(str(error)) from error


def _open(photo: Photo, size: int) -> Tensor:
    pixels = open_photo(photo.path)
    scale = size / max(pixels.shape[:2]) if size else 1
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        pixels = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _levels(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _png(pixels: Tensor) -> bytes:
    content = io.BytesIO()
    image = pixels.permute(1, 2, 0).numpy()
    # Half the time of Pillow's default level, for a few per cent more bytes: most of these images are noise.
    Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(content, "PNG", compress_level=3)
    return content.getvalue()


def _stated(drawn: Degradation) -> dict[str, dict[str, Any]]:
    """All that was drawn for a batch of one, in numbers that JSON keeps exactly; the kernel goes into its own file."""
    return {
        kind: {
            field.name: getattr(getattr(drawn, kind), field.name)[0].tolist()
            for field in dataclasses.fields(PARAMS[kind])
            if field.name != "kernel"
        }
        for kind in KINDS
    }
