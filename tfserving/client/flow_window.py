"""Runs many flows, several at a time, and yields their results in order.

At most twice as many flows as run at a time are started and not yet yielded, so that a slow one does not
stop the others immediately, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent import futures  # not `from concurrent.futures`: importing its threads takes 1 ms
from itertools import islice
from typing import Any, TypeVar

from tfserving.client.flow import Flow, Request, run, run_async
from tfserving.errors import InvalidInputError

T = TypeVar("T")
Rows = Iterable[Any] | AsyncIterable[Any]


def run_in_order(
    flows: Iterable[Flow[list[T]]], send: Callable[[Request[Any]], bytes], concurrency: int
) -> Generator[T, None, None]:
    """Run flows in threads and yield what their lists contain.

    A generator that is closed starts no further request: flows that wait for a retry end, and requests that
    are in flight end without a result.
    """
    stopped = threading.Event()

    def send_unless_stopped(request: Request[Any]) -> bytes:
        if stopped.is_set():
            raise futures.CancelledError
        return send(request)

    def sleep(seconds: float) -> None:
        if stopped.wait(seconds):
            raise futures.CancelledError

    pool = futures.ThreadPoolExecutor(concurrency, "infer_many")
    window: deque[futures.Future[list[T]]] = deque()
    try:
        for flow in flows:
            if len(window) == 2 * concurrency:
                yield from window.popleft().result()
            window.append(pool.submit(run, flow, send_unless_stopped, sleep))
        while window:
            yield from window.popleft().result()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


async def run_in_order_async(
    flows: AsyncIterable[Flow[list[T]]],
    send: Callable[[Request[Any]], Awaitable[bytes]],
    concurrency: int,
) -> AsyncGenerator[T, None]:
    """Run flows as tasks and yield what their lists contain; closing the generator cancels the tasks."""
    slots = asyncio.Semaphore(concurrency)

    async def run_in_slot(flow: Flow[list[T]]) -> list[T]:
        async with slots:
            return await run_async(flow, send, asyncio.sleep)

    window: deque[asyncio.Task[list[T]]] = deque()
    try:
        async for flow in flows:
            if len(window) == 2 * concurrency:
                for result in await window.popleft():
                    yield result
            window.append(asyncio.create_task(run_in_slot(flow)))
        while window:
            for result in await window.popleft():
                yield result
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)


def check_window(rows: object, batch_size: object, concurrency: object) -> None:
    """Raise InvalidInputError unless these are rows, and numbers of 1 or more."""
    is_iterable = isinstance(rows, (Iterable, AsyncIterable))
    if not is_iterable or isinstance(rows, (Mapping, str, bytes)):
        raise InvalidInputError(
            f"inputs is a {type(rows).__name__}; pass an iterable of rows, each a value or a dict of values"
        )
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInputError(f"{name}={value!r} is not valid; pass an int of 1 or more")


def batches(rows: Iterable[T], size: int) -> Iterator[tuple[int, list[T]]]:
    """Lists of up to `size` rows, and the number of the first row of each."""
    iterator, first = iter(rows), 0
    while batch := list(islice(iterator, size)):
        yield first, batch
        first += len(batch)


async def batches_async(rows: Rows, size: int) -> AsyncIterator[tuple[int, list[Any]]]:
    """As `batches`, also for rows that arrive asynchronously."""
    if not isinstance(rows, AsyncIterable):
        for pair in batches(rows, size):
            yield pair
        return
    first, batch = 0, []
    async for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield first, batch
            first, batch = first + size, []
    if batch:
        yield first, batch
