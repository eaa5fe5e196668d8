import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from rnr.data import sample
from rnr.data.build import Mismatch, build
from rnr.data.built import Header, index_of, open_set
from rnr.data.photos import PhotoError, find_photos
from rnr.data.sample import Recipe
from rnr.degradation import Degrader

PAPER = Degrader()


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_both_forms_hold_the_same(built_forms):
    folders, shards = map(open_set, built_forms)
    assert folders.keys == shards.keys and len(folders.keys) == 12 and len(shards.shards) > 2
    for key in folders.keys:
        assert folders.read(key, sample.FILES) == shards.read(key, sample.FILES)


@pytest.mark.parametrize("shard_mb", [0, 0.04])
def test_workers_change_no_byte(built_forms, make_set, two_looks, tmp_path, shard_mb):
    make_set(tmp_path / "set", two_looks, shard_mb, workers=2)
    assert contents(tmp_path / "set") == contents(built_forms[bool(shard_mb)])


@pytest.mark.parametrize("shard_mb", [0, 0.04])
@pytest.mark.parametrize("stop", [1, 5, 12])
def test_a_build_that_broke_off_goes_on_to_the_same_bytes(
    built_forms, make_set, small_photos, two_looks, tmp_path, shard_mb, stop
):
    class Stop(BaseException):
        pass

    def report(error):
        nonlocal stop
        stop -= 1
        if not stop:
            raise Stop

    with pytest.raises(Stop):
        build(find_photos(small_photos), two_looks, tmp_path / "set", shard_mb, 0, report)
    (tmp_path / "set/000003-000.part").mkdir()
    (tmp_path / "set/shard-000001.tar.part").write_bytes(b"half")
    with pytest.raises(PhotoError, match="not whole yet"):
        open_set(tmp_path / "set")
    make_set(tmp_path / "set", two_looks, shard_mb)
    assert contents(tmp_path / "set") == contents(built_forms[bool(shard_mb)])


@pytest.mark.parametrize("files", [1, 8, 20])
def test_so_does_one_that_broke_off_within_a_sample(built_forms, make_set, two_looks, tmp_path, monkeypatch, files):
    write = Path.write_bytes

    def half(path, content):
        nonlocal files
        files -= 1
        write(path, content if files else content[: len(content) // 2])
        if not files:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        make_set(tmp_path / "set", two_looks)
    monkeypatch.undo()
    make_set(tmp_path / "set", two_looks)
    assert contents(tmp_path / "set") == contents(built_forms[0])


@pytest.mark.parametrize("shard_mb", [0, 0.04])
def test_a_photo_that_cannot_be_used_is_left_out_and_named(make_set, small_photos, tmp_path, shard_mb):
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / f"in/{i}.png").write_bytes((small_photos / f"{i}.png").read_bytes() if i != 1 else b"broken")
    errors = make_set(tmp_path / "set", Recipe("paper", PAPER), shard_mb, photos=tmp_path / "in")
    assert len(errors) == 1 and "in/1.png" in errors[0]
    assert open_set(tmp_path / "set").keys == ("000000-000", "000002-000")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("paper", PAPER, seed=4), "seed 3 there, 4 here"),
        (Recipe("paper", PAPER, seed=3, looks=3), "looks 2 there, 3 here"),
        (Recipe("paper", Degrader(clean=0.5), seed=3, looks=2), "degrader.clean 0.0 there, 0.5 here"),
    ],
)
def test_other_settings_do_not_go_into_the_same_folder(built_forms, make_set, recipe, message):
    with pytest.raises(Mismatch, match=message):
        make_set(built_forms[0], recipe)


def test_nor_do_other_photos_or_a_set_into_a_foreign_folder(built_forms, make_set, two_looks, small_photos, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.png").write_bytes((small_photos / "0.png").read_bytes())
    with pytest.raises(Mismatch, match="6 photos there, 1 here"):
        make_set(built_forms[0], two_looks, photos=tmp_path / "in")
    with pytest.raises(Mismatch, match="neither empty nor a set"):
        make_set(tmp_path / "in", two_looks)
    shutil.copytree(small_photos, tmp_path / "others")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "others/1.png")
    with pytest.raises(Mismatch, match="photos of these names, but other files, depth or scenes"):
        make_set(built_forms[0], two_looks, photos=tmp_path / "others")


@pytest.mark.parametrize("name", ["movie.mkv.part", "folder.part", "000-0.part"])
def test_what_others_have_begun_stays(make_set, tmp_path, name):
    (tmp_path / "set" / name).mkdir(parents=True)
    with pytest.raises(Mismatch, match="neither empty nor a set"):
        make_set(tmp_path / "set", Recipe("paper", PAPER))
    assert (tmp_path / "set" / name).is_dir()


@pytest.mark.parametrize("lost", [(0,), (1,), (1, 3), (1, 2), "last", "all"])
def test_shards_that_were_deleted_are_made_anew_and_no_other_is_touched(
    built_forms, make_set, two_looks, tmp_path, lost
):
    shutil.copytree(built_forms[1], tmp_path / "set")
    shards = open_set(tmp_path / "set").shards
    assert len(shards) > 4
    numbers = {"last": [len(shards) - 1], "all": range(len(shards))}.get(lost, lost)
    for number in numbers:
        shards[number].unlink()
    kept = {path: path.stat().st_mtime_ns for path in shards if path.exists()}
    assert make_set(tmp_path / "set", two_looks, 0.04) == []
    assert contents(tmp_path / "set") == contents(built_forms[1])
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_photo_that_became_readable_goes_into_a_shard_that_is_made_anew(small_photos, make_set, tmp_path):
    """Between two shards there is room for one, however much is to go into it."""
    shutil.copytree(small_photos, tmp_path / "photos")
    whole = (tmp_path / "photos/2.png").read_bytes()
    (tmp_path / "photos/2.png").write_bytes(whole[:40] + bytes(len(whole) - 40))
    recipe = Recipe("paper", PAPER)
    assert len(make_set(tmp_path / "set", recipe, 0.02, photos=tmp_path / "photos")) == 1
    shards = open_set(tmp_path / "set").shards
    behind = next(i for i, shard in enumerate(shards) if "000003-000" in index_of(shard))
    last = shards[-1].read_bytes()
    (tmp_path / "photos/2.png").write_bytes(whole)
    shards[behind].unlink()
    assert make_set(tmp_path / "set", recipe, 0.02, photos=tmp_path / "photos") == []
    again = open_set(tmp_path / "set")
    assert len(again.keys) == 6 and len(again.shards) == len(shards) and shards[-1].read_bytes() == last


def test_a_copy_of_a_shard_and_one_without_samples_are_no_part_of_it(built_forms, make_set, two_looks, tmp_path):
    shutil.copytree(built_forms[1], tmp_path / "set")
    shutil.copy(tmp_path / "set/shard-000000.tar", tmp_path / "set/shard-000000 (copy).tar")
    with tarfile.open(tmp_path / "set/shard-000099.tar", "w"):
        pass
    (tmp_path / "set/shard-000001.tar").unlink()
    assert make_set(tmp_path / "set", two_looks, 0.04) == []
    made, there = (contents(root) for root in (tmp_path / "set", built_forms[1]))
    assert {name: made[name] for name in there} == there
    again = open_set(tmp_path / "set")
    assert len(again.keys) == 12 and not any("copy" in path.name for path in again.shards), "nor read twice as a stream"


@pytest.mark.parametrize("shard_mb", [0, 0.04])
def test_what_else_lies_in_the_folder_is_no_sample(built_forms, make_set, two_looks, tmp_path, shard_mb):
    shutil.copytree(built_forms[bool(shard_mb)], tmp_path / "set")
    (tmp_path / "set/.ipynb_checkpoints").mkdir()
    make_set(tmp_path / "set", two_looks, shard_mb)
    assert len(open_set(tmp_path / "set").keys) == 12


def test_a_set_that_lost_samples_is_refused(make_set, tmp_path):
    make_set(tmp_path / "set", Recipe("paper", PAPER))
    for file in (tmp_path / "set/000002-000").iterdir():
        file.unlink()
    (tmp_path / "set/000002-000").rmdir()
    with pytest.raises(PhotoError, match=r"5 samples are there, dataset\.json tells of 6"):
        open_set(tmp_path / "set")
    (tmp_path / "set/dataset.json").write_text("{}")
    with pytest.raises(PhotoError, match="not the description of a built set"):
        Header.load(tmp_path / "set")


@pytest.mark.parametrize("change", [{"looks": 0}, {"looks": 1000}, {"size": 8}, {"crop": -1}])
def test_recipes_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must lie within"):
        Recipe("paper", PAPER, **change)
