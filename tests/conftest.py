"""What holds for every test."""

from __future__ import annotations

import time

import pytest
from hypothesis import settings

# Machines that are busy with other things are slow, and that is no failure.
settings.register_profile("tfserving", deadline=None)
settings.load_profile("tfserving")


@pytest.fixture(scope="session")
def eventually():
    """Waits for something that another thread or process brings about; fails after 30 s without it."""

    def wait(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "did not come about within 30 s"
            time.sleep(0.002)

    return wait
