"""Ends calls that wait for their caller.

gRPC has no timeout for a call that was opened and never sends its message, and such a call keeps its
connection from being idle. Nor has it one for a stream of requests, such as that of reflection, or for a
response that is not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class CallTimeout(Generic[T]):
    """Limits how long calls wait; belongs to one event loop.

    Args:
        seconds: that a call may wait; None for no limit.
        end: ends a call that has waited too long.
    """

    def __init__(self, seconds: float | None, end: Callable[[T], None]) -> None:
        self._seconds = seconds
        self._end = end
        # When each call began to wait, oldest first.
        self._waiting: dict[T, float] = {}
        self._is_check_due = False

    def describe_late_request(self) -> str:
        """The text of the status of a call whose request has not arrived in time."""
        assert self._seconds is not None
        return f"the request has not arrived within {self._seconds * 1e3:.0f} ms (--idle_timeout_in_ms)"

    def start(self, call: T) -> None:
        """Note that a call waits from now on."""
        if self._seconds is None:
            return
        loop = asyncio.get_running_loop()
        self._waiting[call] = loop.time()
        if not self._is_check_due:
            self._is_check_due = True
            loop.call_later(self._seconds, self._check, self._seconds)

    def stop(self, call: T) -> None:
        """Note that a call no longer waits; do nothing if it does not."""
        self._waiting.pop(call, None)

    def _check(self, seconds: float) -> None:
        """End the calls that have waited too long; check again when the next one may have."""
        loop = asyncio.get_running_loop()
        self._is_check_due = False
        while self._waiting:
            call, began = next(iter(self._waiting.items()))
            left = began + seconds - loop.time()
            if left > 0:
                self._is_check_due = True
                loop.call_later(left, self._check, seconds)
                return
            del self._waiting[call]
            self._end(call)
