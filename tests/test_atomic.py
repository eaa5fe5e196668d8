import pytest

from rnr.atomic import whole


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "figure.png"
    with whole(path) as place:
        place.write_text("first")
        assert not path.exists() and place.suffix == ".part", "no photo, if it is left by a kill"
    with pytest.raises(OSError, match="full"), whole(path) as place:
        place.write_text("hal")
        raise OSError("the disk is full")
    assert [each.name for each in tmp_path.iterdir()] == ["figure.png"] and path.read_text() == "first"


def test_two_that_write_one_file_do_not_meet(tmp_path):
    """Not even where they have the number of a process in common, on machines of their own."""
    with whole(tmp_path / "a.txt") as one:
        one.write_text("one")
        with whole(tmp_path / "a.txt") as two:
            two.write_text("two")
        assert (tmp_path / "a.txt").read_text() == "two"
    assert (tmp_path / "a.txt").read_text() == "one" and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_of_what_was_not_even_begun(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())
