"""From the colors of a file, in whatever mode and profile, to 8-bit sRGB."""

import io

import numpy as np
from PIL import Image, ImageChops, ImageCms


def to_srgb(image: Image.Image) -> Image.Image:
    """With its colors in sRGB, where it says that they are others. A profile that cannot be read, or is of another kind of
    colors, does not count. What is grey stays grey."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    see_through = image.has_transparency_data
    if image.mode in ("P", "PA") or (see_through and image.mode == "RGB"):
        image = image.convert("RGBA" if see_through else "RGB")
    elif see_through and image.mode == "L":
        image = image.convert("LA")
    colors = image.convert(image.mode.removesuffix("A")) if see_through else image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if own.profile.xcolor_space.strip() != {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}.get(colors.mode):
            return image
        there = ImageCms.profileToProfile(colors, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    bands = list(there.split())
    if colors.mode == "L" or (colors.mode == "RGB" and _is_grey(colors)):
        bands = [bands[1]] * 3
    return Image.merge("RGBA", [*bands, image.getchannel("A")]) if see_through else Image.merge("RGB", bands)


def _is_grey(image: Image.Image) -> bool:
    red, *others = image.split()
    return not any(ImageChops.difference(red, other).getbbox() for other in others)


def to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of a file of any mode. ``ValueError`` for values that are no numbers."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F"):
        pixels = np.asarray(image, dtype=np.float64)
        if not np.isfinite(pixels).all():
            raise ValueError("it holds values that are no numbers")
        # "I" and "F" hold 16-bit files too, or plain 8-bit values; floating-point files run from 0 to 1. These may run over.
        peak = pixels.max(initial=0) / (2 if image.mode == "F" else 1)
        full = 65535 if peak > 255 or image.mode.startswith("I;16") else 255 if peak > 1 else 1
        grey = np.clip(pixels / full * 255 + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
    return np.asarray(image.convert("RGB"))
