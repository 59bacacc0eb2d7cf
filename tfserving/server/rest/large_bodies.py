"""Turns for bodies that are large as JSON.

Python objects take many times the memory of their JSON, and the parser holds the interpreter lock. So one
large body is parsed at a time; the others wait in the event loop, without a worker thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tfserving.server.runtime.gc_tuning import pause_collector, resume_collector

T = TypeVar("T")

# Bytes of JSON from which a body waits for its turn. Parsing a smaller one takes milliseconds.
LARGE_BYTES = 1 << 20
# What gzip can make of a byte.
_MAX_GZIP_RATIO = 1032


class Turns:
    """Gives turns to bodies in the order in which they arrive; belongs to one event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._no_turn = Turn(None)

    def for_body(self, size: int, *, is_gzip: bool) -> Turn:
        """The turn of a body of `size` bytes."""
        is_large = size * (_MAX_GZIP_RATIO if is_gzip else 1) >= LARGE_BYTES
        return Turn(self._lock) if is_large else self._no_turn


class Turn:
    """The turn of a body: a worker thread parses it between `begin` and `end`. A small body does not wait."""

    def __init__(self, lock: asyncio.Lock | None) -> None:
        self._lock = lock
        self._begun = False
        self._ended = False
        self._changing = threading.Lock()

    def run(self, start: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Wait for the turn, then for what `start` returns."""
        return start() if self._lock is None else self._run(self._lock, start)

    async def _run(self, lock: asyncio.Lock, start: Callable[[], Awaitable[T]]) -> T:
        await lock.acquire()
        self._loop = asyncio.get_running_loop()
        try:
            return await start()
        finally:
            if not self._begun:  # cancelled while the worker thread had other work
                self.end()

    def begin(self) -> None:
        """Begin to parse: until `end`, the garbage collector does not examine what the parser creates."""
        if self._lock is None:
            return
        with self._changing:
            self._begun = True
            if not self._ended:
                pause_collector()

    def end(self) -> None:
        """End the turn; in any thread, and as often as needed."""
        if self._lock is None:
            return
        with self._changing:
            if self._ended:
                return
            self._ended = True
            if self._begun:
                resume_collector()
        self._loop.call_soon_threadsafe(self._lock.release)
