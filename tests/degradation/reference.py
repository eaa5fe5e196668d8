"""Eq. 1 and appendix A.2 a second time: NumPy, float64, one photo at a time. What ``rnr.degradation`` is held against.

Written from the paper and, where it is silent, from ``docs/deviations.md``; it shares no code with the package. Photos J
are (H, W, 3) and relative depth d is (H, W), both in [0, 1]. Nothing is drawn here: parameters and the two random fields,
where streaks are seeded and what the noise is before it is scaled, come from outside.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Array = NDArray[np.float64]

RADIUS = 16  # of the 33 x 33 kernel, pixels

# The ranges that parameters are drawn from: fog and noise from A.2, the others from docs/deviations.md.
RANGES = {
    "fog": {"atmospheric_light": (0.7, 1.0), "beta": (0.8, 3.0)},
    "shake": {"steps": (16, 64), "stride": (0.15, 1.0), "turn": (2, 30)},
    "rain": {
        "density": (0.0003, 0.004), "slant": (-30, 30), "length": (10, 32), "width": (1, 2.5), "opacity": (0.3, 0.9),
    },
    "noise": {"k": (0, 0.3), "b": (-20, 20)},
}  # fmt: skip


@dataclass(frozen=True)
class Fog:
    atmospheric_light: Array  # (3,)
    beta: float


@dataclass(frozen=True)
class Shake:
    kernel: Array  # (33, 33)


@dataclass(frozen=True)
class Rain:
    slant: float
    length: float
    width: float
    opacity: float
    color: Array  # (3,)


@dataclass(frozen=True)
class Noise:
    k: float
    b: float


@dataclass(frozen=True)
class Parameters:
    """What is done to one photo; None is absent."""

    fog: Fog | None = None
    shake: Shake | None = None
    rain: Rain | None = None
    noise: Noise | None = None


@dataclass(frozen=True)
class Step:
    """The photo after one degradation; its severity, 0 where it is absent; and what was measured of it."""

    image: Array
    severity: float
    figures: dict[str, float]


def untouched(photo: Array) -> Step:
    return Step(photo, 0.0, {})


def parameters(degradation: Any, row: int) -> Parameters:
    """One row of an ``rnr.degradation.Degradation``."""

    def part(kind: type, drawn: Any) -> Any:
        columns = {f.name: getattr(drawn, f.name) for f in fields(kind)}
        row_of = {name: np.asarray(values[row], dtype=np.float64)[()] for name, values in columns.items()}
        return kind(**row_of) if drawn.present[row] else None

    return Parameters(
        fog=part(Fog, degradation.fog),
        shake=part(Shake, degradation.shake),
        rain=part(Rain, degradation.rain),
        noise=part(Noise, degradation.noise),
    )


def severity(share: float) -> float:
    """s = share x 99 + 1, at most 100."""
    return min(share * 99 + 1, 100.0)


def transmission(depth: Array, beta: float) -> Array:
    """t(x) = t0(x)^beta with t0 = exp(-d), clamped to [0.05, 1]."""
    return np.clip(np.exp(-depth) ** beta, 0.05, 1.0)


def add_fog(photo: Array, depth: Array, fog: Fog) -> Step:
    """I = J t + A (1 - t)."""
    t = transmission(depth, fog.beta)
    mean = float(t.mean())
    image = photo * t[..., None] + fog.atmospheric_light * (1 - t[..., None])
    return Step(np.clip(image, 0, 1), severity((1 - mean) / (1 - 0.05)), {"transmission": mean})


def kernel_of(path: Array, steps: int) -> Array:
    """(33, 33): the kernel of the first ``steps`` points of a path (T, 2), x to the right and y downwards, in pixels.

    Each point falls on the pixels around it by bilinear shares and weighs as a Gaussian in time does, whose standard
    deviation is a fifth of the whole. The weighted mean lies in the middle pixel; what would reach the rim is scaled.
    """
    points = path[:steps]
    time = np.arange(steps) / (steps - 1) - 0.5
    weight = np.exp(-(time**2) / (2 * 0.2**2))
    weight /= weight.sum()
    points = points - weight @ points
    farthest = np.abs(points).max()
    if farthest > RADIUS - 1:
        points = points * (RADIUS - 1) / farthest
    grid = np.arange(-RADIUS, RADIUS + 1)
    across = np.clip(1 - np.abs(grid - points[:, :1]), 0, None)  # (steps, 33)
    down = np.clip(1 - np.abs(grid - points[:, 1:]), 0, None)
    return np.einsum("s,sy,sx->yx", weight, down, across)


class Moments(NamedTuple):
    """direction: degrees in [0, 180), counter-clockwise from the horizontal. length, rms_radius: pixels."""

    direction: float
    length: float
    energy: float
    rms_radius: float


def moments(kernel: Array) -> Moments:
    """The eigen-decomposition of a kernel's second-moment matrix about its centre of mass, and its L2 norm."""
    reach = (len(kernel) - 1) / 2
    y, x = np.mgrid[reach : -reach - 1 : -1, -reach : reach + 1]  # y upwards, as directions are seen
    at = np.stack([x.ravel(), y.ravel()])
    mass = kernel.ravel()
    at = at - (at @ mass)[:, None]
    values, vectors = np.linalg.eigh((at * mass) @ at.T)
    direction = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])) % 180
    return Moments(
        direction=0.0 if direction == 180 else direction,  # the remainder of a tiny negative angle rounds to 180
        length=math.sqrt(max(values[1], 0)),
        energy=math.sqrt((kernel**2).sum()),
        rms_radius=math.sqrt(max(values.sum(), 0)),
    )


def blur(photo: Array, kernel: Array) -> Array:
    """Each channel convolved with the kernel; borders mirrored, or repeated in a photo no larger than its radius."""
    reach = len(kernel) // 2
    border = "reflect" if min(photo.shape[:2]) > reach else "edge"
    padded = np.pad(photo, ((reach, reach), (reach, reach), (0, 0)), mode=border)
    return np.stack([signal.convolve(padded[..., c], kernel, mode="valid") for c in range(photo.shape[2])], axis=-1)


def add_shake(photo: Array, shake: Shake) -> Step:
    measured = moments(shake.kernel)
    return Step(np.clip(blur(photo, shake.kernel), 0, 1), severity(measured.rms_radius / RADIUS), measured._asdict())


def streak(slant: float, length: float, width: float) -> Array:
    """(2r + 1, 2r + 1): one streak about its seed, 1 inside, falling to 0 over one pixel at its rim. It leans ``slant``
    degrees from the vertical, to the right at its top."""
    reach = math.ceil((length + width) / 2) + 1
    up, right = np.mgrid[reach : -reach - 1 : -1, -reach : reach + 1]
    toward = complex(math.cos(math.radians(slant)), math.sin(math.radians(slant)))
    turned = (up + 1j * right) / toward  # real along the streak, imaginary across it
    inside = [np.clip(size / 2 + 0.5 - np.abs(to), 0, 1) for size, to in ((length, turned.real), (width, turned.imag))]
    return inside[0] * inside[1]


def rain_mask(seeds: NDArray[np.bool_], slant: float, length: float, width: float) -> Array:
    """(H, W) in [0, 1]: a streak about each seed; where streaks cross they add up, to 1 at most."""
    stamp = streak(slant, length, width)
    reach = len(stamp) // 2
    mask = np.zeros((seeds.shape[0] + 2 * reach, seeds.shape[1] + 2 * reach))
    for row, column in np.argwhere(seeds):
        mask[row : row + len(stamp), column : column + len(stamp)] += stamp
    return np.minimum(mask[reach : reach + seeds.shape[0], reach : reach + seeds.shape[1]], 1)


def coverage(opacity: float, mask: Array) -> float:
    """The share of pixels that streaks cover with an opacity above 0.05."""
    return float((opacity * mask > 0.05).mean())


def add_rain(photo: Array, rain: Rain, seeds: NDArray[np.bool_]) -> Step:
    """I = J (1 - opacity M) + color opacity M. Streaks of which none is visible are no rain."""
    mask = rain_mask(seeds, rain.slant, rain.length, rain.width)
    covered = coverage(rain.opacity, mask)
    if not covered:
        return Step(photo, 0.0, {"coverage": 0.0})
    alpha = rain.opacity * mask[..., None]
    return Step(np.clip(photo * (1 - alpha) + rain.color * alpha, 0, 1), severity(covered), {"coverage": covered})


def sigma(photo: Array, k: float, b: float) -> Array:
    """max(0, k x + b) at x = 255 J, on the scale of J."""
    return np.maximum(k * (255 * photo) + b, 0) / 255


def add_noise(photo: Array, noise: Noise, field: Array) -> Step:
    """field: (H, W, 3) standard normal. Noise of less variance than rounding to 8 bit has is none."""
    deviation = sigma(photo, noise.k, noise.b)
    variance = float((deviation**2).mean())
    if variance <= (1 / 255) ** 2 / 12:
        return Step(photo, 0.0, {"variance": variance})
    return Step(np.clip(photo + deviation * field, 0, 1), severity(variance / 0.05), {"variance": variance})


def degrade(photo: Array, depth: Array, applied: Parameters, seeds: NDArray[np.bool_], field: Array) -> dict[str, Step]:
    """A.2 from end to end: fog, shake, rain and noise, each on the result of the one before.

    photo: (H, W, 3) and depth: (H, W) in [0, 1]. seeds: (H, W) bool, of the streaks. field: (H, W, 3) standard normal.
    """
    foggy = add_fog(photo, depth, applied.fog) if applied.fog else untouched(photo)
    shaken = add_shake(foggy.image, applied.shake) if applied.shake else untouched(foggy.image)
    rainy = add_rain(shaken.image, applied.rain, seeds) if applied.rain else untouched(shaken.image)
    noisy = add_noise(rainy.image, applied.noise, field) if applied.noise else untouched(rainy.image)
    return {"fog": foggy, "shake": shaken, "rain": rainy, "noise": noisy}
