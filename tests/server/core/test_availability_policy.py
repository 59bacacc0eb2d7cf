"""The rules of availability_preserving_policy.cc; the last group are the cases of its test."""

import pytest

from tfserving.server.core.availability_policy import Candidate, Load, Unload, next_step
from tfserving.server.core.servable_state import State

START, LOADING, AVAILABLE, UNLOADING, END = State
# A version that failed to load and one that was unloaded both end in END.
ERROR = DISABLED = END


@pytest.mark.parametrize(
    ("versions", "step"),
    [
        ([], None),
        ([(1, START, True)], Load(1)),
        ([(1, START, True), (2, START, True)], Load(2)),
        ([(1, START, True), (2, LOADING, True)], Load(1)),
        ([(1, AVAILABLE, True)], None),
        # an update: load the new version, then unload the old one
        ([(1, AVAILABLE, False), (2, START, True)], Load(2)),
        ([(1, AVAILABLE, False), (2, AVAILABLE, True)], Unload(1)),
        # nothing is aspired any more
        ([(1, AVAILABLE, False)], Unload(1)),
        ([(1, AVAILABLE, False), (2, AVAILABLE, False)], Unload(1)),
        ([(1, UNLOADING, False)], None),
        # "latest 2" moves on: unload first, because one aspired version is available all the time
        ([(1, AVAILABLE, False), (2, AVAILABLE, True), (3, START, True)], Unload(1)),
        ([(1, UNLOADING, False), (2, AVAILABLE, True), (3, START, True)], Load(3)),
        # a rollback
        ([(1, START, True), (2, AVAILABLE, False)], Load(1)),
        ([(1, AVAILABLE, True), (2, AVAILABLE, False)], Unload(2)),
        # a version that was never loaded is not unloaded
        ([(1, START, False)], None),
        # of several obsolete versions all but the highest go before the new one is loaded
        ([(1, AVAILABLE, False), (2, AVAILABLE, False), (3, START, True)], Unload(1)),
        ([(1, UNLOADING, False), (2, AVAILABLE, False), (3, START, True)], Load(3)),
        # the same for versions that are higher than the aspired one
        ([(1, START, True), (2, AVAILABLE, False), (3, AVAILABLE, False)], Unload(2)),
        # upstream: loads the highest new version
        (
            [
                (1, UNLOADING, False),
                (2, ERROR, False),
                (3, AVAILABLE, True),
                (4, START, True),
                (5, START, True),
            ],
            Load(5),
        ),
        # upstream: unloads before it loads
        (
            [
                (1, UNLOADING, False),
                (2, ERROR, False),
                (3, AVAILABLE, False),
                (4, AVAILABLE, True),
                (5, START, True),
            ],
            Unload(3),
        ),
        # upstream: nothing is aspired, so availability may end
        ([(1, DISABLED, False), (2, AVAILABLE, False), (3, ERROR, False)], Unload(2)),
        # upstream: nothing to load or unload
        (
            [
                (1, AVAILABLE, True),
                (2, ERROR, True),
                (3, LOADING, True),
                (4, UNLOADING, False),
                (5, DISABLED, False),
            ],
            None,
        ),
        # upstream: unloading would end availability while the aspired version loads, or after it failed
        ([(1, AVAILABLE, False), (2, LOADING, True)], None),
        ([(1, AVAILABLE, False), (2, ERROR, True)], None),
        # upstream: one aspired version is available, whatever the others do
        ([(1, AVAILABLE, False), (2, LOADING, True), (3, AVAILABLE, True)], Unload(1)),
        ([(1, AVAILABLE, False), (2, ERROR, True), (3, AVAILABLE, True)], Unload(1)),
        # upstream: no aspired version is available, but another obsolete one keeps the model available
        ([(2, AVAILABLE, False), (1, AVAILABLE, False), (3, ERROR, True), (4, LOADING, True)], Unload(1)),
    ],
)
def test_the_next_step_preserves_availability_as_upstream(versions, step):
    assert next_step(Candidate(*version) for version in versions) == step
