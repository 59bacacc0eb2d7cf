import asyncio
import threading
import time
import weakref
from concurrent.futures import Future

import pytest

from tfserving.errors import ExhaustedError
from tfserving.server import worker_pool
from tfserving.server.core.servable import NotKnownFastError
from tfserving.server.futures import CompletedFuture
from tfserving.server.request_context import RequestContext
from tfserving.server.server_options import LimitOptions
from tfserving.server.worker_pool import INLINE_BYTES, WorkerPools, run_in_new_thread


@pytest.fixture
def run():
    """Runs a coroutine with worker pools for models "a" and "b", at most four threads each."""

    def run(body):
        async def main():
            pools = WorkerPools(4, lambda name: name in "ab", LimitOptions())
            try:
                return await asyncio.wait_for(body(pools), 30)
            finally:
                pools.shut_down()

        return asyncio.run(main())

    return run


def done(function, *args):
    """The function with its result as a future that is done."""
    return lambda: CompletedFuture(function(*args))


def threads(model):
    """How many worker threads a model has."""
    return sum(thread.name == f"worker-{model}" for thread in threading.enumerate())


def test_delivers_results_and_errors(run):
    async def body(pools):
        assert await pools.run("a", 0, lambda x, y: CompletedFuture(x + y), 1, 2) == 3
        with pytest.raises(ZeroDivisionError):
            await pools.run("a", 0, lambda: 1 / 0)
        results = await asyncio.gather(*(pools.run("ab"[i % 2], 0, CompletedFuture, i) for i in range(500)))
        assert results == list(range(500))

    run(body)


def test_sequential_work_does_not_add_threads(run):
    async def body(pools):
        for _ in range(100):
            await pools.run("a", 0, CompletedFuture, None)
        assert threads("a") <= 2  # a busy machine may delay the one thread long enough for a second

    run(body)


def test_blocked_threads_are_joined_by_others(run):
    meet = threading.Barrier(4)

    async def body(pools):
        # four tasks that wait for each other would never end in fewer threads
        await asyncio.gather(*(pools.run("a", 0, done(meet.wait, 30)) for _ in range(4)))
        # and eight need two rounds of four
        await asyncio.gather(*(pools.run("a", 0, done(meet.wait, 30)) for _ in range(8)))

    run(body)


def test_idle_threads_end_down_to_one(run, eventually):
    meet = threading.Barrier(4)

    async def body(pools):
        await asyncio.gather(*(pools.run("a", 0, done(meet.wait, 30)) for _ in range(4)))
        eventually(lambda: threads("a") == 1)

    run(body)


def test_a_busy_model_does_not_delay_others(run):
    gate = threading.Event()

    async def body(pools):
        busy = [asyncio.ensure_future(pools.run("a", 0, done(gate.wait, 30))) for _ in range(9)]
        assert await pools.run("b", 0, CompletedFuture, 1) == 1
        assert await pools.run("unknown", 0, CompletedFuture, 2) == 2
        gate.set()
        await asyncio.gather(*busy)

    run(body)


def test_cancelled_work_does_not_start(run):
    gate = threading.Event()
    entered = threading.Barrier(5)
    started = []

    def block():
        entered.wait(30)
        return CompletedFuture(gate.wait(30))

    async def body(pools):
        busy = [asyncio.ensure_future(pools.run("a", 0, block)) for _ in range(4)]
        await asyncio.to_thread(entered.wait, 30)
        late = asyncio.ensure_future(pools.run("a", 0, done(started.append, 1)))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*busy)
        await pools.run("a", 0, done(started.append, 2))

    run(body)
    assert started == [2]


def test_pending_work_holds_no_thread(run):
    pending = []

    def submit():
        future = Future()  # several threads submit, in any order
        pending.append(future)
        return future

    async def body(pools):
        waiting = [asyncio.ensure_future(pools.run("a", 0, submit)) for _ in range(64)]
        while len(pending) < 64:
            await asyncio.sleep(0)
        for number, future in enumerate(pending):
            future.set_result(number)
        assert sorted(await asyncio.gather(*waiting)) == list(range(64))
        failing = asyncio.ensure_future(pools.run("a", 0, submit))
        while len(pending) < 65:
            await asyncio.sleep(0)
        pending[-1].set_exception(KeyError())
        with pytest.raises(KeyError):
            await failing

    run(body)


def test_pending_work_continues_in_the_event_loop_or_with_a_large_result_in_a_worker(run, monkeypatch):
    monkeypatch.setattr(worker_pool, "SLOW_SECONDS", 60.0)  # on a busy machine, any work may take a while
    small, large, failing = Future(), Future(), Future()
    submitted = threading.Semaphore(0)

    async def body(pools):
        def submit(future):
            continued = pools.then(
                "a", future, lambda x: threading.current_thread().name, int, RequestContext()
            )
            submitted.release()
            return continued

        running = [
            asyncio.ensure_future(pools.run("a", 0, submit, future)) for future in (small, large, failing)
        ]
        for _ in running:
            await asyncio.to_thread(submitted.acquire, timeout=30)
        await asyncio.to_thread(small.set_result, INLINE_BYTES)
        large.set_result(INLINE_BYTES + 1)
        failing.set_exception(KeyError())
        assert await running[0] == "MainThread"
        assert await running[1] == "worker-a"
        with pytest.raises(KeyError):
            await running[2]

    run(body)


def continue_together(pools, count, function):
    """The responses of pending work that the event loop completes at one time, in its next iteration."""
    sources = [Future() for _ in range(count)]
    responses = [
        pools.run_where_fast(
            "a",
            0,
            lambda context, source=source: pools.then("a", source, function, int, context),
            RequestContext(),
        )
        for source in sources
    ]
    for source in sources:
        source.set_result(0)
    return responses


@pytest.mark.parametrize("batch_sizes", [(3,), (1, 1, 1)])
def test_after_a_slow_continuation_in_the_event_loop_a_model_continues_in_workers(
    run, monkeypatch, batch_sizes
):
    monkeypatch.setattr(worker_pool, "SLOW_SECONDS", 0.1)
    names = []

    def continue_slowly(_):
        names.append(threading.current_thread().name)
        time.sleep(0.2)  # 40 s without another run in the event loop

    async def body(pools):
        for size in batch_sizes:
            await asyncio.gather(*continue_together(pools, size, continue_slowly))

    run(body)
    assert names == ["MainThread", "worker-a", "worker-a"]


def test_many_continuations_do_not_keep_the_event_loop_from_other_work(run, monkeypatch):
    monkeypatch.setattr(worker_pool, "SLOW_SECONDS", 0.5)
    continued, seen = [], []

    def continue_for_a_while(_):
        time.sleep(0.2)
        continued.append(threading.current_thread().name)

    async def body(pools):
        responses = continue_together(pools, 6, continue_for_a_while)
        while len(continued) < 6:
            await asyncio.sleep(0)
            seen.append(len(continued))
        await asyncio.gather(*responses)

    run(body)
    assert len(set(seen) - {0, 6}) > 0


def test_a_response_that_cannot_be_delivered_does_not_affect_others(run):
    async def body(pools):
        def fail():
            raise StopIteration  # asyncio futures do not take it

        pools.run("a", 0, fail)
        assert await pools.run("a", 0, CompletedFuture, 1) == 1

    run(body)


def test_a_blocked_thread_does_not_delay_pending_work(run):
    source = Future()
    blocked, release = threading.Event(), threading.Event()

    def block():
        blocked.set()
        return CompletedFuture(release.wait(30))

    async def body(pools):
        waiting = asyncio.ensure_future(
            pools.run(
                "a", 0, lambda: pools.then("a", source, str, lambda _: INLINE_BYTES + 1, RequestContext())
            )
        )
        blocking = asyncio.ensure_future(pools.run("a", 0, block))
        await asyncio.to_thread(blocked.wait, 30)
        source.set_result(1)
        assert await waiting == "1"
        assert not blocking.done()
        release.set()
        await blocking

    run(body)


def test_work_runs_with_a_limit_of_0_threads():
    async def main():
        pools = WorkerPools(0, lambda name: True, LimitOptions())
        assert await asyncio.wait_for(pools.run("a", 0, CompletedFuture, 1), 30) == 1
        pools.shut_down()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("limits", "size", "accepted", "message"),
    [
        (LimitOptions(max_queued_requests=6), 0, 6, r"6 requests for model 'a' .*--max_queued_requests=6"),
        (LimitOptions(max_queued_bytes=70), 10, 7, r"7 requests of 70 bytes .*--max_queued_bytes=70"),
        (LimitOptions(max_queued_bytes=70), 100, 1, r"1 requests of 100 bytes .*--max_queued_bytes=70"),
    ],
)
def test_rejects_work_beyond_a_limit_of_the_model_until_other_work_is_done(limits, size, accepted, message):
    async def main():
        pools = WorkerPools(1, lambda name: name in "ab", limits)
        source = Future()
        waiting = [pools.run("a", size, lambda: source) for _ in range(accepted)]
        with pytest.raises(ExhaustedError, match=message):
            pools.run("a", size, CompletedFuture, 1)
        assert await pools.run("b", size, CompletedFuture, 1) == 1
        assert await pools.run("unknown", size, CompletedFuture, 1) == 1
        source.set_result(2)
        assert await asyncio.gather(*waiting) == [2] * accepted
        assert await pools.run("a", size, CompletedFuture, 3) == 3
        pools.shut_down()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_work_that_the_event_loop_has_begun_counts_for_the_limits_while_it_is_pending():
    async def main():
        pools = WorkerPools(1, lambda name: True, LimitOptions(max_queued_requests=2))
        sources = [Future(), Future()]
        waiting = [
            pools.run_where_fast("a", 0, lambda _, future=future: future, RequestContext())
            for future in sources
        ]
        work = Work()
        with pytest.raises(ExhaustedError):
            pools.run_where_fast("a", 0, work, RequestContext())
        assert work.tries == 0
        await asyncio.to_thread(sources[0].set_result, 1)
        sources[1].set_exception(KeyError())
        assert await waiting[0] == 1
        with pytest.raises(KeyError):
            await waiting[1]
        assert await pools.run_where_fast("a", 0, work, RequestContext(), 2) == 2
        pools.shut_down()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_cancelled_work_counts_until_it_leaves_the_queue():
    async def main():
        pools = WorkerPools(1, lambda name: True, LimitOptions(max_queued_requests=2))
        release = threading.Event()
        busy = pools.run("a", 0, done(release.wait, 30))
        pools.run("a", 0, CompletedFuture, 1).cancel()
        with pytest.raises(ExhaustedError):
            pools.run("a", 0, CompletedFuture, 1)
        release.set()
        await busy
        while True:
            try:
                assert await pools.run("a", 0, CompletedFuture, 1) == 1
                break
            except ExhaustedError:
                await asyncio.sleep(0.01)
        pools.shut_down()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_shut_down_ends_the_threads(run, eventually):
    async def body(pools):
        await pools.run("b", 0, CompletedFuture, 1)

    run(body)
    eventually(lambda: threads("b") == 0)


def test_run_in_new_thread_delivers_results_and_errors():
    async def main():
        assert await run_in_new_thread(lambda x: x + 1, 1) == 2
        with pytest.raises(ZeroDivisionError):
            await run_in_new_thread(lambda: 1 / 0)

    asyncio.run(main())


def test_an_idle_thread_holds_nothing_of_its_last_work(run, eventually):
    class Body:
        pass

    async def body(pools):
        given = Body()
        reference = weakref.ref(given)
        await pools.run("a", 0, lambda value: CompletedFuture(None), given)
        del given
        eventually(lambda: reference() is None)

    run(body)


class Work:
    """Work for `run_where_fast` that notes where it runs; in the event loop it takes `seconds`."""

    def __init__(self, *, is_fast=True, seconds=0.0):
        self.is_fast = is_fast
        self.seconds = seconds
        self.tries = 0
        self.in_event_loop = []

    def __call__(self, context, value=None):
        self.tries += 1
        if context.in_event_loop and not self.is_fast:
            raise NotKnownFastError
        self.in_event_loop.append(threading.current_thread() is threading.main_thread())
        assert self.in_event_loop[-1] == context.in_event_loop
        if context.in_event_loop:
            time.sleep(self.seconds)
        if isinstance(value, Exception):
            raise value
        return CompletedFuture(value)


def test_fast_work_runs_in_the_event_loop(run, monkeypatch):
    monkeypatch.setattr(worker_pool, "SLOW_SECONDS", 60.0)  # on a busy machine, any work may take a while
    work = Work()

    async def body(pools):
        responses = [pools.run_where_fast("a", 0, work, RequestContext(), value) for value in range(3)]
        assert [response.result() for response in responses] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            await pools.run_where_fast("a", 0, work, RequestContext(), ZeroDivisionError())

    run(body)
    assert work.in_event_loop == [True] * 4


def test_work_that_is_not_known_to_be_fast_runs_in_a_worker(run, monkeypatch):
    monkeypatch.setattr(worker_pool, "TRY_PAUSE", 60.0)
    work = Work(is_fast=False)

    async def body(pools):
        assert await pools.run_where_fast("a", 0, work, RequestContext(), 1) == 1
        # not tried in the event loop again
        assert [await pools.run_where_fast("a", 0, work, RequestContext(), value) for value in (2, 3)] == [
            2,
            3,
        ]
        other = Work()
        assert await pools.run_where_fast("b", 0, other, RequestContext(), 4) == 4
        assert other.in_event_loop == [True]

    run(body)
    assert work.in_event_loop == [False] * 3
    assert work.tries == 4


def test_a_large_request_runs_in_a_worker(run):
    work = Work()

    async def body(pools):
        for size in (INLINE_BYTES, INLINE_BYTES + 1):
            await pools.run_where_fast("a", size, work, RequestContext())

    run(body)
    assert work.in_event_loop == [True, False]


def test_after_a_slow_run_in_the_event_loop_a_model_runs_in_workers(run):
    work = Work(seconds=0.2)  # 40 s without another run in the event loop

    async def body(pools):
        for _ in range(50):
            await pools.run_where_fast("a", 0, work, RequestContext())

    run(body)
    assert work.in_event_loop == [True] + [False] * 49


def test_a_waiting_request_does_not_keep_a_fast_one_from_the_event_loop(run):
    gate = threading.Event()
    work = Work()

    async def body(pools):
        busy = pools.run("a", 0, done(gate.wait, 30))
        assert await pools.run_where_fast("a", 0, work, RequestContext(), 1) == 1
        gate.set()
        await busy

    run(body)
    assert work.in_event_loop == [True]


def test_a_large_result_of_the_event_loop_continues_in_a_worker(run):
    async def body(pools):
        def make(context, size):
            done = CompletedFuture(size)
            return pools.then("a", done, lambda _: threading.current_thread().name, int, context)

        names = [
            await pools.run_where_fast("a", 0, make, RequestContext(), size)
            for size in (INLINE_BYTES, INLINE_BYTES + 1)
        ]
        assert names == ["MainThread", "worker-a"]

    run(body)


def test_the_last_thread_ends_when_there_is_no_work_and_another_one_starts(run, monkeypatch, eventually):
    monkeypatch.setattr(worker_pool, "IDLE_SECONDS", 0.01)

    async def body(pools):
        for expected in range(3):
            assert await pools.run("a", 0, CompletedFuture, expected) == expected
            await asyncio.to_thread(eventually, lambda: threads("a") == 0)

    run(body)


def test_no_work_is_lost_when_threads_end(run, monkeypatch):
    monkeypatch.setattr(worker_pool, "IDLE_SECONDS", 0.0)

    async def body(pools):
        for expected in range(1000):
            assert await pools.run("a", 0, CompletedFuture, expected) == expected

    run(body)


def test_work_waits_until_a_thread_can_be_started(run, monkeypatch, caplog):
    monkeypatch.setattr(worker_pool, "RETRY_SECONDS", 0.1)
    start, attempts = threading.Thread.start, []

    def refuse_twice(thread):
        attempts.append(thread.name)
        if len(attempts) <= 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def body(pools):
        monkeypatch.setattr(threading.Thread, "start", refuse_twice)
        assert await asyncio.gather(*(pools.run("a", 0, CompletedFuture, n) for n in (1, 2))) == [1, 2]

    run(body)
    assert len(attempts) >= 3
    assert "raise the limit of threads" in caplog.text
