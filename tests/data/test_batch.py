import pytest
import torch

from rnr.data.batch import DegradedBatch
from rnr.diagnosis import Diagnosis

IMAGE = torch.zeros(2, 3, 4, 4)


def test_a_batch_of_two_photos():
    batch = DegradedBatch(IMAGE, IMAGE, [Diagnosis()] * 2, [1, 2], ["a", "b"])
    assert batch.names == ["a", "b"]


def test_clean_and_degraded_must_be_of_one_shape():
    with pytest.raises(ValueError, match=r"clean is \(2, 3, 4, 4\) but degraded is \(2, 3, 4, 3\)"):
        DegradedBatch(IMAGE, IMAGE[..., :3], [Diagnosis()] * 2, [1, 2], ["a", "b"])


@pytest.mark.parametrize(
    "others",
    [([Diagnosis()], [1, 2], ["a", "b"]), ([Diagnosis()] * 2, [1], ["a", "b"]), ([Diagnosis()] * 2, [1, 2], ["a"])],
)
def test_every_photo_needs_its_truth_seed_and_name(others):
    with pytest.raises(ValueError, match="must speak of the same number of photos"):
        DegradedBatch(IMAGE, IMAGE, *others)
