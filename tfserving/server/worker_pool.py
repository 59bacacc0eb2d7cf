"""Threads in which models run, a crew for each model, so that a slow one keeps no other waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds without progress after which a crew with work waiting gets another thread.
PATIENCE = 0.001
# Seconds without work after which a thread leaves a crew of batches.
IDLE = 10.0


class Workers:
    """Gives blocking work to threads; to be used from the event loop's thread only.

    Args:
        threads: how many calls of one model run at the same time at the most.
        is_known: tells which models are served: calls for any other name share one crew, since callers can
            invent names without end.
        batching: whether calls wait for others to make a batch with them, rather than compute.
    """

    def __init__(self, threads: int, is_known: Callable[[str], bool], *, batching: bool = False) -> None:
        self._threads = max(1, threads)
        self._is_known = is_known
        self._crew = _BatchingCrew if batching else _Crew
        self._crews: dict[str, _Crew] = {}

    async def run(self, model: str, function: Callable[..., T], *args: object) -> T:
        """Awaits `function(*args)` in a thread of the model."""
        name = model if model in self._crews or self._is_known(model) else ""
        crew = self._crews.get(name)
        if crew is None:
            crew = self._crews[name] = self._crew(name, self._threads, asyncio.get_running_loop())
        return await crew.submit(function, args)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Lets the threads end once they have finished what they do."""
        for crew in self._crews.values():
            crew.close()


async def run_alone(function: Callable[..., T], *args: object) -> T:
    """Awaits `function(*args)` in a thread of its own.

    For what may wait for minutes: the few threads of `asyncio.to_thread` are soon all taken by such.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # a caller who goes away ends nothing

    def work() -> None:
        try:
            result = function(*args)
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            answer.set_exception(error)
        else:
            answer.set_result(result)

    threading.Thread(target=work, name=f"run-{getattr(function, '__name__', 'alone')}", daemon=True).start()
    return await asyncio.wrap_future(answer)


class _Task:
    """A call that waits for a thread, and then for the loop to hear of its end."""

    __slots__ = ("answer", "args", "error", "function", "result")

    def __init__(self, function: Callable[..., Any], args: tuple[object, ...], answer: asyncio.Future[Any]):
        self.function = function
        self.args = args
        self.answer = answer
        self.result: Any = None
        self.error: BaseException | None = None


class _Crew:
    """The threads of one model.

    One thread does all the work while it keeps up: for quick models a second one costs more in passing the
    interpreter's lock to and fro than it brings. When work has waited without progress, since the thread is
    busy inside TensorFlow, others join one by one; they leave when there is nothing to do.
    """

    def __init__(self, name: str, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._limit = limit
        self._loop = loop
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._taken = 0
        self._watching = False
        self._done: list[_Task] = []

    def submit(self, function: Callable[..., Any], args: tuple[object, ...]) -> asyncio.Future[Any]:
        """A future for `function(*args)`; in the loop's thread."""
        answer = self._loop.create_future()
        self._queue.put(_Task(function, args, answer))
        self._staff()
        return answer

    def close(self) -> None:
        """Sends the threads home."""
        self._queue.put(None)

    def _staff(self) -> None:
        """Sees to it that there is a thread for the task that was just put into the queue, now or later."""
        if not self._threads:
            self._hire()
        elif not self._watching and self._threads < self._limit and not self._queue.empty():
            self._watch()

    def _hire(self) -> None:
        with self._lock:
            self._threads += 1
        threading.Thread(target=self._work, name=f"run-{self._name}", daemon=True).start()

    def _watch(self) -> None:
        self._watching = True
        self._loop.call_later(PATIENCE, self._look, self._taken)

    def _look(self, taken: int) -> None:
        """Hires when work is waiting and none was taken since the last look."""
        self._watching = False
        if self._queue.empty() or self._threads >= self._limit:
            return
        if taken == self._taken:
            self._hire()
        self._watch()

    def _work(self) -> None:
        while task := self._next():
            self._taken += 1
            if not task.answer.cancelled():
                try:
                    task.result = task.function(*task.args)
                except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
                    task.error = error
            # first, since whoever hears of the answer may come back before this thread is at the queue
            self._free()
            self._deliver(task)

    def _free(self) -> None:
        """Counts the thread as one that has nothing to do."""

    def _next(self) -> _Task | None:
        """The next task; None for a thread that is not needed any more."""
        try:
            return self._queue.get_nowait()
        except Empty:
            with self._lock:
                if self._threads > 1:
                    self._threads -= 1
                    return None
        return self._queue.get()

    def _deliver(self, task: _Task) -> None:
        """Tells the loop; answers that end together wake it once."""
        with self._lock:
            self._done.append(task)
            first = len(self._done) == 1
        if first:
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for task in done:
            if task.answer.done():
                continue
            if task.error is not None:
                task.answer.set_exception(task.error)
            else:
                task.answer.set_result(task.result)


class _BatchingCrew(_Crew):
    """A thread for each call from the beginning, up to the limit; one that has nothing to do for long leaves.

    Calls can only be joined when all of them have come as far as the batch, and waiting there costs little.
    """

    # threads that have nothing to do, less the tasks that wait for one
    _vacant = 0

    def _staff(self) -> None:
        with self._lock:
            self._vacant -= 1
        if self._vacant < 0 and self._threads < self._limit:
            self._free()
            self._hire()

    def _free(self) -> None:
        with self._lock:
            self._vacant += 1

    def _next(self) -> _Task | None:
        while True:
            try:
                task = self._queue.get(timeout=IDLE)
                break
            except Empty:
                with self._lock:
                    # a task that came just now counts on this thread
                    if self._threads > 1 and self._queue.empty():
                        self._threads -= 1
                        self._vacant -= 1
                        return None
        if task is None:
            self._queue.put(None)  # for the next thread to go home
        return task
