import asyncio
import threading

import pytest


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
