"""Published sets as they unpack. Only names matter here, so the photos are empty files."""

import pytest

from rnr.data.layouts import OTS, RESIDE, photos_in, photos_of
from rnr.data.photos import PhotoError

ITS = [f"{i}.png" for i in range(1, 1400)]
SOTS = [f"{i}.png" for i in range(1400, 1450)]
OUTDOOR = [f"{7 * i % 9000:04d}.jpg" for i in range(1, 2062)]


def touch(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def reside(tmp_path):
    touch(tmp_path / "ITS/clear", ITS)
    touch(tmp_path / "ITS/hazy", ["1_1_0.90179.png"])
    touch(tmp_path / "ITS/trans", ["1_1.png", "1_2.png", "11_1.png"])
    touch(tmp_path / "SOTS/indoor/gt", SOTS)
    touch(tmp_path / "SOTS/outdoor/gt", ["0001.png"])
    return tmp_path


def test_reside_has_the_splits_of_the_paper(reside):
    train, test = (photos_of(f"reside:{reside}", split) for split in ("train", "test"))
    assert [photo.name for photo in train] == ITS
    assert [photo.name for photo in test] == SOTS
    assert {photo.path.parent for photo in test} == {reside / "SOTS/indoor/gt"}


def test_a_photo_of_its_gets_its_own_transmission(reside):
    photos = {photo.name: photo.depth for photo in photos_of(f"reside:{reside}", "train")}
    assert photos["1.png"] == reside / "ITS/trans/1_1.png"
    assert photos["11.png"] == reside / "ITS/trans/11_1.png"
    assert photos["2.png"] is None


def test_a_depth_map_of_ones_own_comes_first(reside):
    touch(reside / "ITS/depth", ["1.png"])
    assert photos_of(f"reside:{reside}", "train")[0].depth == reside / "ITS/depth/1.png"


@pytest.mark.parametrize("folder", ["RESIDE/ITS_v2/clear", "ITS/train/ITS_clear", "clear"])
def test_its_is_found_wherever_it_usually_lies(tmp_path, folder):
    touch(tmp_path / folder, ITS)
    assert len(RESIDE.photos(tmp_path, "train")) == 1399


@pytest.mark.parametrize("folder", ["SOTS/indoor/clear", "SOTS/indoor/nyuhaze500/gt", "indoor/gt"])
def test_so_is_sots(tmp_path, folder):
    touch(tmp_path / folder, SOTS)
    assert len(RESIDE.photos(tmp_path, "test")) == 50


def test_of_ots_the_last_200_by_name_are_the_test_set(tmp_path):
    touch(tmp_path / "OTS_BETA/clear", OUTDOOR)
    touch(tmp_path / "OTS_BETA/depth", ["0007.mat"])
    train, test = (photos_of(f"ots:{tmp_path}", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1861, 200)
    assert [photo.name for photo in train + test] == sorted(OUTDOOR)
    assert {photo.name: photo.depth for photo in train}["0007.jpg"] == tmp_path / "OTS_BETA/depth/0007.mat"


def test_a_set_that_is_not_complete_names_what_is_missing(reside):
    for name in ("3.png", "700.png"):
        (reside / "ITS/clear" / name).unlink()
    with pytest.raises(
        PhotoError, match=r"expected 1399 photos, 1.png to 1399.png; 2 are missing, 3.png, 700.png; found"
    ):
        photos_of(f"reside:{reside}", "train")


def test_so_does_another_number_of_outdoor_photos(tmp_path):
    touch(tmp_path / "clear", OUTDOOR[:-1])
    with pytest.raises(
        PhotoError, match=r"expected 2061 photos, .* last 200 by name .*; found 0002.jpg, .*and 2054 more"
    ):
        OTS.photos(tmp_path, "test")


def test_a_wrong_root_says_what_was_expected_and_what_is_there(tmp_path):
    touch(tmp_path / "holiday", ["beach.jpg"])
    with pytest.raises(
        PhotoError, match=r"not reside \(test\) .*expected SOTS/indoor/gt/ or .* in it; found holiday/$"
    ):
        photos_of(f"reside:{tmp_path}", "test")
    with pytest.raises(PhotoError, match="found an empty folder"):
        (tmp_path / "empty").mkdir()
        photos_of(f"ots:{tmp_path / 'empty'}", "train")
    with pytest.raises(PhotoError, match="no such folder of ots"):
        photos_of(f"ots:{tmp_path / 'none'}", "train")


def test_a_published_set_has_no_split_but_its_own(reside):
    with pytest.raises(PhotoError, match="no split 'val'; it has train, test"):
        photos_of(f"reside:{reside}", "val")


def test_hazy_photos_are_not_taken_for_clean_ones(reside):
    with pytest.raises(
        PhotoError, match=f"ITS/ holds hazy photos beside clean ones; name reside:{reside} or .*ITS/clear"
    ):
        photos_of(str(reside), "train")
    assert len(photos_of(str(reside / "ITS/clear"), "train")) == 1399


def test_a_folder_of_ones_own_or_a_single_file_stays_as_it_is(tmp_path):
    touch(tmp_path / "mine/trip", ["b.jpg", "a.png"])
    assert [photo.name for photo in photos_of(str(tmp_path / "mine"), "train")] == ["trip/a.png", "trip/b.jpg"]
    assert [photo.name for photo in photos_of(str(tmp_path / "mine/trip/b.jpg"), "train")] == ["b.jpg"]


def test_scenes_are_folders_and_begin_the_names_of_their_photos(tmp_path):
    touch(tmp_path / "bridge", ["1.jpg", "2.jpg"])
    touch(tmp_path / "square", ["1.jpg"])
    names = [photo.name for photo in photos_of(f"scenes:{tmp_path}", "predict")]
    assert names == ["bridge/1.jpg", "bridge/2.jpg", "square/1.jpg"]
    touch(tmp_path, ["stray.jpg"])
    with pytest.raises(PhotoError, match=r"expected a folder a scene, found photos outside of one: stray\.jpg"):
        photos_of(f"scenes:{tmp_path}", "predict")


def test_names_of_several_sources_stay_apart(tmp_path):
    touch(tmp_path / "a", ["1.jpg"])
    touch(tmp_path / "b", ["1.jpg"])
    found = photos_in([str(tmp_path / "a"), str(tmp_path / "b")], "train")
    assert [[photo.name for photo in photos] for photos in found] == [["0/1.jpg"], ["1/1.jpg"]]


def test_a_built_set_is_no_folder_of_photos(tmp_path):
    touch(tmp_path, ["dataset.json", "1.png"])
    with pytest.raises(PhotoError, match="a built set, where clean photos"):
        photos_of(str(tmp_path), "predict")
