import numpy as np
import pytest
import torch
from scipy.ndimage import convolve as reference

from rnr.degradation.convolve import convolve, fast_length

SCIPY = {"constant": "constant", "reflect": "mirror", "replicate": "nearest"}


@pytest.mark.parametrize("border", SCIPY)
@pytest.mark.parametrize("taps", [1, 3, 15, 33])
@pytest.mark.parametrize("size", [(40, 37), (64, 51)])
def test_it_is_a_true_convolution(border, taps, size):
    generator = torch.Generator().manual_seed(taps)
    image = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    kernel = torch.rand(2, taps, taps, generator=generator, dtype=torch.float64)
    expected = [
        [reference(channel.numpy(), k.numpy(), mode=SCIPY[border]) for channel in photo]
        for photo, k in zip(image, kernel, strict=True)
    ]
    np.testing.assert_allclose(convolve(image, kernel, border), np.array(expected), rtol=0, atol=1e-9)


def test_a_fast_length_is_even_and_smooth():
    lengths = {n: fast_length(n) for n in range(1, 700)}
    assert {n: lengths[n] for n in (1, 17, 31, 160, 289, 513)} == {1: 2, 17: 18, 31: 32, 160: 160, 289: 300, 513: 540}
    assert all(n <= length < 1.3 * n + 2 and length % 2 == 0 for n, length in lengths.items())
