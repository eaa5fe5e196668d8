"""Weights by their hub names, from a cache of the hub and without a network, as on most clusters."""

import os
import shutil
import subprocess
import sys

import pytest
from small_edit import make

from rnr.models.qwen3vl import Qwen3VLReasoner
from rnr.models.small_reasoner import SmallReasoner

REVISION = "0" * 40
SCRIPT = """
from rnr.models.load import load_reasoner, load_restorer
print(type(load_restorer("them/restorer")).__name__, type(load_reasoner("them/reasoner")).__name__)
try:
    load_reasoner("them/encoder")
except ValueError as error:
    print(error)
"""


@pytest.fixture
def cache(tmp_path):
    """Of a restorer with its transformer in several files, a reasoner, and a model that is neither."""

    def folder(name):
        root = tmp_path / "hub" / f"models--them--{name}"
        (root / "refs").mkdir(parents=True)
        (root / "refs/main").write_text(REVISION)
        return root / "snapshots" / REVISION

    restorer = make()
    restorer.save(snapshot := folder("restorer"))
    shutil.rmtree(snapshot / "transformer")
    restorer.transformer.save_pretrained(snapshot / "transformer", max_shard_size="200KB")
    assert len(list((snapshot / "transformer").glob("*.safetensors"))) > 1
    small = SmallReasoner(vision_depth=1, vision_width=64, text_depth=1, text_width=64)
    Qwen3VLReasoner(small=small).save(folder("reasoner"))
    restorer.text_encoder.save_pretrained(other := folder("encoder"))
    restorer.tokenizer.save_pretrained(other)
    return tmp_path


@pytest.mark.slow
def test_what_is_in_the_cache_is_loaded_without_a_network(cache):
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    loaded, refused = ran.stdout.splitlines()
    assert loaded == "QwenImageEditRestorer Qwen3VLReasoner"
    assert refused == "them/encoder: holds weights of qwen2_5_vl, not of a Qwen3-VL reasoner"
