"""Python's garbage collector in a server that loads and unloads large models.

A model's graph consists of Python objects in reference cycles, which only the collector frees. With default
settings it runs only after ten versions of a MobileNetV2 (400 MB) have been unloaded, and each run examines
all objects of TensorFlow, which pauses the process for a quarter of a second.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_pauses_lock = threading.Lock()
_pauses = 0


def pause_collector() -> None:
    """Turns the collector off until `resume_collector` has been called as often; in any thread."""
    global _pauses
    with _pauses_lock:
        _pauses += 1
        gc.disable()


def resume_collector() -> None:
    """Ends one pause; the collector is on again when none is left."""
    global _pauses
    with _pauses_lock:
        _pauses -= 1
        if not _pauses:
            gc.enable()


@contextmanager
def freeze_objects() -> Iterator[None]:
    """Exempts all objects that exist at the end of the block from garbage collection, for good.

    The collector is off during the block, which makes an import of TensorFlow a third faster.
    """
    pause_collector()
    try:
        yield
    finally:
        gc.freeze()
        resume_collector()


class DelayedCollector:
    """Collects garbage some time after it was scheduled, once for all calls of `schedule` in between.

    Not immediately: a version is unloaded when another has just become available, and a collection, some
    30 ms, would delay the first requests of that one.

    Args:
        seconds: the delay.
        timer: runs a function after the given number of seconds.
    """

    def __init__(self, seconds: float = 1.0, timer: Callable[..., Any] = threading.Timer) -> None:
        self._seconds = seconds
        self._timer = timer
        self._lock = threading.Lock()
        self._scheduled = False

    def schedule(self) -> None:
        """Schedules a collection unless one is scheduled."""
        with self._lock:
            if self._scheduled:
                return
            self._scheduled = True
        timer = self._timer(self._seconds, self._collect)
        timer.daemon = True
        timer.start()

    def _collect(self) -> None:
        with self._lock:
            self._scheduled = False
        gc.collect()
