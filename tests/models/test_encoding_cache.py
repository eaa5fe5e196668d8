import os
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_edit import make, photos
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rnr.diagnosis import Diagnosis, Fog
from rnr.diagnosis.prompt import EXAMPLE
from rnr.models import encoding_cache
from rnr.models.encoding_cache import EncodingCache, identity_of, is_spread, key_of, precision_of
from rnr.stages.sharding import shard


def tensors(*values: float) -> list[torch.Tensor]:
    return [torch.full((250,), float(value)) for value in values]


def fetch(cache: EncodingCache, keys: list[str], **settings):
    """What comes, and for which places it had to be computed. A key's value is its first letter's number."""
    asked = []
    found = cache.fetch(
        keys, lambda places: asked.extend(places) or tensors(*(ord(keys[i][0]) for i in places)), **settings
    )
    return [int(tensor[0]) for tensor in found], asked


def test_only_what_is_missing_is_computed(tmp_path):
    cache = EncodingCache(str(tmp_path / "new"))
    assert fetch(cache, ["aa", "bb"]) == ([97, 98], [0, 1])
    assert fetch(cache, ["bb", "cc", "aa"]) == ([98, 99, 97], [1])
    assert fetch(EncodingCache(str(tmp_path / "new")), ["aa", "bb", "cc"]) == ([97, 98, 99], [])


@pytest.mark.parametrize("content", [b"", b"half a fi", None])
def test_a_file_that_cannot_be_read_is_made_again(tmp_path, content):
    cache = EncodingCache(str(tmp_path))
    fetch(cache, ["aa"])
    file = tmp_path / "aa" / "aa.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10] if content is None else content)
    assert fetch(cache, ["aa"]) == ([97], [0])
    assert file.read_bytes() == whole


def test_a_killed_writer_leaves_no_file_that_counts(tmp_path, monkeypatch):
    def killed(tensors, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(encoding_cache, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        fetch(EncodingCache(str(tmp_path)), ["aa"])
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.safetensors"))
    assert fetch(EncodingCache(str(tmp_path)), ["aa"]) == ([97], [0])


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = EncodingCache(str(tmp_path), gigabytes=10_000e-9)  # room for nine files of 1,080 bytes
    for letter in "abcdefgh":
        fetch(cache, [2 * letter])
        time.sleep(0.01)
    fetch(cache, ["aa"])
    for letter in "ijklm":
        time.sleep(0.01)
        fetch(cache, [2 * letter])
    kept = {file.stem[0] for file in tmp_path.rglob("*.safetensors")}
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= 10_000
    assert {"a", "m", "l"} <= kept
    assert not kept & {"b", "c"}


def test_several_processes_keep_a_folder_below_the_limit(tmp_path):
    caches = [EncodingCache(str(tmp_path), gigabytes=20_000e-9) for _ in range(6)]
    for i in range(60):
        fetch(caches[i % 6], [f"{i:02d}"])
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")) <= 20_000


def test_what_another_process_is_writing_is_left_to_it(tmp_path):
    (tmp_path / "xx").mkdir()
    for name, age in (("new", 60), ("old", 7200)):
        file = tmp_path / "xx" / f"{name}.1.part"
        file.write_bytes(b"half")
        os.utime(file, (time.time() - age,) * 2)
    cache = EncodingCache(str(tmp_path), gigabytes=3000e-9)
    for letter in "abc":
        fetch(cache, [2 * letter])
    assert [file.name for file in (tmp_path / "xx").iterdir()] == ["new.1.part"]


def test_what_a_killed_process_left_goes_before_what_is_of_use(tmp_path):
    cache = EncodingCache(str(tmp_path), gigabytes=3000e-9)
    fetch(cache, ["aa"])
    os.utime(next(tmp_path.rglob("*.safetensors")), (time.time() - 9000,) * 2)
    left = tmp_path / "xx" / "left.1.part"
    left.parent.mkdir()
    left.write_bytes(bytes(2500))
    os.utime(left, (time.time() - 7200,) * 2)
    fetch(EncodingCache(str(tmp_path), gigabytes=3000e-9), ["bb"])
    assert not left.exists() and len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path, monkeypatch):
    cache = EncodingCache(str(tmp_path))

    def full(tensors, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoding_cache, "save_file", full)
    with pytest.warns(UserWarning, match=f"{tmp_path}: an encoding is not kept .*No space left on device"):
        assert fetch(cache, ["aa"]) == ([97], [0])
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_where_weights_are_spread_all_compute_if_one_must(tmp_path, monkeypatch):
    cache = EncodingCache(str(tmp_path))
    fetch(cache, ["aa", "bb"])
    monkeypatch.setattr(encoding_cache, "_anywhere", lambda here: True)  # another process lacks something
    assert fetch(cache, ["aa", "bb"]) == ([97, 98], [])
    assert fetch(cache, ["aa", "bb"], together=True) == ([97, 98], [0, 1])


def process(rank: int, folder: str, results) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    cache = EncodingCache(f"{folder}/{rank}")
    if rank == 0:
        fetch(cache, ["aa"])
    results[rank] = [fetch(cache, ["aa"], together=True)[1] for _ in range(2)]
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_compute_together(tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(process, (str(tmp_path), results), nprocs=2)
        assert dict(results) == {0: [[0], []], 1: [[0], []]}


def test_weights_are_known_to_be_spread(tmp_path):
    """By FSDP2 for real, in one process; not while they are gathered, when processes may differ in what they do."""
    model = nn.Linear(2, 2)
    assert not is_spread(model)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        assert is_spread(model)
        model.unshard()
        assert not is_spread(model)
        model.reshard()
        assert is_spread(model)
    finally:
        torch.distributed.destroy_process_group()


def test_what_weights_dealt_out_compute_in_is_known(tmp_path):
    models = [nn.Linear(2, 2) for _ in range(2)]
    for model in models:
        model.dtype = torch.float32  # as diffusers and transformers say it
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = precision_of(models[0], torch.device("cpu"))
        shard(models[0], mesh)
        assert precision_of(models[0], torch.device("cpu")) == whole
        shard(models[1], mesh, torch.bfloat16)
        assert models[1](torch.ones(1, 2)).dtype == torch.bfloat16
        assert precision_of(models[1], torch.device("cpu")) != whole
    finally:
        torch.distributed.destroy_process_group()


def test_8_bits_are_not_dealt_out():
    model = nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="leave text_encoder_8bit out"):
        shard(model, None)


def test_weights_are_known_to_be_spread_by_deepspeed():
    """As its parameters say it: ``ds_status`` of ``deepspeed.runtime.zero.partition_parameters.ZeroParamStatus``."""
    model = nn.Linear(2, 2)
    model.weight.ds_status, model.bias.ds_status = (
        SimpleNamespace(name="NOT_AVAILABLE"),
        SimpleNamespace(name="AVAILABLE"),
    )
    assert is_spread(model)
    model.weight.ds_status = model.bias.ds_status
    assert not is_spread(model)


def test_keys_tell_content_apart():
    image = torch.rand(3, 4, 6)
    other = image.clone()
    other[0, 0, 0] += 1e-6
    keys = [
        key_of("model", image), key_of("other", image), key_of("model", other), key_of("model", image, "text"),
        key_of("model", image.reshape(3, 6, 4)), key_of("model", image.bfloat16()),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key_of("model", image.flip(0).flip(0)) == keys[0]


def test_identity_is_that_of_the_weights(tmp_path):
    one, same = make().text_encoder, make().text_encoder
    same.config._name_or_path = "elsewhere"
    assert identity_of(one) == identity_of(same)
    same.model.language_model.norm.weight.data *= 1.001
    assert identity_of(one) != identity_of(same)
    assert identity_of(one) != identity_of(make(dtype="bfloat16").text_encoder)


class TestInTheRestorer:
    IMAGES = photos(2)
    DIAGNOSES = (EXAMPLE, Diagnosis(fog=Fog(80, (0.9, 0.9, 0.9), 0.2)))

    @pytest.fixture
    def encoded(self, monkeypatch):
        """How many photos VAE and text encoder have seen."""
        return {"vae": 0, "text": 0}

    def make(self, folder, encoded, **settings):
        restorer = make(cache=EncodingCache(str(folder), **settings))
        for name, module in (("vae", restorer.vae.encoder), ("text", restorer.text_encoder.model.language_model)):
            module.register_forward_hook(
                lambda module, args, kwargs, out, name=name: encoded.update(
                    {name: encoded[name] + len(args[0] if args else kwargs["inputs_embeds"])}
                ),
                with_kwargs=True,
            )
        return restorer

    def test_a_photo_is_encoded_once_for_each_text(self, tmp_path, encoded):
        plain = make().restore(self.IMAGES, self.DIAGNOSES, [0, 1])
        first = self.make(tmp_path, encoded)
        torch.testing.assert_close(first.restore(self.IMAGES, self.DIAGNOSES, [0, 1]), plain, rtol=0, atol=1e-5)
        assert encoded == {"vae": 2, "text": 2}
        second = self.make(tmp_path, encoded)
        torch.testing.assert_close(second.restore(self.IMAGES, self.DIAGNOSES, [0, 1]), plain, rtol=0, atol=1e-5)
        assert encoded == {"vae": 2, "text": 2}
        second.restore(self.IMAGES, [None, self.DIAGNOSES[1]], [0, 1])
        assert encoded == {"vae": 2, "text": 3}

    def test_what_was_encoded_under_autocast_is_not_taken_for_more(self, tmp_path, encoded):
        restorer = self.make(tmp_path, encoded)
        with torch.autocast("cpu", torch.bfloat16):
            restorer.restore(self.IMAGES, self.DIAGNOSES, [0, 1])
        plain = make().restore(self.IMAGES, self.DIAGNOSES, [0, 1])
        torch.testing.assert_close(restorer.restore(self.IMAGES, self.DIAGNOSES, [0, 1]), plain, rtol=0, atol=1e-5)
        assert encoded == {"vae": 4, "text": 4}

    def test_other_weights_do_not_share(self, tmp_path, encoded):
        self.make(tmp_path, encoded).restore(self.IMAGES, self.DIAGNOSES, [0, 1])
        other = self.make(tmp_path, encoded)
        other.vae.encoder.conv_in.weight.data *= 2
        other._identities[0] = identity_of(other.vae)
        other.restore(self.IMAGES, self.DIAGNOSES, [0, 1])
        assert encoded == {"vae": 4, "text": 2}

    @pytest.mark.parametrize("training", [False, True])
    def test_training_keeps_only_when_told(self, tmp_path, encoded, training):
        losses = []
        for _ in range(2):
            restorer = self.make(tmp_path, encoded, training=training)
            generator = torch.Generator().manual_seed(0)
            losses.append(restorer.loss(self.IMAGES, self.IMAGES.flip(0), self.DIAGNOSES, generator))
        assert torch.equal(*losses)
        # Degraded and clean photos are the same two here.
        assert encoded == ({"vae": 2, "text": 2} if training else {"vae": 8, "text": 4})
        assert bool(list(tmp_path.rglob("*.safetensors"))) == training
        if training:
            losses[0].backward()

    def test_files_are_plain_safetensors(self, tmp_path, encoded):
        self.make(tmp_path, encoded).restore(self.IMAGES, self.DIAGNOSES, [0, 1])
        shapes = sorted(load_file(file)["encoding"].ndim for file in tmp_path.rglob("*.safetensors"))
        assert shapes == [2, 2, 3, 3]


def test_refuses_no_room(tmp_path):
    with pytest.raises(ValueError, match="above 0, got 0"):
        EncodingCache(str(tmp_path), gigabytes=0)
