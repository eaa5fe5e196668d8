"""Which parts of a photo are looked at, when it is looked at more than once."""

import torch

from rnr.models.views import Views, is_mirrored, look


def test_looks_leave_out_one_corner_each_and_every_other_one_is_mirrored():
    images = torch.arange(3 * 24 * 36, dtype=torch.float32).view(1, 3, 24, 36)
    assert look(images, 0) is images
    parts = {number: look(images, number) for number in range(1, 6)}
    assert all(part.shape == (1, 3, 22, 33) for part in parts.values())
    assert torch.equal(parts[1], images[..., 2:, 3:]) and torch.equal(parts[3], images[..., 2:, :33])
    assert torch.equal(parts[2].flip(-1), images[..., :22, :33]) and torch.equal(parts[4].flip(-1), images[..., :22, 3:])
    assert torch.equal(parts[5].flip(-1), parts[1]), "no look is taken twice"
    assert [is_mirrored(number) for number in range(5)] == [False, False, True, False, True]
    assert look(images[..., :1, :1], 2).shape == (1, 3, 1, 1)


def test_a_photo_is_seen_whole_however_narrow_it_is():
    views = Views(size=None, tiles=0, min_pixels=64 * 64, max_pixels=512 * 512)
    for height, width in ((1, 3000), (3000, 1), (2, 401), (1, 1)):
        seen = views.take(torch.rand(1, 3, height, width), 32)
        rows, columns = seen.shape[-2:]
        assert rows % 32 == columns % 32 == 0 and rows * columns <= 512 * 512
        assert (rows < columns) == (height < width) and seen.isfinite().all()
