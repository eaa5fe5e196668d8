from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from rnr.data import batches as batching
from rnr.data.batches import LARGEST, WHOLE, TrainBatches, Visit, WholePhotoBatches, seed_of
from rnr.data.dataset import PhotoDataset, collate
from rnr.data.photos import Photo, PhotoError
from rnr.data.rescale import Rescale


def numbered(height, width, offset=0):
    """Every pixel is told apart by its own color: red its row, green its column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, offset)], axis=-1).astype(np.uint8)


@pytest.fixture
def photos(tmp_path):
    """Four photos, two of one size, of which one is the deeper the more red it has: from 60 to 255, its row times 5."""
    sizes = [(40, 56), (33, 20), (40, 56), (9, 70)]
    for i, size in enumerate(sizes):
        Image.fromarray(numbered(*size, i)).save(tmp_path / f"{i}.png")
    Image.fromarray(5 * numbered(40, 56)[..., 0] + 60).save(tmp_path / "depth.png")
    return [Photo(tmp_path / f"{i}.png", f"{i}.png", tmp_path / "depth.png" if i == 0 else None) for i in range(4)]


def test_a_whole_photo_is_the_file_with_its_depth(photos):
    pixels, depth, index, seed = PhotoDataset(photos, seed=3)[Visit(0, 0, 0)]
    assert (pixels.dtype, depth.dtype) == (torch.uint8, torch.uint8)
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), numbered(40, 56))
    assert depth[0].equal(5 * pixels[0] + 60)
    assert (index, seed) == (0, seed_of(3, 0, "0.png"))


def test_a_crop_is_a_square_piece_of_the_photo_and_of_its_depth_alike(photos):
    for epoch in range(30):
        pixels, depth, *_ = PhotoDataset(photos, seed=0)[Visit(0, epoch, 24)]
        rows, columns, _ = pixels.int()
        assert pixels.shape == (3, 24, 24)
        assert depth[0].equal(5 * pixels[0] + 60)
        assert (rows.diff(dim=0) == 1).all()
        assert (columns.diff(dim=1) == columns[0, 1] - columns[0, 0]).all()
        assert abs(columns[0, 1] - columns[0, 0]) == 1


@pytest.mark.parametrize(("trim", "height", "width"), [(0, 40, 56), (5, 30, 46), (19, 2, 18), (24, 2, 8), (99, 2, 2)])
def test_what_is_cut_off_each_side_is_gone_from_photo_and_depth_alike(photos, trim, height, width):
    pixels, depth, *_ = PhotoDataset(photos, seed=0, trim=trim)[Visit(0, 0, 0)]
    top, left = (40 - height) // 2, (56 - width) // 2
    np.testing.assert_array_equal(pixels.permute(1, 2, 0), numbered(40, 56)[top : top + height, left : left + width])
    assert depth[0].equal(5 * pixels[0] + 60)


def test_crops_reach_every_border_and_are_mirrored_half_of_the_time(photos):
    photo_set = PhotoDataset(photos, seed=0, cache_bytes=10**6)
    crops = torch.stack([photo_set[Visit(0, epoch, 36)][0] for epoch in range(200)]).int()
    tops, lefts = crops[:, 0, 0, 0], crops[:, 1, 0].amin(dim=1)
    assert set(tops.tolist()) == set(range(5))
    assert set(lefts.tolist()) == set(range(21))
    mirrored = crops[:, 1, 0, 0] > crops[:, 1, 0, 1]
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.12)


def test_a_visit_depends_on_seed_epoch_and_name_alone(photos):
    def visit(photo_set, index, epoch):
        pixels, depth, _, seed = photo_set[Visit(index, epoch, 16)]
        return pixels, depth, seed

    plain = visit(PhotoDataset(photos, seed=1), 2, 5)
    reordered = PhotoDataset(photos[::-1], seed=1, cache_bytes=10**6)
    reordered[Visit(3, 9, 24)], reordered[Visit(1, 5, 24)]
    again = visit(reordered, 1, 5)
    assert plain[0].equal(again[0])
    assert plain[1].equal(again[1])
    assert plain[2] == again[2]
    others = [visit(PhotoDataset(photos, seed=2), 2, 5), visit(PhotoDataset(photos, seed=1), 2, 6)]
    assert len({plain[2], *(seed for _, _, seed in others)}) == 3
    assert not any(pixels.equal(plain[0]) for pixels, *_ in others)


@pytest.mark.parametrize("side", [16, 64, 200])
def test_a_photo_too_small_for_its_crop_is_repeated_by_reflection(photos, side):
    pixels, depth, *_ = PhotoDataset(photos, seed=0)[Visit(3, 0, side)]
    assert pixels.shape == (3, side, side)
    assert depth.shape == (1, side, side)
    rows, columns = pixels[0].int(), pixels[1].int()
    assert (rows.diff(dim=0).abs() <= 1).all()
    assert (columns.diff(dim=1).abs() <= 1).all()
    assert (rows == rows[:, :1]).all()
    assert (columns == columns[:1]).all()


def test_the_cache_changes_nothing_and_keeps_to_its_size(photos):
    plain, cached = PhotoDataset(photos, seed=0), PhotoDataset(photos, seed=0, cache_bytes=10_000)
    for index in (0, 1, 2, 3, 0, 2):
        for a, b in zip(plain[Visit(index, 1, 16)][:2], cached[Visit(index, 1, 16)][:2], strict=True):
            assert a.equal(b)
    photos[0].path.unlink()
    cached[Visit(0, 2, 16)]  # 8960 bytes: kept, so the file is not asked again
    photos[2].path.unlink()
    with pytest.raises(PhotoError, match=r"2\.png: no such file"):
        cached[Visit(2, 2, 16)]


def test_a_batch_holds_integers_in_the_order_of_its_visits(photos):
    photo_set = PhotoDataset(photos, seed=0)
    batch = collate([photo_set[Visit(index, 0, 16)] for index in (3, 1)])
    assert batch.photo.shape == (2, 3, 16, 16)
    assert batch.depth.shape == (2, 1, 16, 16)
    assert [tensor.dtype for tensor in batch] == [torch.uint8, torch.uint8, torch.int64, torch.int64]
    assert batch.index.tolist() == [3, 1]
    assert batch.seed.tolist() == [seed_of(0, 0, "3.png"), seed_of(0, 0, "1.png")]


def test_seeds_are_of_48_bits_and_stay_what_they_are():
    seeds = [seed_of("key", i) for i in range(1000)]
    assert len(set(seeds)) == 1000
    assert 2**47 < max(seeds) < 2**48
    assert seed_of(0, 1, "photo.png") == 166177105510265


def epoch_of(batches, epoch):
    batches.set_epoch(epoch)
    return list(batches)


@pytest.mark.parametrize("visits", [1, 3])
def test_every_photo_comes_once_a_visit_in_an_order_of_its_own(visits):
    batches = TrainBatches(10, 4, [32], seed=0, visits=visits)
    orders = []
    for epoch in range(3):
        plan = epoch_of(batches, epoch)
        assert len(batches) == len(plan) == -(-10 * visits // 4)
        assert [len(batch) for batch in plan[:-1]] == [4] * (len(plan) - 1)
        seen = [visit for batch in plan for visit in batch]
        looks = range(epoch * visits, (epoch + 1) * visits)
        assert Counter((visit.index, visit.epoch) for visit in seen) == Counter(
            (i, e) for i in range(10) for e in looks
        )
        orders += [tuple(v.index for v in seen if v.epoch == look) for look in looks]
    assert len(set(orders)) == 3 * visits


def test_the_order_follows_the_seed():
    first, second, third = (epoch_of(TrainBatches(10, 4, [32, 48], seed), 1) for seed in (0, 0, 1))
    assert first == second != third


def test_each_batch_takes_one_of_the_crops():
    plan = epoch_of(TrainBatches(200, 2, [32, 48, 64], seed=0), 0)
    assert all(len({visit.crop for visit in batch}) == 1 for batch in plan)
    counts = Counter(batch[0].crop for batch in plan)
    assert set(counts) == {32, 48, 64}
    assert min(counts.values()) > 15


SIZES = [(40, 60)] * 9 + [(60, 40)] * 6 + [(900, 1600)] * 3


def test_nearly_whole_photos_share_a_batch_with_their_size_alone():
    plan = epoch_of(TrainBatches(18, 4, [WHOLE], seed=0, visits=2, sizes=SIZES), 1)
    seen = Counter((visit.index, visit.epoch) for batch in plan for visit in batch)
    assert seen == Counter((index, epoch) for index in range(18) for epoch in (2, 3))
    assert sorted(len(batch) for batch in plan) == [2, 2, 4, 4, 4, 4, 4, 4, 4, 4]
    for batch in plan:
        (size,) = {SIZES[visit.index] for visit in batch}
        ((height, width),) = {visit.crop for visit in batch}
        (scale,) = {visit.scale for visit in batch}
        assert scale == 1 if max(size) == 60 else width == LARGEST and scale < 0.61
        assert 0.79 * size[0] <= height / scale <= 1.01 * size[0] and 0.79 * size[1] <= width / scale <= 1.01 * size[1]
    order = [SIZES[batch[0].index] for batch in plan]
    assert order != sorted(order) and order != sorted(order, reverse=True)


def test_squares_and_whole_photos_are_mixed_and_shown_at_other_sizes():
    rescale = Rescale(share=0.5, factor=(0.5, 2.0))
    plan = epoch_of(TrainBatches(180, 4, [32, WHOLE], 0, 2, rescale, [(40, 60)] * 180), 0)
    squares = [batch[0] for batch in plan if batch[0].crop == 32]
    whole = [batch[0] for batch in plan if batch[0].crop != 32]
    assert 30 < len(squares) < 60 and 30 < len(whole) < 60
    for visits in (squares, whole):
        assert 0.3 < sum(visit.scale != 1 for visit in visits) / len(visits) < 0.7
    assert all(0.79 * 40 <= visit.crop[0] / visit.scale <= 1.05 * 40 for visit in whole)


def test_whole_photos_are_dealt_out_in_equal_steps(monkeypatch):
    plans = []
    for rank in range(2):
        as_process(monkeypatch, rank, 2)
        plans.append(epoch_of(TrainBatches(18, 2, [16, WHOLE], seed=0, sizes=SIZES), 0))
    shapes = [[(len(batch), batch[0].crop) for batch in plan] for plan in plans]
    assert shapes[0] == shapes[1]
    for first, second in zip(*plans, strict=True):
        assert len(first) == 1 or not {visit.index for visit in first} & {visit.index for visit in second}
    seen = {visit.index for plan in plans for batch in plan for visit in batch}
    assert len(seen) >= 15  # of each size one may be left over this epoch


@pytest.mark.parametrize("visits", [1, 3])
def test_all_epochs_have_as_many_batches_as_the_first(visits):
    plans = [epoch_of(TrainBatches(18, 4, [16, WHOLE], 0, visits, sizes=SIZES), epoch) for epoch in range(12)]
    assert len({len(plan) for plan in plans}) == 1
    assert len({sum(map(len, plan)) for plan in plans}) > 1, "some looks were left out, or taken again"
    seen = Counter(visit.index for plan in plans for batch in plan for visit in batch)
    assert len(seen) == 18 and min(seen.values()) > 0.75 * 12 * visits
    for plan in plans:
        assert all({visit.epoch // visits for visit in batch} == {plans.index(plan)} for batch in plan)


def test_the_data_set_shows_what_a_batch_of_whole_photos_asks_for(photos):
    found = PhotoDataset(photos, seed=0, trim=2)
    assert found.sizes() == [(36, 52), (29, 16), (36, 52), (5, 66)]
    pixels, depth, *_ = found[Visit(0, 0, (30, 50))]
    assert pixels.shape == (3, 30, 50) and depth[0].equal(5 * pixels[0] + 60)
    assert found[Visit(0, 0, (15, 25), 0.5)][0].shape == (3, 15, 25)


def test_a_photo_that_cannot_be_read_has_no_size(photos):
    photos[1].path.write_bytes(b"no photo")
    assert PhotoDataset(photos, seed=0).sizes()[1] == (0, 0)
    with pytest.raises(PhotoError, match=r"1\.png"):
        PhotoDataset(photos, seed=0)[Visit(1, 0, (1, 1))]


def test_whole_photos_of_no_known_size_are_refused():
    with pytest.raises(ValueError, match="need to know their sizes"):
        TrainBatches(3, 2, [32, WHOLE], seed=0)


def as_process(monkeypatch, rank, world):
    monkeypatch.setattr(batching, "rank_and_world", lambda: (rank, world))


def test_processes_share_the_photos_and_take_equal_steps(monkeypatch):
    plans = []
    for rank in range(3):
        as_process(monkeypatch, rank, 3)
        plans.append(epoch_of(TrainBatches(20, 4, [32, 48], seed=0), 2))
    indices = [visit.index for plan in plans for batch in plan for visit in batch]
    assert len(indices) == len(set(indices)) == 18  # two are left over this epoch
    shapes = [[(len(batch), batch[0].crop) for batch in plan] for plan in plans]
    assert shapes[0] == shapes[1] == shapes[2]


def test_fewer_photos_than_processes_still_train(monkeypatch):
    as_process(monkeypatch, 2, 8)
    assert len(epoch_of(TrainBatches(3, 4, [32], seed=0), 0)) == 1


@pytest.mark.parametrize("count", [3, 7])
def test_where_a_size_has_fewer_photos_than_there_are_processes_none_gets_more_than_a_batch(monkeypatch, count):
    seen = set()
    for rank in range(8):
        as_process(monkeypatch, rank, 8)
        ((*batch,),) = epoch_of(TrainBatches(count, 2, [WHOLE], seed=0, sizes=[(40, 40)] * count), 0)
        assert len(batch) == 2
        seen |= {visit.index for visit in batch}
    assert len(seen) == count


def test_what_can_only_be_cut_is_shown_nearly_whole_however_large():
    batches = TrainBatches(4, 2, [WHOLE], seed=0, sizes=[(1500, 2000)] * 4, largest=None)
    for height, width in (visit.size for batch in epoch_of(batches, 0) for visit in batch):
        assert 0.8 * 1500 <= height <= 1500 and 0.8 * 2000 <= width <= 2000


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_whole_photos_come_once_and_share_a_batch_with_their_size_alone(photos, batch_size):
    batches = WholePhotoBatches(photos, batch_size)
    visits = [visit for batch in batches for visit in batch]
    assert sorted(visit.index for visit in visits) == [0, 1, 2, 3]
    assert {(visit.epoch, visit.crop) for visit in visits} == {(0, 0)}
    assert len(batches) == (4 if batch_size == 1 else 3)
    assert list(batches) == list(batches)
    for batch in batches:
        collate([PhotoDataset(photos, 0)[visit] for visit in batch])


def test_processes_share_the_whole_photos(photos, monkeypatch):
    seen = []
    for rank in range(2):
        as_process(monkeypatch, rank, 2)
        seen += [visit.index for batch in WholePhotoBatches(photos, 1) for visit in batch]
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_broken_photo_is_named_when_it_is_read_and_not_before(photos):
    photos[1].path.write_bytes(b"broken")
    batches = WholePhotoBatches(photos, 4)
    assert [visit.index for batch in batches for visit in batch if len(batch) == 1] == [1, 3]
    with pytest.raises(PhotoError, match=r"1\.png: not an image"):
        PhotoDataset(photos, 0)[Visit(1, 0, 0)]
