"""Fidelity of restored photos to the clean ones: PSNR and SSIM, one figure a photo.

The conventions, all of them here:

- range: [0, 1]; what lies outside is clamped. Both images are rounded to 8 bit, as if saved as PNG and read again.
- colour: RGB, not luminance. PSNR is of the squared error's mean over pixels and channels, SSIM a mean over channels.
- crop: none. The photo is compared at its own size, borders included; SSIM counts the pixels whose window lies wholly
  inside, as in Wang et al. (2004) and scikit-image.
- SSIM's window: Gaussian, 11 x 11 pixels, sigma 1.5, population covariance.
- mean: of the photos' own figures, each photo alike whatever its size; not the PSNR of a mean error.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

MAX_PSNR = 100.0
"""PSNR in dB of equal images, and the most that any pair gets: an infinity would swallow every mean that it enters.
Only pairs that differ by one level in less than one of 150,000 values are cut down to it."""

SSIM_WINDOW = 11


def as_saved(images: Tensor) -> Tensor:
    """``images`` as they are after saving as 8-bit PNG and reading again: float32, multiples of 1/255 in [0, 1]."""
    return images.float().clamp(0, 1).mul(255).round().div(255)


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,), at most :data:`MAX_PSNR`. restored, clean: (B, 3, H, W) in [0, 1]."""
    # Here, for it brings matplotlib, which a repair has no use for.
    from torchmetrics.functional.image import peak_signal_noise_ratio

    check(restored, clean)
    saved = as_saved(restored), as_saved(clean)
    with _float32():
        ratios = peak_signal_noise_ratio(*saved, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return ratios.clamp(max=MAX_PSNR)


@contextmanager
def _float32() -> Iterator[None]:
    """As torch's default type, which Lightning changes for its half precision, and torchmetrics goes by."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """Structural similarity, (B,), in [-1, 1]. restored, clean: (B, 3, H, W) in [0, 1], H and W at least 11.

    torchmetrics reflects the image at its borders and averages over all of it; the border is cut off here before the
    mean: on a photo of 61 x 83 pixels that moves it by up to 0.014. float32 is within 1e-4 of scikit-image's float64.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check(restored, clean)
    if min(clean.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least 11 x 11 pixels, got {clean.shape[-2]} x {clean.shape[-1]}")
    with torch.autocast(clean.device.type, enabled=False):  # in bfloat16 nothing would be left of a variance
        _, similarity = structural_similarity_index_measure(
            as_saved(restored), as_saved(clean), sigma=1.5, reduction="none", data_range=1.0, return_full_image=True
        )
    border = SSIM_WINDOW // 2
    return similarity[..., border:-border, border:-border].mean(dim=(1, 2, 3))


def check(restored: Tensor, clean: Tensor) -> None:
    """``ValueError`` unless both are (B, 3, H, W) floats of one shape."""
    if restored.shape != clean.shape or clean.ndim != 4 or clean.shape[1] != 3:
        raise ValueError(
            f"restored and clean must both be (B, 3, H, W), got {tuple(restored.shape)} and {tuple(clean.shape)}"
        )
    if not (restored.is_floating_point() and clean.is_floating_point()):
        raise ValueError(f"images must be floats in [0, 1], got {restored.dtype} and {clean.dtype}")
