"""Python's garbage collector in a server that loads and unloads large things.

The graph of a model is a mesh of Python objects that point at each other, which only the collector frees.
Left to itself it does so when ten versions of a MobileNetV2 have gone, 400 MB of them, and each time it looks
at all that TensorFlow consists of, for a quarter of a second in which nothing else runs.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def lasting() -> Iterator[None]:
    """What is there at the end of the block stays for good: the collector does not look at it any more.

    Nor does it look at anything during the block, which makes an import of TensorFlow a third quicker.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Collector:
    """Collects garbage some time after it was told that there is some, once for all it was told of by then.

    Not at once: a version goes when another has just come into service, and the first calls of that one shall
    not wait for the burial, some 30 ms.

    Args:
        seconds: how long after.
        timer: runs a function after so many seconds.
    """

    def __init__(self, seconds: float = 1.0, timer: Callable[..., Any] = threading.Timer) -> None:
        self._seconds = seconds
        self._timer = timer
        self._lock = threading.Lock()
        self._due = False

    def tell(self) -> None:
        """There is garbage."""
        with self._lock:
            if self._due:
                return
            self._due = True
        timer = self._timer(self._seconds, self._collect)
        timer.daemon = True
        timer.start()

    def _collect(self) -> None:
        with self._lock:
            self._due = False
        gc.collect()
