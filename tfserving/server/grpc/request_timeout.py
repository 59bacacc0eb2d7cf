"""Ends calls whose request does not arrive.

gRPC has no timeout for a call that was opened and never sends its message, and such a call keeps its
connection from being idle. Nor has it one for a stream of requests, such as that of reflection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class RequestTimeout(Generic[T]):
    """Limits how long calls wait for their requests; belongs to one event loop.

    Args:
        seconds: that a call may wait.
        end: ends a call that has waited too long, with DEADLINE_EXCEEDED and `details`.

    Attributes:
        details: the text of the status.
    """

    def __init__(self, seconds: float, end: Callable[[T], None]) -> None:
        self.details = f"the request has not arrived within {seconds * 1e3:.0f} ms (--idle_timeout_in_ms)"
        self._seconds = seconds
        self._end = end
        # When each call began to wait, oldest first.
        self._waiting: dict[T, float] = {}
        self._is_check_due = False

    def start(self, call: T) -> None:
        """Note that a call waits from now on."""
        loop = asyncio.get_running_loop()
        self._waiting[call] = loop.time()
        if not self._is_check_due:
            self._is_check_due = True
            loop.call_later(self._seconds, self._check)

    def stop(self, call: T) -> None:
        """Note that a call no longer waits; do nothing if it does not."""
        self._waiting.pop(call, None)

    def _check(self) -> None:
        """End the calls that have waited too long; check again when the next one may have."""
        loop = asyncio.get_running_loop()
        self._is_check_due = False
        while self._waiting:
            call, began = next(iter(self._waiting.items()))
            left = began + self._seconds - loop.time()
            if left > 0:
                self._is_check_due = True
                loop.call_later(left, self._check)
                return
            del self._waiting[call]
            self._end(call)
