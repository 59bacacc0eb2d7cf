import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def eventually():
    """Waits for something that another thread brings about; fails after 30 s without it."""

    def wait(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "did not come about within 30 s"
            time.sleep(0.002)

    return wait
