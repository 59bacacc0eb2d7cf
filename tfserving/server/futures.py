"""Chaining of concurrent.futures.Future: the result of a request that may wait for a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class CompletedFuture(Future[T]):
    """A future with a result from the start.

    Most requests never wait, and a plain future costs several microseconds for locks that they do not need.
    It works with the functions of this module, not with concurrent.futures.wait().
    """

    def __init__(self, result: T) -> None:
        self._value = result

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> T:
        return self._value

    def exception(self, timeout: float | None = None) -> None:
        return

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        fn(self)


def then(future: Future[S], function: Callable[[S], T]) -> Future[T]:
    """A future for `function(result)`.

    If `future` is done, the function runs now and its error is raised here. Otherwise it runs in the thread
    that completes `future`.
    """
    if future.done():
        return CompletedFuture(function(future.result()))
    chained: Future[T] = Future()
    future.add_done_callback(lambda done: complete(chained, lambda: function(done.result())))
    return chained


def complete(future: Future[T], function: Callable[[], T]) -> None:
    """Completes a future with the function's result or error."""
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - raised where the result is needed
        future.set_exception(error)
    else:
        future.set_result(result)


def attempt(function: Callable[..., Future[T]], *args: Any) -> Future[T]:
    """The future that the function returns; a failed one if the function raises."""
    try:
        return function(*args)
    except BaseException as error:  # noqa: BLE001 - raised where the result is needed
        failed: Future[T] = Future()
        failed.set_exception(error)
        return failed


def gather(futures: Sequence[Future[T]]) -> Future[list[T]]:
    """A future for all results in order, or the first error in order; done when all futures are done."""
    gathered: Future[list[T]] = Future()
    pending = len(futures)
    lock = threading.Lock()

    def one_done(_: Future[T]) -> None:
        nonlocal pending
        with lock:
            pending -= 1
            if pending:
                return
        complete(gathered, lambda: [future.result() for future in futures])

    for future in futures:
        future.add_done_callback(one_done)
    return gathered
