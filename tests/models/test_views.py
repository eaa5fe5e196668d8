"""Which parts of a photo are looked at, when it is looked at more than once."""

import torch

from rnr.models.views import is_mirrored, look


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
