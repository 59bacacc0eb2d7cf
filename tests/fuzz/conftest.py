"""The fixture that divides the time among the fuzz tests."""

from __future__ import annotations

from functools import partial

import pytest

from tests.fuzz import fuzzing


@pytest.fixture
def fuzz(request):
    """A function that checks examples of a strategy for this test's share of TFSERVING_FUZZ_SECONDS."""
    tests = sum(1 for item in request.session.items if item.get_closest_marker("fuzz"))
    return partial(fuzzing.run, seconds=fuzzing.SECONDS / tests)
