import asyncio
import threading
import weakref
from concurrent.futures import Future

import pytest

from tfserving.server.futures import CompletedFuture
from tfserving.server.worker_pool import WorkerPools, run_in_new_thread


@pytest.fixture
def run():
    """Runs a coroutine with worker pools for models "a" and "b", at most four threads each."""

    def run(body):
        async def main():
            pools = WorkerPools(4, lambda name: name in "ab")
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
        assert await pools.run("a", lambda x, y: CompletedFuture(x + y), 1, 2) == 3
        with pytest.raises(ZeroDivisionError):
            await pools.run("a", lambda: 1 / 0)
        results = await asyncio.gather(*(pools.run("ab"[i % 2], CompletedFuture, i) for i in range(500)))
        assert results == list(range(500))

    run(body)


def test_sequential_work_does_not_add_threads(run):
    async def body(pools):
        for _ in range(100):
            await pools.run("a", CompletedFuture, None)
        assert threads("a") <= 2  # a busy machine may delay the one thread long enough for a second

    run(body)


def test_blocked_threads_are_joined_by_others(run):
    meet = threading.Barrier(4)

    async def body(pools):
        # four tasks that wait for each other would never end in fewer threads
        await asyncio.gather(*(pools.run("a", done(meet.wait, 30)) for _ in range(4)))
        # and eight need two rounds of four
        await asyncio.gather(*(pools.run("a", done(meet.wait, 30)) for _ in range(8)))

    run(body)


def test_idle_threads_end_down_to_one(run, eventually):
    meet = threading.Barrier(4)

    async def body(pools):
        await asyncio.gather(*(pools.run("a", done(meet.wait, 30)) for _ in range(4)))
        eventually(lambda: threads("a") == 1)

    run(body)


def test_a_busy_model_does_not_delay_others(run):
    gate = threading.Event()

    async def body(pools):
        busy = [asyncio.ensure_future(pools.run("a", done(gate.wait, 30))) for _ in range(9)]
        assert await pools.run("b", CompletedFuture, 1) == 1
        assert await pools.run("unknown", CompletedFuture, 2) == 2
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
        busy = [asyncio.ensure_future(pools.run("a", block)) for _ in range(4)]
        await asyncio.to_thread(entered.wait, 30)
        late = asyncio.ensure_future(pools.run("a", done(started.append, 1)))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*busy)
        await pools.run("a", done(started.append, 2))

    run(body)
    assert started == [2]


def test_pending_work_holds_no_thread(run):
    pending = []

    def submit():
        pending.append(Future())
        return pending[-1]

    async def body(pools):
        waiting = [asyncio.ensure_future(pools.run("a", submit)) for _ in range(64)]
        while len(pending) < 64:
            await asyncio.sleep(0)
        for number, future in enumerate(pending):
            future.set_result(number)
        assert await asyncio.gather(*waiting) == list(range(64))
        failing = asyncio.ensure_future(pools.run("a", submit))
        while len(pending) < 65:
            await asyncio.sleep(0)
        pending[-1].set_exception(KeyError())
        with pytest.raises(KeyError):
            await failing

    run(body)


def test_pending_work_continues_in_a_worker_thread(run):
    source, failing = Future(), Future()
    submitted = threading.Semaphore(0)

    async def body(pools):
        def submit(future):
            continued = pools.then("a", future, lambda x: (x, threading.current_thread().name))
            submitted.release()
            return continued

        running = [asyncio.ensure_future(pools.run("a", submit, future)) for future in (source, failing)]
        for _ in running:
            await asyncio.to_thread(submitted.acquire, timeout=30)
        source.set_result(1)
        failing.set_exception(KeyError())
        assert await running[0] == (1, "worker-a")
        with pytest.raises(KeyError):
            await running[1]

    run(body)


def test_a_blocked_thread_does_not_delay_pending_work(run):
    source = Future()
    blocked, release = threading.Event(), threading.Event()

    def block():
        blocked.set()
        return CompletedFuture(release.wait(30))

    async def body(pools):
        waiting = asyncio.ensure_future(pools.run("a", lambda: pools.then("a", source, str)))
        blocking = asyncio.ensure_future(pools.run("a", block))
        await asyncio.to_thread(blocked.wait, 30)
        source.set_result(1)
        assert await waiting == "1"
        assert not blocking.done()
        release.set()
        await blocking

    run(body)


def test_work_runs_with_a_limit_of_0_threads():
    async def main():
        pools = WorkerPools(0, lambda name: True)
        assert await asyncio.wait_for(pools.run("a", CompletedFuture, 1), 30) == 1
        pools.shut_down()

    asyncio.run(main())


def test_shut_down_ends_the_threads(run, eventually):
    async def body(pools):
        await pools.run("b", CompletedFuture, 1)

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
        await pools.run("a", lambda value: CompletedFuture(None), given)
        del given
        eventually(lambda: reference() is None)

    run(body)
