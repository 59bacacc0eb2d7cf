from concurrent.futures import Future

import pytest

from tfserving.server.futures import CompletedFuture, attempt, gather, then


def failed(error):
    future = Future()
    future.set_exception(error)
    return future


def test_then_runs_immediately_if_the_future_is_done():
    assert then(CompletedFuture(1), lambda x: x + 1).result() == 2
    with pytest.raises(ZeroDivisionError):
        then(CompletedFuture(0), lambda x: 1 / x)
    with pytest.raises(KeyError):
        then(failed(KeyError()), lambda x: x)


def test_then_continues_when_the_future_completes():
    first, second, third = Future(), Future(), Future()
    chained = [then(future, lambda x: 1 / x) for future in (first, second, third)]
    assert not any(future.done() for future in chained)
    first.set_result(2)
    second.set_result(0)
    third.set_exception(KeyError())
    assert chained[0].result() == 0.5
    assert isinstance(chained[1].exception(), ZeroDivisionError)
    assert isinstance(chained[2].exception(), KeyError)


def test_a_completed_future_is_done():
    future = CompletedFuture("value")
    seen = []
    future.add_done_callback(seen.append)
    assert (future.done(), future.result(), future.exception(), seen) == (True, "value", None, [future])


def test_attempt_turns_an_error_into_a_failed_future():
    assert attempt(CompletedFuture, 1).result() == 1
    assert isinstance(attempt(lambda: 1 / 0).exception(), ZeroDivisionError)


def test_gather_keeps_the_order():
    first, second = Future(), Future()
    gathered = gather([first, CompletedFuture(2), second])
    second.set_result(3)
    assert not gathered.done()
    first.set_result(1)
    assert gathered.result() == [1, 2, 3]


def test_gather_fails_with_the_first_error_once_all_are_done():
    pending = Future()
    gathered = gather([failed(KeyError()), pending, failed(ValueError())])
    assert not gathered.done()
    pending.set_result(1)
    assert isinstance(gathered.exception(), KeyError)
