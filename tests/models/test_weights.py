import pytest

from rnr.models import weights
from rnr.models.weights import check, content, locate


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "package"


def model(folder, name="config.json"):
    folder.mkdir(parents=True)
    (folder / name).write_text("{}")
    return str(folder)


@pytest.mark.parametrize("name", ["config.json", "model_index.json"])
def test_a_folder_with_a_model_is_found(tmp_path, name):
    folder = model(tmp_path / "mine", name)
    assert locate(folder) == folder
    assert locate([folder]) == folder


def test_shipped_names_are_folders_of_the_package(shipped):
    folder = model(shipped / "restorer")
    assert locate("shipped/restorer") == folder


def test_the_first_that_is_there_counts(tmp_path, shipped):
    shipped_one = model(shipped / "restorer")
    assert locate(["runs/best", "shipped/restorer"]) == shipped_one
    trained = model(tmp_path / "runs/best")
    assert locate(["runs/best", "shipped/restorer"]) == "runs/best"
    assert locate([trained, "shipped/restorer"]) == trained


def test_a_folder_without_a_model_does_not_count(tmp_path, shipped):
    (tmp_path / "empty").mkdir()
    assert locate(["empty", "shipped/restorer", model(shipped / "other")]) == str(shipped / "other")


def test_a_public_name_is_taken_as_it_is_if_it_comes_last(tmp_path):
    assert locate("Qwen/Qwen3-VL-8B-Instruct") == "Qwen/Qwen3-VL-8B-Instruct"
    assert locate(["runs/best", "owner/model"]) == "owner/model"
    assert locate(["owner/model", model(tmp_path / "mine")]) == str(tmp_path / "mine")


def test_a_folder_of_ones_own_comes_before_a_public_name(tmp_path):
    model(tmp_path / "owner/model")
    assert locate("owner/model") == "owner/model"
    (tmp_path / "owner/empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no weights in owner/empty"):
        locate("owner/empty")


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "/a/b", "shipped/none", "runs/none", "a/b/c"])
def test_what_is_not_there_is_named(name):
    with pytest.raises(FileNotFoundError, match=f"no weights in {name}"):
        locate(name)


def test_all_that_were_tried_are_named():
    with pytest.raises(FileNotFoundError, match="no weights in runs/none nor in shipped/none"):
        locate(["runs/none", "shipped/none"])


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("config.json", '{"class": "rnr.models.compact.CompactRestorer"}', "rnr.models.compact.CompactRestorer"),
        ("config.json", '{"model_type": "qwen3_vl"}', "qwen3_vl"),
        ("model_index.json", '{"_class_name": "QwenImageEditPipeline"}', "QwenImageEditPipeline"),
    ],
)
def test_a_folder_says_whose_weights_it_holds(tmp_path, file, text, name):
    (tmp_path / file).write_text(text)
    assert content(tmp_path) == name
    check(str(tmp_path), ["another", name], "thing")
    with pytest.raises(ValueError, match=f"{tmp_path}: holds weights of {name}, not of a thing"):
        check(str(tmp_path), ["another"], "thing")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"text"', "null", '{"class": ""}'])
@pytest.mark.parametrize("file", ["config.json", "model_index.json"])
def test_a_configuration_that_says_nothing_is_named(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}: its configuration cannot be read"):
        content(tmp_path)


def test_of_a_public_name_nothing_is_known_yet():
    check("owner/model", ["something"], "thing")
