"""Python's garbage collector in a server: each full collection examines all objects, and pauses all threads.

With the objects of TensorFlow's modules, that takes a quarter of a second.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
