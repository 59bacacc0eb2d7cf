import asyncio
import sys
import threading
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


@pytest.fixture(scope="session")
def in_loop():
    """Runs coroutines in an event loop that goes on in its own thread, for servers that outlive a call."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
