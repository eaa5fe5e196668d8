"""The tests notice a wrong constant: see :mod:`mutations`."""

import pytest
from mutations import MUTATIONS, Mutation, caught_by

pytestmark = pytest.mark.slow


def test_without_a_mutation_all_pass():
    assert caught_by(None) is None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_wrong_constant_is_noticed(mutation):
    assert caught_by(mutation)


def test_a_mutation_that_changes_nothing_is_refused():
    with pytest.raises(ValueError, match=r"fog\.py: 'BETA = 3' must occur once, found 0"):
        caught_by(Mutation("fog", "BETA = 3", "BETA = 4"))
