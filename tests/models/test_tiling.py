import itertools

import pytest
import torch
import torch.nn.functional as F

from rnr.models.tiling import tiled, watched, windows

SIZES = [(1, 1), (7, 40), (32, 32), (33, 32), (33, 61), (100, 45), (129, 131)]
TILES = [(32, 8), (32, 0), (17, 5), (32, 31), (9, 4)]


def photo(height, width):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_a_function_that_changes_nothing_returns_the_photo(size, tile, overlap):
    image = photo(*size)
    torch.testing.assert_close(tiled(lambda piece, window: piece, image, tile, overlap), image)


@pytest.mark.parametrize(("tile", "overlap"), TILES)
@pytest.mark.parametrize("length", [1, 9, 31, 32, 33, 50, 64, 257])
def test_windows_cover_the_photo_and_share_at_least_the_overlap(length, tile, overlap):
    strips = [rows for rows, columns in windows(length, 1, tile, overlap)]
    assert all(0 <= strip.start < strip.stop <= length for strip in strips)
    assert all(strip.stop - strip.start == min(tile, length) for strip in strips)
    assert (strips[0].start, strips[-1].stop) == (0, length)
    for above, below in itertools.pairwise(strips):
        assert above.start < below.start
        assert above.stop - below.start >= overlap


def test_windows_go_along_both_sides():
    covered = torch.zeros(50, 70)
    for rows, columns in windows(50, 70, 32, 8):
        covered[rows, columns] += 1
    assert covered.min() == 1
    assert covered.max() == 4
    assert len(list(windows(50, 70, 32, 8))) == 2 * 3


def test_each_tile_is_told_its_window():
    image = photo(50, 70)

    def check(piece, window):
        assert piece.equal(image[..., window[0], window[1]])
        return piece

    tiled(check, image, 32, 8)


def test_a_photo_that_fits_one_tile_is_handed_over_as_it_is():
    image = photo(32, 20)
    seen = []
    out = tiled(lambda piece, window: seen.append((piece is image, window)) or piece + 1, image, 32, 8)
    assert seen == [(True, (slice(0, 32), slice(0, 20)))]
    assert out.equal(image + 1)


@pytest.mark.parametrize("size", [(50, 70), (129, 33)])
def test_a_local_function_leaves_no_seams(size):
    def blur(piece, window=None):
        return F.avg_pool2d(F.pad(piece, (1, 1, 1, 1), mode="replicate"), 3, stride=1)

    image = photo(*size)
    whole, pieces = blur(image), tiled(blur, image, 32, 16)
    # A tile's outermost pixel sees its own border, but weighs little.
    error = (pieces - whole).abs()
    assert error.max() < 0.1
    assert error.mean() < 0.003
    alone = (16 * (blur(image[..., :32, :]) - whole[..., :32, :]).abs()).max()
    assert error.max() < alone


def test_neighbours_that_disagree_are_blended_linearly():
    image = torch.zeros(1, 1, 1, 48, dtype=torch.float64)
    out = tiled(lambda piece, window: torch.full_like(piece, float(window[1].start > 0)), image, 32, 16)[0, 0, 0]
    assert out[:16].eq(0).all()
    assert out[32:].eq(1).all()
    steps = out[15:33].diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / 17))


def test_answers_may_be_larger_than_their_tiles_and_have_other_channels():
    image = photo(50, 70)[:, :2].float()

    def grow(piece, window):
        return F.interpolate(piece[:, :1], scale_factor=4, mode="nearest").bfloat16()

    out = tiled(grow, image, 32, 8, scale=4)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), grow(image, None).float(), rtol=2**-8, atol=0)


def test_gradient_reaches_every_pixel():
    image = photo(50, 40).requires_grad_()
    tiled(lambda piece, window: 2 * piece, image, 32, 8).sum().backward()
    torch.testing.assert_close(image.grad, torch.full_like(image, 2))


@pytest.mark.parametrize(("tile", "overlap"), [(32, 32), (32, 40), (32, -1), (0, 0)])
def test_an_overlap_that_leaves_no_room_is_refused(tile, overlap):
    with pytest.raises(ValueError, match=f"overlap must lie within \\[0, tile\\), got {overlap} and a tile of {tile}"):
        tiled(lambda piece, window: piece, photo(50, 40), tile, overlap)


def test_tiles_are_told_of_where_there_are_several():
    told = []
    with watched(lambda *numbers: told.append(numbers)):
        tiled(lambda tile, window: tile, torch.rand(1, 3, 20, 50), 20, 5)
        tiled(lambda tile, window: tile, torch.rand(1, 3, 20, 20), 20, 5)
    tiled(lambda tile, window: tile, torch.rand(1, 3, 20, 50), 20, 5)
    assert told == [(1, 3), (2, 3), (3, 3)]
