"""Turns for bodies that are large as JSON.

Python objects take many times the memory of their JSON, and the parser holds the interpreter lock. So one
large body is parsed at a time. The others of its model wait in the event loop, without a worker thread, also
while the worker threads of the model are busy; those of other models do not.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tfserving.server.runtime.gc_tuning import pause_collector, resume_collector

T = TypeVar("T")

# Bytes of JSON from which a body waits for its turn. Parsing a smaller one takes milliseconds.
LARGE_BYTES = 1 << 20
# Seconds after which a thread that waits for another model looks whether its request was cancelled.
_CHECK_SECONDS = 0.05
# What gzip can make of a byte.
_MAX_GZIP_RATIO = 1032


class Turns:
    """Gives turns to the bodies of a model in the order in which they arrive; belongs to one event loop."""

    def __init__(self) -> None:
        # Of the models with bodies that wait or are parsed.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._parsing = threading.Lock()
        self._no_turn = Turn(None, self._parsing)

    def for_body(self, model: str, size: int, *, is_gzip: bool) -> Turn:
        """The turn of a body of `size` bytes."""
        if size * (_MAX_GZIP_RATIO if is_gzip else 1) < LARGE_BYTES:
            return self._no_turn
        lock = self._locks.get(model)
        if lock is None:
            lock = self._locks[model] = asyncio.Lock()
        return Turn(lock, self._parsing)


class Turn:
    """The turn of a body: a worker thread parses it between `begin` and `end`. A small body does not wait.

    Args:
        lock: is held from when a worker thread is asked for; None for a small body.
        parsing: is held from `begin` on.
    """

    def __init__(self, lock: asyncio.Lock | None, parsing: threading.Lock) -> None:
        self._lock = lock
        self._parsing = parsing
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
        """Begin to parse, when no other model does.

        Until `end`, the garbage collector does not examine what the parser creates.

        Raises:
            CancelledError: nobody waits for the response any more.
        """
        if self._lock is None:
            return
        while not self._parsing.acquire(timeout=_CHECK_SECONDS):
            self._check_wanted()
        with self._changing:
            if not self._ended:
                self._begun = True
                pause_collector()
                return
        self._parsing.release()
        self._check_wanted()

    def _check_wanted(self) -> None:
        if self._ended:
            raise asyncio.CancelledError

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
                self._parsing.release()
        self._loop.call_soon_threadsafe(self._lock.release)
