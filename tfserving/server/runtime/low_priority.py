"""Work that gives way to requests."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from tfserving.server.futures import complete

T = TypeVar("T")

# Added to the nice value: under full load, the thread has a third of the CPU time of another one. Even lower
# priority makes loads last longer, and hardly helps requests (docs/decisions/0032).
_NICER = 5


def run_at_low_priority(function: Callable[..., T], *args: object) -> T:
    """Run a function in a thread of lower priority and wait for it; outside Linux, the priority is the same.

    For functions that release the interpreter lock, as TensorFlow's do, and start no threads, which would
    inherit the priority. Each call has its own thread, since one cannot raise its priority again without
    privileges.
    """
    future: Future[T] = Future()

    def run() -> None:
        if sys.platform == "linux":
            thread = threading.get_native_id()
            priority = os.getpriority(os.PRIO_PROCESS, thread) + _NICER
            os.setpriority(os.PRIO_PROCESS, thread, priority)
        complete(future, partial(function, *args))

    threading.Thread(target=run, name="load-low-priority", daemon=True).start()
    return future.result()
