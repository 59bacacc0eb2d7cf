import asyncio
import threading
from functools import partial

import pytest

from tfserving.server.worker_pool import Workers


def running(body, **options):
    """Runs a coroutine with workers for models "a" and "b", at most four threads each."""

    async def main():
        workers = Workers(4, lambda name: name in "ab", **options)
        try:
            return await asyncio.wait_for(body(workers), 30)
        finally:
            workers.close()

    return asyncio.run(main())


@pytest.fixture(name="run")
def run_fixture():
    """As `running`."""
    return running


@pytest.fixture
def run_batching():
    """The same with workers for calls that make batches."""
    return partial(running, batching=True)


def test_results_and_errors_arrive(run):
    async def body(workers):
        assert await workers.run("a", lambda x, y: x + y, 1, 2) == 3
        with pytest.raises(ZeroDivisionError):
            await workers.run("a", lambda: 1 / 0)
        answers = await asyncio.gather(*(workers.run("ab"[i % 2], lambda x: x, i) for i in range(500)))
        assert answers == list(range(500))

    run(body)


def test_a_quick_model_is_served_by_one_thread(run):
    async def body(workers):
        names = [await workers.run("a", threading.get_ident) for _ in range(100)]
        assert len(set(names)) <= 2

    run(body)


def test_slow_calls_run_side_by_side_up_to_the_limit(run):
    meet = threading.Barrier(4)

    async def body(workers):
        # four calls that wait for each other would never end in fewer threads
        await asyncio.gather(*(workers.run("a", meet.wait, 30) for _ in range(4)))
        # and eight need two rounds of four
        await asyncio.gather(*(workers.run("a", meet.wait, 30) for _ in range(8)))

    run(body)


def test_threads_leave_when_there_is_nothing_to_do(run, eventually):
    meet = threading.Barrier(4)

    def threads():
        return sum(thread.name == "run-a" for thread in threading.enumerate())

    async def body(workers):
        await asyncio.gather(*(workers.run("a", meet.wait, 30) for _ in range(4)))
        eventually(lambda: threads() == 1)

    run(body)


def test_a_model_with_all_its_threads_busy_leaves_others_theirs(run):
    gate = threading.Event()

    async def body(workers):
        busy = [asyncio.ensure_future(workers.run("a", gate.wait, 30)) for _ in range(9)]
        assert await workers.run("b", lambda: 1) == 1
        assert await workers.run("invented", lambda: 2) == 2
        gate.set()
        await asyncio.gather(*busy)

    run(body)


def test_a_call_that_was_given_up_is_not_begun(run):
    gate = threading.Event()
    begun = []

    async def body(workers):
        busy = [asyncio.ensure_future(workers.run("a", gate.wait, 30)) for _ in range(4)]
        await asyncio.sleep(0)
        while workers._crews["a"]._threads < 4:
            await asyncio.sleep(0)
        late = asyncio.ensure_future(workers.run("a", begun.append, 1))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*busy)
        await workers.run("a", begun.append, 2)

    run(body)
    assert begun == [2]


def test_calls_that_make_a_batch_have_a_thread_each_at_once_and_again(run_batching, eventually):
    meet = threading.Barrier(4)
    threads = []

    def work():
        threads.append(threading.get_ident())
        meet.wait(30)

    async def body(workers):
        for _ in range(3):
            calls = [asyncio.ensure_future(workers.run("a", work)) for _ in range(8)]
            await asyncio.sleep(0)
            # no time has passed in which to see that work waits
            assert workers._crews["a"]._threads == 4
            await asyncio.gather(*calls)
        late = asyncio.ensure_future(workers.run("a", threads.append, 0))
        late.cancel()
        assert await workers.run("a", lambda: "served") == "served"

    run_batching(body)
    assert len(set(threads) - {0}) == 4
    eventually(lambda: not any(thread.name == "run-a" for thread in threading.enumerate()))


def test_one_caller_needs_one_thread_for_batches_too(run_batching):
    async def body(workers):
        names = [await workers.run("a", threading.get_ident) for _ in range(100)]
        assert len(set(names)) == 1

    run_batching(body)


def test_threads_for_batches_leave_when_there_is_nothing_to_do_and_come_back(
    run_batching, eventually, monkeypatch
):
    monkeypatch.setattr("tfserving.server.worker_pool.IDLE", 0.01)

    def threads():
        return sum(thread.name == "run-a" for thread in threading.enumerate())

    async def body(workers):
        for _ in range(3):
            together = threading.Barrier(4, timeout=20)
            await asyncio.gather(*(workers.run("a", together.wait) for _ in range(4)))
            await asyncio.to_thread(eventually, lambda: threads() == 1)

    run_batching(body)


@pytest.mark.parametrize("batching", [False, True])
def test_there_is_always_one_thread(batching):
    async def main():
        workers = Workers(0, lambda name: True, batching=batching)
        assert await asyncio.wait_for(workers.run("a", lambda: 1), 30) == 1
        workers.close()

    asyncio.run(main())
