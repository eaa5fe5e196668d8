import torch
from small_edit import make, photos
from torch import nn

from rnr.diagnosis.prompt import EXAMPLE
from rnr.models.buffers import ExactBuffers


class Both(ExactBuffers):
    def __init__(self):
        super().__init__()
        self.inner = nn.BatchNorm1d(3)
        self.inner.running_var.fill_(1 / 3)


def test_weights_are_cast_and_buffers_are_not():
    whole = nn.Sequential(Both()).to(torch.bfloat16)  # as part of a stage
    assert whole[0].inner.weight.dtype == torch.bfloat16
    assert torch.equal(whole[0].inner.running_var, torch.full((3,), 1 / 3))
    assert whole[0].inner.num_batches_tracked.dtype == torch.int64
    assert set(whole.state_dict()) == set(nn.Sequential(Both()).state_dict())
    assert whole.to("meta")[0].inner.running_var.device.type == "meta"


def test_training_in_bfloat16_has_the_angles_of_use_in_bfloat16():
    """``bf16-true`` casts the whole stage; ``from_pretrained`` in bfloat16 casts weights alone."""
    cast, built = make().to(torch.bfloat16), make(dtype="bfloat16")
    assert all(buffer.dtype == torch.float32 for _, buffer in cast.named_buffers() if buffer.is_floating_point())
    results = [restorer.restore(photos(1), [EXAMPLE], [0]) for restorer in (cast, built)]
    assert torch.equal(*results)
