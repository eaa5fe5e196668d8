"""`rnr depth`, as a person uses it: files where photos find them, once, and one clear line for each that cannot be had."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DPTConfig, DPTForDepthEstimation, GPT2Config
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from rnr.data.depth import classical, depth_of
from rnr.data.photos import find_photos, open_photo
from rnr.data_commands import depth


@pytest.fixture
def photos(tmp_path):
    """Three photos in two folders, two of them of one name."""
    root = tmp_path / "photos"
    for i, name in enumerate(("1.png", "a/1.png", "a/2.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40, 30 + i, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / name)
    return root


def pixels_of(photo):
    return torch.from_numpy(open_photo(photo.path)).permute(2, 0, 1)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("place", ["depth", "photos/depth"])
def test_depth_is_written_where_photos_find_it(photos, tmp_path, place):
    assert depth([str(photos), "-o", str(tmp_path / place)]) == 0
    assert files(tmp_path / place) == ["1.png", "a/1.png", "a/2.png"]
    found = find_photos(photos)
    assert [photo.depth.relative_to(tmp_path / place).as_posix() for photo in found] == files(tmp_path / place)
    for photo in found:
        pixels = pixels_of(photo)
        assert depth_of(photo, pixels).equal(classical(photo, pixels).clamp(min=1))


def test_what_is_there_is_kept_and_what_is_missing_is_made(photos, tmp_path, capsys):
    out = tmp_path / "depth"
    depth([str(photos), "-o", str(out)])
    first = (out / "1.png").read_bytes()
    (out / "1.png").write_bytes(b"mine")
    (out / "a/2.png").unlink()
    (out / "a/1.png").rename(out / "a/1.npy")  # measured depth, in another format
    capsys.readouterr()
    assert depth([str(photos), "-o", str(out)]) == 0
    assert files(out) == ["1.png", "a/1.npy", "a/2.png"]
    assert (out / "1.png").read_bytes() == b"mine" != first
    assert capsys.readouterr().out == f"{out}: depth of 3 of 3 photos, of which 2 were there already\n"


def test_a_bad_photo_costs_one_line(photos, tmp_path, capsys):
    (photos / "a/1.png").write_bytes(b"no photo")
    Image.new("RGB", (8, 8)).save(photos / "1.jpg")
    out = tmp_path / "depth"
    assert depth([str(photos), str(tmp_path / "nowhere"), "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert files(out) == ["1.png", "a/2.png"]
    assert captured.err.splitlines() == [
        f"error: {photos / '1.png'}: its depth would be that of {photos / '1.jpg'}, {out / '1.png'}; give them other names",
        f"error: {photos / 'a/1.png'}: not an image that can be read (BMP, JPEG, PNG, PPM, TIFF, WEBP can)",
        f"error: {tmp_path / 'nowhere'}: no such file",
    ]
    assert captured.out == f"{out}: depth of 2 of 5 photos\n"


@pytest.mark.parametrize("place", [".", "maps"])
def test_depth_is_not_laid_among_the_photos(photos, capsys, place):
    before = files(photos)
    with pytest.raises(SystemExit) as stop:
        depth([str(photos), "-o", str(photos / place)])
    assert stop.value.code == 2 and files(photos) == before
    assert "would be taken for photos; name it depth" in capsys.readouterr().err


def test_a_model_may_tell_depth_and_the_user_which_way(photos, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    neck = {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
    torch.manual_seed(0)
    model = DPTForDepthEstimation(DPTConfig(image_size=32, initializer_range=0.3, **sizes, **neck))
    for part in (model, DPTImageProcessorPil(size={"height": 32, "width": 32})):
        part.save_pretrained(tmp_path / "model")
    for name, more in (("known", []), ("inverse", ["--inverse"]), ("metric", ["--metric"])):
        assert (
            depth([str(photos / "1.png"), "-o", str(tmp_path / name), "--model", str(tmp_path / "model"), *more]) == 0
        )
    known, inverse, metric = (np.asarray(Image.open(tmp_path / n / "1.png")) for n in ("known", "inverse", "metric"))
    assert known.shape == (40, 30) and known.max() == metric.max() == 255
    assert (known == inverse).all() and np.corrcoef(known.ravel(), metric.ravel())[0, 1] < -0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inverse"], "--inverse and --metric say what a --model tells"),
        (["--model", "runs/nowhere"], "no weights in runs/nowhere"),
        (["--model", "{}/text"], "holds weights of gpt2, not of a depth estimator"),
    ],
)
def test_what_cannot_be_is_said_at_once(photos, tmp_path, capsys, arguments, message):
    GPT2Config().save_pretrained(tmp_path / "text")
    with pytest.raises(SystemExit) as stop:
        depth([str(photos), "-o", str(tmp_path / "depth"), *(a.format(tmp_path) for a in arguments)])
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "depth").exists()
