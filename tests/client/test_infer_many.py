"""infer_many of all four clients: order, failures of rows, look-ahead, closing, a server that restarts."""

import asyncio
import os
import threading
import time

import numpy as np
import pytest

from tests.client.clients import make_client
from tests.client.fakes import FakeRestServer, FakeRpcServer
from tests.process_usage import read_peak, read_usage, reset_peak
from tfserving.client import Retry
from tfserving.errors import (
    ExhaustedError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)


@pytest.fixture
def predict(service):
    """Replaces the function of the model by one that checks its inputs first."""

    def replace(check):
        functions = service.models["half"][2].functions
        original = functions["serving_default"]

        def call(inputs):
            check(inputs["x"])
            return original(inputs)

        functions["serving_default"] = call

    return replace


def ys(results):
    return [None if result.outputs is None else result.outputs["y"].item() for result in results]


def predict_count(service):
    return len([method for method in service.methods if method.lower().endswith("predict")])


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("infer_many")]


def test_yields_a_result_for_each_row_in_order(client, service):
    results = list(client.infer_many(range(25), batch_size=4, concurrency=3))
    assert [result.row for result in results] == list(range(25))
    assert ys(results) == [number / 2 + 2 for number in range(25)]
    assert all(result.error is None for result in results)
    assert {result.outputs["y"].shape for result in results} == {()}
    assert predict_count(service) == 7
    assert list(client.infer_many([])) == []


def test_takes_rows_as_dicts_and_options_as_infer(client):
    rows = [{"a": [number, 1], "b": number} for number in range(5)]
    results = list(client.infer_many(rows, batch_size=2, signature="pair", outputs="twice"))
    assert [result.outputs["twice"].item() for result in results] == [0, 2, 4, 6, 8]
    assert [result.outputs.keys() for result in results] == [{"twice"}] * 5
    assert ys(client.infer_many([0], version=1)) == [1]
    assert ys(client.infer_many([0], label="stable")) == [1]
    (result,) = client.infer_many([0], model="nobody")
    assert isinstance(result.error, NotFoundError)


def test_takes_arrays_and_strings(client):
    images = np.arange(12, dtype=np.int32).reshape(3, 2, 2)
    results = list(client.infer_many(images, batch_size=2, signature="int32"))
    assert [result.outputs["y"].tolist() for result in results] == images.tolist()
    texts = ["ä", b"a\x00", np.bytes_(b"b\x00"), ""]
    results = client.infer_many(texts, batch_size=4, signature="string")
    assert [result.outputs["y"].item() for result in results] == ["ä".encode(), b"a\x00", b"b\x00", b""]


def test_sends_rows_of_different_shapes_in_different_requests(client, service):
    rows = [np.zeros(2, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)]
    results = list(client.infer_many(rows, signature="float32"))
    assert [result.outputs["y"].shape for result in results] == [(2,), (3,), (3,)]


def test_finds_the_rows_that_the_server_rejects(client, predict):
    def check(x):
        if (x < 0).any():
            raise InvalidInputError("negative")

    predict(check)
    results = list(client.infer_many([1, -1, 3, 4, -5, -6, 7, 8, 9], batch_size=8))
    assert [result.row for result in results] == list(range(9))
    assert [result.row for result in results if result.error] == [1, 4, 5]
    assert ys(results) == [2.5, None, 3.5, 4, None, None, 5.5, 6, 6.5]
    assert isinstance(results[1].error, InvalidInputError)
    assert "negative" in str(results[1].error)
    assert results[1].error.address == client.address


@pytest.mark.parametrize(
    "row", ["text", [1, 2], {"z": 1}, {"x": "text"}, np.zeros(()), np.zeros(2, np.float32)]
)
def test_finds_a_row_that_does_not_fit_the_signature(client, row):
    one = np.ones((), np.float32)
    results = list(client.infer_many([one, row, one]))
    assert ys(results) == [2.5, None, 2.5]
    assert isinstance(results[1].error, InvalidInputError)


def test_sends_fewer_rows_if_the_server_accepts_no_more(client, predict):
    def check(x):
        if len(x) > 3:
            raise ExhaustedError("too large")

    predict(check)
    assert ys(client.infer_many(range(10), batch_size=10)) == [number / 2 + 2 for number in range(10)]


def test_an_error_of_a_request_is_that_of_its_rows_only(client, predict):
    def check(x):
        if 5 in x:
            raise NotFoundError("five")

    predict(check)
    results = list(client.infer_many(range(9), batch_size=3))
    assert [result.row for result in results if result.error] == [3, 4, 5]


def test_reports_an_output_whose_first_dimension_is_not_the_batch(client, service):
    service.models["half"][2].functions["serving_default"] = lambda inputs: {"y": inputs["x"][:1]}
    results = list(client.infer_many([1, 2], batch_size=2))
    assert all(isinstance(result.error, UnsupportedError) for result in results)
    assert "output 'y' has the shape (1,) for a request of 2 rows" in str(results[0].error)


def test_retries_until_the_timeout(connect, service):
    client = connect(retry=Retry(attempts=2, first_pause=0.001, longest_pause=0.001))
    service.failures = [UnavailableError("restarting") for _ in range(20)]
    assert ys(client.infer_many(range(4), batch_size=2)) == [2, 2.5, 3, 3.5]
    service.failures = [UnavailableError("restarting") for _ in range(1000)]
    (result,) = client.infer_many([1], timeout=0.05)
    assert result.error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_reads_a_bounded_number_of_rows_ahead(client):
    read = 0

    def rows():
        nonlocal read
        for number in range(1000):
            read = number
            yield number

    results = client.infer_many(rows(), batch_size=5, concurrency=2)
    for result in results:
        assert read < result.row + (2 * 2 + 1) * 5
    assert read == 999


def test_sends_up_to_as_many_requests_at_a_time(client, service):
    active, most = set(), 0
    lock = threading.Lock()
    full = threading.Event()

    def before(method):
        nonlocal most
        if not method.lower().endswith("predict"):
            return
        with lock:
            active.add(threading.get_ident())
            most = max(most, len(active))
            if len(active) == 3:
                full.set()
        assert full.wait(30)
        with lock:
            active.discard(threading.get_ident())

    client.infer([0])
    service.before = before
    assert len(list(client.infer_many(range(30), batch_size=1, concurrency=3))) == 30
    assert most == 3


def test_closing_starts_no_further_request(client, service):
    results = client.infer_many(range(1000), batch_size=1, concurrency=2)
    next(results)
    results.close()
    wait_for(lambda: not worker_threads())
    assert ys(client.infer_many([1])) == [2.5], "the client can still be used"
    assert predict_count(service) <= 2 * 2 + 1


def test_closing_does_not_wait_for_a_pause_or_for_a_response(connect, predict, blocked):
    client = connect(retry=Retry(first_pause=60, longest_pause=60))
    has_failed = threading.Event()

    def check(x):
        if x[0] == 0:  # an asyncio client sends nothing after this response
            assert has_failed.wait(30)
        if x[0] == 1:
            has_failed.set()
            raise UnavailableError("restarting")
        if x[0] > 1:
            blocked("Predict")

    predict(check)
    results = client.infer_many(range(100), batch_size=1, concurrency=2)
    next(results)
    assert has_failed.is_set()
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 20


def test_an_error_of_the_iterable_ends_the_results(client):
    def rows():
        yield 1
        raise KeyError("row 2")

    with pytest.raises(KeyError, match="row 2"):
        list(client.infer_many(rows()))
    wait_for(lambda: not worker_threads())


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (5, {}, "inputs is a int; pass an iterable of rows"),
        ({"x": [1]}, {}, "inputs is a dict; pass an iterable of rows"),
        ("abc", {}, "inputs is a str"),
        ([1], {"batch_size": 0}, "batch_size=0 is not valid; pass an int of 1 or more"),
        ([1], {"batch_size": 1.5}, "batch_size=1.5"),
        ([1], {"concurrency": True}, "concurrency=True"),
        ([1], {"outputs": 5}, "outputs=5"),
        ([1], {"timeout": -1}, "timeout=-1"),
        ([1], {"version": 1, "label": "a"}, "mutually exclusive"),
        ([1], {"model": "a\ud800"}, "model="),
    ],
)
def test_rejects_an_invalid_argument_before_anything_is_sent(client, service, inputs, options, words):
    with pytest.raises(InvalidInputError, match=words):
        client.infer_many(inputs, **options)
    assert service.methods == []


def test_a_key_sends_all_rows_to_one_label(connect, service):
    service.labels["half", "canary"] = 2
    client = connect(split={"stable": 1, "canary": 1})
    by_key = [set(ys(client.infer_many([0] * 5, batch_size=1, split_key=key))) for key in range(10)]
    assert {len(versions) for versions in by_key} == {1}
    assert set.union(*by_key) == {1, 2} == set(ys(client.infer_many([0] * 40, batch_size=1)))


@pytest.mark.parametrize("kind", ["aio", "aio_rest"])
def test_asyncio_clients_take_rows_that_arrive_asynchronously(client, kind):
    async def rows():
        for number in range(7):
            yield number

    assert ys(client.infer_many(rows(), batch_size=3)) == [number / 2 + 2 for number in range(7)]


def test_loses_no_row_and_no_memory_when_the_server_restarts(kind, service):
    server_class = FakeRestServer if "rest" in kind else FakeRpcServer
    count, this = 100_000, os.getpid()
    servers = [server_class(service)]
    servers[0].__enter__()

    def restart():
        servers.append(server_class(service, port=servers[0].port))
        servers[1].__enter__()

    start = threading.Timer(0.3, restart)
    done = before = 0

    def check(result):
        nonlocal done, before
        assert (result.row, result.error) == (done, None)
        assert result.outputs["y"] == done / 2 + 2
        done += 1
        if done == count // 5:
            reset_peak(this)
            before = read_usage(this).resident
        if done == count // 2:
            servers[0].__exit__()
            start.start()

    retry = Retry(attempts=2, first_pause=0.001, longest_pause=0.05)
    client = make_client(kind, servers[0].address, "half", retry=retry)

    async def check_async():
        async with client:
            async for result in client.infer_many(range(count), batch_size=1000):
                check(result)

    try:
        if "aio" in kind:
            asyncio.run(check_async())
        else:
            with client:
                for result in client.infer_many(range(count), batch_size=1000):
                    check(result)
        growth = read_peak(this) - before
    finally:
        start.join()
        servers[-1].__exit__()
    assert done == count
    assert growth < 15, "MB; the results alone would be 40"
