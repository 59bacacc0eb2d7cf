"""Threads in which models run, a set for each model, so that a slow one keeps no other waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """Gives blocking work to threads. Threads are made on demand, at most `threads` for each model.

    `is_known` tells which models are served: calls for any other name share one set, since callers can invent
    names without end.
    """

    def __init__(self, threads: int, is_known: Callable[[str], bool]) -> None:
        self._threads = threads
        self._is_known = is_known
        self._pools: dict[str, ThreadPoolExecutor] = {}

    async def run(self, model: str, function: Callable[..., T], *args: object) -> T:
        """Awaits `function(*args)` in a thread of the model; to be called in the event loop."""
        name = model if model in self._pools or self._is_known(model) else ""
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = ThreadPoolExecutor(self._threads, thread_name_prefix=f"run-{name}")
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)

    def close(self) -> None:
        """Ends the threads once they have finished what they do."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
