"""Which requests of a fast model run in the event loop, over both APIs."""

import gzip
import json
import threading

import pytest

from tests.server import apis
from tfserving.server import worker_pool
from tfserving.server.worker_pool import INLINE_BYTES
from tfserving.wire import messages, services
from tfserving.wire.model_spec import ModelSpec


@pytest.fixture(scope="module")
def server(in_loop):
    with apis.serve(in_loop) as running:
        yield running


@pytest.fixture
def threads(server, monkeypatch):
    """Makes the model fast; the names of the threads that ran it."""
    servable = server.loader.loaded["m", 3]
    names = []
    compute = servable.compute

    def noting(*args):
        names.append(threading.current_thread().name)
        return compute(*args)

    monkeypatch.setattr(worker_pool, "SLOW_SECONDS", 60.0)  # on a busy machine, any run may take a while
    monkeypatch.setattr(worker_pool, "TRY_PAUSE", 0.0)
    monkeypatch.setattr(servable, "is_fast", True)
    monkeypatch.setattr(servable, "compute", noting)
    return names


@pytest.fixture
def loop_thread(in_loop):
    async def name():
        return threading.current_thread().name

    return in_loop(name())


def body(values):
    return json.dumps({"inputs": [1.0] * values}).encode()


LARGE = INLINE_BYTES // 4


def test_small_predicts_run_in_the_event_loop(server, threads, loop_thread):
    assert server.call(services.PREDICT, apis.predict_request()) is not None
    assert server.rest.predict(body(1)).json == {"outputs": {"y": [3.0], "version": 3}}
    assert threads == [loop_thread] * 2


def test_large_requests_run_in_a_worker(server, threads):
    assert server.call(services.PREDICT, apis.predict_request(x=[1.0] * (LARGE + 1))) is not None
    assert server.rest.predict(body(LARGE)).status == 200
    assert threads == ["worker-m"] * 2


def test_compressed_bodies_run_in_a_worker(server, threads):
    assert server.rest.predict(gzip.compress(body(1)), {"Content-Encoding": "gzip"}).status == 200
    assert threads == ["worker-m"]


def test_examples_run_in_a_worker(server, threads):
    spec = ModelSpec("m", signature="regress").to_message()
    request = messages.RegressionRequest(model_spec=spec, input=apis.examples(1.0))
    assert server.call(services.REGRESS, request) is not None
    assert threads == ["worker-m"]


def test_errors_in_the_event_loop_are_those_of_a_worker(server, threads, loop_thread):
    responses = []
    for is_fast in (True, False):
        server.loader.loaded["m", 3].is_fast = is_fast
        responses.append(server.rest.predict({"inputs": [float("nan")]}))
    assert [response.status for response in responses] == [400, 400]
    assert responses[0].json == responses[1].json
    assert threads == [loop_thread, "worker-m"]
