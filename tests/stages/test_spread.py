"""A group whose candidates differ by their diagnosis."""

import torch
from tiny_stages import EXAMINED, FOUND, tiny_restorer

from rnr.diagnosis import Diagnosis
from rnr.stages.spread import ByDiagnosis, likely


def test_the_first_of_the_likely_diagnoses_is_the_said_one_and_the_others_follow_from_the_seed():
    first, *others = likely(EXAMINED, 16, 3)
    assert first == EXAMINED.diagnosis and first.fog.chance == 0.6
    assert others == likely(EXAMINED, 16, 3)[1:] != likely(EXAMINED, 16, 4)[1:]
    assert {each.fog is None for each in others} == {True, False}, "there by a chance of 0.6"
    assert not any(each.noise is None for each in others)


def test_an_answer_that_does_not_parse_has_no_likely_diagnoses():
    assert likely(None, 3, 0) == [None] * 3


def test_each_candidate_is_restored_by_its_own_diagnosis(photo):
    images = torch.stack([photo, photo.flip(-1)])[..., :40, :48]
    restorer = tiny_restorer()
    torch.nn.init.normal_(restorer.network.head.weight, std=0.05)
    diagnoses = [[FOUND, Diagnosis(), None], [Diagnosis(), FOUND, FOUND]]
    policy = ByDiagnosis(restorer, diagnoses)
    found = policy.rollout(images, [FOUND, Diagnosis()], [0, 1], 3)
    for i in range(2):
        for k in range(3):
            alone = restorer(images[i : i + 1], [diagnoses[i][k]])
            torch.testing.assert_close(found[i, k], alone[0], rtol=0, atol=1e-5)
    assert torch.equal(policy.rollout(images, [None, FOUND], [0, 1], 1), restorer.rollout(images, [None, FOUND], [0, 1], 1))
    assert found.requires_grad
