"""Where requests run: in worker threads of their model, or in the event loop if that is fast.

Threads keep a slow model from delaying the others. Handing a request to a thread and its response back takes
longer than a small model, or than putting a request into the queue of a batch, so the event loop does that
itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from tfserving.errors import ExhaustedError
from tfserving.server.core.servable import NotKnownFastError
from tfserving.server.futures import CompletedFuture, attempt, complete, then
from tfserving.server.request_context import RequestContext
from tfserving.server.server_options import LimitOptions

log = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")

# Seconds without progress after which a pool with waiting work starts another thread.
GROWTH_DELAY = 0.001
# Seconds after which it tries again if the system did not let it start one.
RETRY_SECONDS = 1.0
# Seconds without work after which the last thread of a pool ends.
IDLE_SECONDS = 60.0

# Bytes of the largest request that the event loop runs, and of the largest result of a batch that it encodes:
# larger ones take too long.
INLINE_BYTES = 1 << 15
# Seconds after which a request in the event loop was slow; a thread often loses 4 ms to another process. The
# model's requests then run in threads for the square of its seconds times SLOW_PAUSE: 0.1 s after 0.01 s, and
# 17 minutes after 1 s.
SLOW_SECONDS = 0.005
SLOW_PAUSE = 1000
# Seconds without another try after a request that was not known to be fast: a try costs decoding it twice.
TRY_PAUSE = 0.01


class WorkerPools:
    """A worker pool for each model. All methods but `then` and `shut_down` belong to the event loop's thread.

    Args:
        max_threads: threads of one model.
        is_known: whether a model is configured. Requests for other names share one pool, because callers can
            invent any number of names.
        limits: bound the work of each model that waits or runs.
    """

    def __init__(self, max_threads: int, is_known: Callable[[str], bool], limits: LimitOptions) -> None:
        self._max_threads = max(1, max_threads)
        self._is_known = is_known
        self._limits = limits
        self._pools: dict[str, _WorkerPool] = {}

    def run(
        self, model: str, size: int, function: Callable[..., Future[T]], *args: object
    ) -> asyncio.Future[T]:
        """Runs `function(*args)` in a thread of the model, and waits for its future without a thread.

        Args:
            size: bytes that the work holds until it is done.

        Raises:
            ExhaustedError: the work exceeds a limit of the model. Work is accepted whatever its size if the
                model has no other.
        """
        return self._find(model).submit(size, function, args)

    def run_where_fast(
        self,
        model: str,
        size: int,
        function: Callable[..., Future[T]],
        context: RequestContext,
        *args: object,
    ) -> asyncio.Future[T]:
        """Calls `function(context, *args)` now, if that is known to be fast, and else as `run` does.

        Args:
            function: must be callable a second time after it has raised NotKnownFastError.

        Raises:
            ExhaustedError: see `run`.
        """
        pool = self._find(model)
        if size <= INLINE_BYTES:
            response = pool.run_inline(size, function, context, args)
            if response is not None:
                return response
        return pool.submit(size, function, (context, *args))

    def then(
        self,
        model: str,
        future: Future[S],
        function: Callable[[S], T],
        size_of: Callable[[S], int],
        context: RequestContext,
    ) -> Future[T]:
        """As `futures.then`, but what follows a batch does not run in the batch thread.

        If `future` is pending, the event loop continues, or a thread of the model. If it is done, the current
        thread continues, but a thread of the model instead of the event loop if the result is large.
        Only for functions that `run` and `run_where_fast` call.

        Args:
            size_of: returns the bytes of a result; with a large one, a thread continues.
        """
        if future.done() and not (
            context.in_event_loop and not future.exception() and size_of(future.result()) > INLINE_BYTES
        ):
            return then(future, function)
        pool = self._pools.get(model) or self._pools.get("")
        if pool is None:  # a request with two names began in the pool of the other
            return then(future, function)
        return pool.then(future, function, size_of)

    def shut_down(self) -> None:
        """Ends the threads once they have finished their current work."""
        for pool in list(self._pools.values()):  # the event loop may add one
            pool.shut_down()

    def _find(self, model: str) -> _WorkerPool:
        pool = self._pools.get(model)
        if pool is None:
            name = model if self._is_known(model) else ""
            pool = self._pools.get(name)
            if pool is None:
                pool = self._pools[name] = _WorkerPool(
                    name, self._max_threads, asyncio.get_running_loop(), self._limits
                )
        return pool


async def run_in_new_thread(function: Callable[..., T], *args: object) -> T:
    """Runs `function(*args)` in a new thread.

    For work that may wait for minutes: it would soon take all the threads of `asyncio.to_thread`.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # a caller that goes away does not stop the work
    name = f"run-{getattr(function, '__name__', 'function')}"
    threading.Thread(target=complete, args=(future, partial(function, *args)), name=name, daemon=True).start()
    return await asyncio.wrap_future(future)


class _WorkerPool:
    """The worker threads of one model.

    One thread does all the work while it keeps up: for fast models a second thread costs more in handing over
    the interpreter lock than it gains. When work has waited without progress, because the threads are busy
    inside TensorFlow, another one starts. Threads end when the queue is empty, the last one a minute later:
    models come and go.
    """

    def __init__(
        self, model: str, max_threads: int, loop: asyncio.AbstractEventLoop, limits: LimitOptions
    ) -> None:
        self._model = model
        self._max_threads = max_threads
        self._loop = loop
        self._limits = limits
        # Of the work that is not done; both belong to the event loop.
        self._requests = 0
        self._bytes = 0
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._begun = 0
        self._check_scheduled = False
        # Calls for the event loop, which makes them when it wakes up.
        self._calls: deque[Callable[[], None]] = deque()
        self._is_call_due = False
        # When the event loop may next run a request, in seconds of time.perf_counter().
        self._inline_from = 0.0

    def submit(
        self, size: int, function: Callable[..., Future[Any]], args: tuple[object, ...]
    ) -> asyncio.Future[Any]:
        """See WorkerPools.run."""
        self._check_limits(size)
        response = self._accept(size)
        self._queue.put(partial(self._run, size, function, args, response))
        self._provide_thread()
        return response

    def run_inline(
        self,
        size: int,
        function: Callable[..., Future[Any]],
        context: RequestContext,
        args: tuple[object, ...],
    ) -> asyncio.Future[Any] | None:
        """Calls `function(context, *args)` in the event loop; None if it is not known to be fast."""
        self._check_limits(size)
        started = time.perf_counter()
        if started < self._inline_from:
            return None
        context.in_event_loop = True
        future = attempt(function, context, *args)
        context.in_event_loop = False
        ended = self._note_inline(started)
        if not future.done():
            response = self._accept(size)
            future.add_done_callback(partial(self._deliver, response, size))
            return response
        if isinstance(future.exception(), NotKnownFastError):
            self._inline_from = max(self._inline_from, ended + TRY_PAUSE)
            return None
        response = self._loop.create_future()
        _copy_outcome(future, response)
        return response

    def then(self, future: Future[S], function: Callable[[S], T], size_of: Callable[[S], int]) -> Future[T]:
        """See WorkerPools.then."""
        chained: Future[T] = Future()

        def continue_elsewhere(done: Future[S]) -> None:
            work = partial(complete, chained, lambda: function(done.result()))
            is_small = done.exception() is not None or size_of(done.result()) <= INLINE_BYTES
            if is_small and time.perf_counter() >= self._inline_from:
                self._call_in_loop(partial(self._continue_inline, work))
                return
            self._queue.put(work)
            if self._can_grow():
                self._loop.call_soon_threadsafe(self._provide_thread)

        future.add_done_callback(continue_elsewhere)
        return chained

    def shut_down(self) -> None:
        """See WorkerPools.shut_down."""
        self._queue.put(None)

    def _check_limits(self, size: int) -> None:
        limits = self._limits
        if self._requests >= limits.max_queued_requests:
            raise self._exhausted(f"{self._requests} requests", "max_queued_requests")
        if self._requests and self._bytes + size > limits.max_queued_bytes:
            raise self._exhausted(f"{self._requests} requests of {self._bytes} bytes", "max_queued_bytes")

    def _accept(self, size: int) -> asyncio.Future[Any]:
        """The response of a request, which counts for the limits until `_set_response` is called."""
        self._requests += 1
        self._bytes += size
        return self._loop.create_future()

    def _continue_inline(self, work: Callable[[], None]) -> None:
        started = time.perf_counter()
        if started < self._inline_from:  # others of the same batch were slow
            self._queue.put(work)
            self._provide_thread()
            return
        work()
        self._note_inline(started)

    def _note_inline(self, started: float) -> float:
        """Pauses the model's work in the event loop if some was slow there; returns the time."""
        ended = time.perf_counter()
        if ended - started > SLOW_SECONDS:
            self._inline_from = max(self._inline_from, ended + SLOW_PAUSE * (ended - started) ** 2)
        return ended

    def _exhausted(self, waiting: str, flag: str) -> ExhaustedError:
        whose = f"model {self._model!r}" if self._model else "models that are not configured"
        return ExhaustedError(
            f"{waiting} for {whose} wait or run, and --{flag}={getattr(self._limits, flag)}; retry later, or "
            "raise the limit",
            model=self._model or None,
        )

    def _provide_thread(self) -> None:
        """Starts a thread for what was queued if there is none, and else checks later whether it waits."""
        if not self._can_grow():
            return
        if self._threads:
            self._check_later(GROWTH_DELAY)
        else:
            self._start_thread()

    def _start_thread(self) -> None:
        with self._lock:
            self._threads += 1
        try:
            threading.Thread(target=self._work, name=f"worker-{self._model}", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._threads -= 1
            log.error("requests for model %r wait: %s; raise the limit of threads", self._model, error)
            self._check_later(RETRY_SECONDS)

    def _can_grow(self) -> bool:
        with self._lock:  # a thread looks with it whether the queue is empty, and ends
            is_below = self._threads < self._max_threads
        return is_below and not self._check_scheduled and not self._queue.empty()

    def _check_later(self, seconds: float) -> None:
        """Checks after a while whether the waiting work has made progress."""
        self._check_scheduled = True
        self._loop.call_later(seconds, self._grow, self._begun)

    def _grow(self, begun: int) -> None:
        """Starts a thread if work is waiting and none has begun since the last check."""
        self._check_scheduled = False
        if not self._can_grow():
            return
        if begun == self._begun:
            self._start_thread()
        if self._can_grow():
            self._check_later(GROWTH_DELAY)

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Runs the next piece of work; False if the thread is to end.

        Separate from the loop, so that a thread that waits for work has no reference to the last one.
        """
        work = self._next()
        if work is None:
            return False
        self._begun += 1
        work()
        return True

    def _next(self) -> Callable[[], None] | None:
        """The next piece of work; None for a thread that is to end."""
        seconds = 0.0
        while True:
            try:
                return self._queue.get(timeout=seconds) if seconds else self._queue.get_nowait()
            except Empty:
                with self._lock:
                    if self._queue.empty() and (seconds or self._threads > 1):
                        self._threads -= 1
                        return None
                seconds = IDLE_SECONDS

    def _run(
        self,
        size: int,
        function: Callable[..., Future[Any]],
        args: tuple[object, ...],
        response: asyncio.Future[Any],
    ) -> None:
        future = CompletedFuture(None) if response.cancelled() else attempt(function, *args)
        future.add_done_callback(partial(self._deliver, response, size))

    def _deliver(self, response: asyncio.Future[Any], size: int, future: Future[Any]) -> None:
        """Hands the outcome to the event loop."""
        self._call_in_loop(partial(self._set_response, response, size, future))

    def _set_response(self, response: asyncio.Future[Any], size: int, future: Future[Any]) -> None:
        self._requests -= 1
        self._bytes -= size
        if not response.done():
            _copy_outcome(future, response)

    def _call_in_loop(self, call: Callable[[], None]) -> None:
        """Makes a call in the event loop; calls that come together wake it once."""
        with self._lock:
            self._calls.append(call)
            if self._is_call_due:
                return
            self._is_call_due = True
        self._loop.call_soon_threadsafe(self._make_calls)

    def _make_calls(self) -> None:
        """Makes the calls that are due; after SLOW_SECONDS, other work of the event loop comes first."""
        end = time.perf_counter() + SLOW_SECONDS
        while time.perf_counter() < end:
            with self._lock:
                if not self._calls:
                    self._is_call_due = False
                    return
                call = self._calls.popleft()
            try:
                call()
            except Exception:
                log.exception("a response of model %r cannot be delivered", self._model)
        self._loop.call_soon(self._make_calls)


def _copy_outcome(future: Future[Any], response: asyncio.Future[Any]) -> None:
    error = future.exception()
    if error is not None:
        response.set_exception(error)
    else:
        response.set_result(future.result())
