"""What holds for every test."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import settings

from tests.embedded import ROOT
from tests.soak.models import Times

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


@pytest.fixture(scope="session")
def times(tmp_path_factory):
    """Makes models that tell which version answered."""
    directory = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-m", "tests.soak.models", directory], cwd=ROOT, check=True)
    return Times(directory)
