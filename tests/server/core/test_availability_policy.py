import pytest

from tfserving.server.core.availability_policy import Candidate, Load, Unload, next_step
from tfserving.server.core.servable_state import State

START, LOADING, AVAILABLE, UNLOADING, END = State


@pytest.mark.parametrize(
    ("versions", "step"),
    [
        ([], None),
        ([(1, START, True)], Load(1)),
        ([(1, START, True), (2, START, True)], Load(2)),
        ([(1, START, True), (2, LOADING, True)], Load(1)),
        ([(1, AVAILABLE, True)], None),
        # the new one first, then the old one
        ([(1, AVAILABLE, False), (2, START, True)], Load(2)),
        ([(1, AVAILABLE, False), (2, LOADING, True)], None),
        ([(1, AVAILABLE, False), (2, AVAILABLE, True)], Unload(1)),
        # a broken new version never takes the old one out
        ([(1, AVAILABLE, False), (2, END, True)], None),
        # nothing is wanted any more
        ([(1, AVAILABLE, False)], Unload(1)),
        ([(1, UNLOADING, False)], None),
        # latest 2 moves on: memory is freed first, one wanted version serves all the while
        ([(1, AVAILABLE, False), (2, AVAILABLE, True), (3, START, True)], Unload(1)),
        ([(1, UNLOADING, False), (2, AVAILABLE, True), (3, START, True)], Load(3)),
        # rolling back
        ([(1, START, True), (2, AVAILABLE, False)], Load(1)),
        ([(1, AVAILABLE, True), (2, AVAILABLE, False)], Unload(2)),
        # what was never loaded needs no unloading
        ([(1, START, False)], None),
    ],
)
def test_next_step(versions, step):
    assert next_step(Candidate(*version) for version in versions) == step
