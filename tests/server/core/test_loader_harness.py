import itertools
from pathlib import Path

import pytest

from tests.server.fake_loader import FakeServable
from tfserving.errors import UnavailableError
from tfserving.server.core.loader_harness import LoaderHarness
from tfserving.server.core.servable_state import State

START, LOADING, AVAILABLE, UNLOADING, END = State

STEPS = {
    "start_loading": LoaderHarness.start_loading,
    "finish_loading": lambda harness: harness.finish_loading(FakeServable(1)),
    "start_unloading": LoaderHarness.start_unloading,
    "end": LoaderHarness.end,
}
# How to bring a new harness into each state.
PATHS = {
    START: [],
    LOADING: ["start_loading"],
    AVAILABLE: ["start_loading", "finish_loading"],
    UNLOADING: ["start_loading", "finish_loading", "start_unloading"],
    END: ["end"],
}
ALLOWED = {
    (START, "start_loading"): LOADING,
    (START, "end"): END,
    (LOADING, "finish_loading"): AVAILABLE,
    (LOADING, "end"): END,
    (AVAILABLE, "start_unloading"): UNLOADING,
    (UNLOADING, "end"): END,
}


def harness_in(state):
    harness = LoaderHarness("m", 1, Path("/models/m/1"))
    for step in PATHS[state]:
        STEPS[step](harness)
    assert harness.state is state
    return harness


@pytest.mark.parametrize(("state", "step"), itertools.product(State, STEPS))
def test_only_legal_transitions_are_allowed(state, step):
    harness = harness_in(state)
    expected = ALLOWED.get((state, step))
    if expected is not None:
        STEPS[step](harness)
        assert harness.state is expected
        return
    with pytest.raises(RuntimeError, match=rf"model 'm' version 1 cannot change from {state.name} to "):
        STEPS[step](harness)
    assert harness.state is state


def test_the_status_keeps_the_error_of_a_failed_load():
    harness = harness_in(LOADING)
    error = UnavailableError("the disk is not mounted")
    harness.end(error)
    assert (harness.status.state, harness.status.error) == (END, error)


@pytest.mark.parametrize("state", State)
def test_only_an_available_version_is_pinned(state):
    assert harness_in(state).pin() is (state is AVAILABLE)


def test_the_servable_is_closed_once_and_only_at_the_end():
    harness = harness_in(AVAILABLE)
    servable = harness.servable
    harness.start_unloading()
    assert not servable.closed
    harness.end()
    assert servable.closed
