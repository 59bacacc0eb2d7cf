"""Requests that mean a lot of memory or time, small or many, with a second caller beside them."""

import gc
import gzip
import socket
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.fuzz import corpus
from tests.process_usage import read_usage
from tests.server import apis
from tfserving.server.server_options import LimitOptions
from tfserving.wire import messages, predict, services
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec

# Seconds that the second caller may wait: several times the 0.4 s of an idle machine with 2 cores,
# since other tests may run on it. Without the limits, an attack takes from 4 to 14 s.
LONGEST_WAIT = 2.5


class SecondCaller:
    """Calls Predict over REST all the time; notes its longest wait, and how much memory this process took."""

    def __init__(self, server):
        self._server = server
        self._stop = threading.Event()
        self._pid = int(Path("/proc/self").resolve().name)
        self._before = self._resident()
        self.longest = self.megabytes = 0.0
        self._thread = threading.Thread(target=self._run)
        self._sampler = threading.Thread(target=self._sample)

    def _resident(self):
        return read_usage(self._pid).resident

    def _run(self):
        while not self._stop.is_set():
            started = time.perf_counter()
            assert self._server.rest.predict({"inputs": [1.0]}).status == 200
            self.longest = max(self.longest, time.perf_counter() - started)

    def _sample(self):
        while not self._stop.wait(0.01):
            self.megabytes = max(self.megabytes, self._resident() - self._before)

    def __enter__(self):
        self._thread.start()
        self._sampler.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._sampler.join()


@pytest.fixture(scope="module")
def server(in_loop):
    with apis.serve(in_loop) as running:
        running.loader.loaded["m", 3].is_fast = True  # what is small runs in the event loop: the harder case
        assert running.rest.predict({"inputs": [1.0]}).status == 200
        yield running


def predict_request(dtype, shape, **values):
    request = messages.PredictRequest()
    request.model_spec.name = "m"
    tensor = request.inputs["x"]
    tensor.dtype = dtype
    tensor.tensor_shape.dim.add(size=shape)
    for field, value in values.items():
        getattr(tensor, field).append(value)
    return request


@pytest.mark.parametrize(
    ("request_", "megabytes"),
    [
        (predict_request(DType.DT_INT8, 2**31 - 1, int_val=1), 20),
        (predict_request(DType.DT_FLOAT, 2**29 - 1, float_val=1), 20),
        (predict_request(DType.DT_STRING, 2**28 - 1, string_val=b"a"), 20),
        (predict_request(DType.DT_FLOAT, 2**22), 200),
    ],
    ids=["int8", "float32", "string", "largest that is filled"],
)
def test_a_shape_of_a_few_bytes(server, request_, megabytes):
    with SecondCaller(server) as caller:
        for _ in range(5):
            server.call(services.PREDICT, request_)
    assert caller.megabytes < megabytes
    assert caller.longest < LONGEST_WAIT


@pytest.mark.parametrize(
    ("body", "megabytes"),
    [
        (b'{"instances":[' + b"[]," * (64_000_000 // 3) + b"1]}", 250),
        (b'{"instances":[' + b'"",' * 4_000_000 + b"1", 400),
        (b'{"instances":[' + b"[]," * 750_000 + b"1]}", 300),
        (b'{"instances":[[' + b"0," * 10_000_000 + b"1]]}", 400),
        (b'{"instances":' + b"[" * 30_000_000, 250),
        (b'{"x":NaN,"instances":' + b'"' * 60_000_000, 300),
    ],
    ids=["too many lists", "strings", "lists", "numbers", "depth", "quotes"],
)
def test_a_compressed_body(server, body, megabytes):
    compressed = gzip.compress(body, 1)
    del body
    with SecondCaller(server) as caller:
        for _ in range(2):
            server.rest.predict(compressed, {"Content-Encoding": "gzip"})
    assert caller.megabytes < megabytes
    assert caller.longest < LONGEST_WAIT


@pytest.mark.parametrize(
    "body",
    [
        predict.encode_request(ModelSpec("m"), {"x": np.zeros(1_000_000, np.int32)}),
        predict.encode_request(ModelSpec("nobody"), {"x": np.zeros(1_000_000, np.float32)}),
        b"\x0a\x03\x0a\x01m" + b"\xff" * 4_000_000,
    ],
    ids=["dtype", "model", "not a message"],
)
def test_nothing_of_a_failed_call_stays_in_memory(server, body, eventually):
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            assert server.call(services.PREDICT, body) is None
        eventually(lambda: tracemalloc.get_traced_memory()[0] - before < 1e6)
    finally:
        tracemalloc.stop()
        gc.enable()


def test_waiting_predicts_have_bounded_bytes(in_loop):
    release = threading.Event()
    limits = LimitOptions(max_queued_bytes=64 << 20)
    request = predict.encode_request(ModelSpec("slow"), {"x": np.zeros(1 << 19, np.float32)}, ["version"])
    with apis.serve(in_loop, models=("m", "slow"), limits=limits) as server:
        slow = server.loader.loaded["slow", 3]
        compute = slow.compute
        slow.compute = lambda *args: release.wait(60) and compute(*args)
        in_flight = threading.Semaphore(100)
        calls = []
        with SecondCaller(server) as caller:
            for _ in range(1500):
                assert in_flight.acquire(timeout=30)
                calls.append(server.start_call(services.PREDICT, request))
                calls[-1].add_done_callback(lambda _: in_flight.release())
            while sum(not call.done() for call in calls) > 31:
                time.sleep(0.01)
        release.set()
        counts = Counter(call.code() for call in calls)
    assert counts == {grpc.StatusCode.OK: 31, grpc.StatusCode.RESOURCE_EXHAUSTED: 1469}
    assert "--max_queued_bytes=67108864" in calls[-1].details()
    # Twice the 100 in flight, here and in the client, and what waits; all of them have 3,000 MB.
    assert caller.megabytes < 700
    assert caller.longest < LONGEST_WAIT


@pytest.mark.parametrize("cancelled", [False, True], ids=["open", "cancelled"])
def test_streams_without_end(server, cancelled):
    block = corpus.header_block(services.PREDICT.path)
    flood = []
    for stream in range(1, 40_000, 2):
        flood.append(corpus.frame(corpus.HEADERS, 4, stream, block))
        if cancelled:
            flood.append(corpus.frame(corpus.RST_STREAM, 0, stream, b"\0\0\0\x08"))
    request = predict.encode_request(ModelSpec("m"), {"x": np.zeros(1, np.float32)})
    address = ("127.0.0.1", server.grpc_port)
    with SecondCaller(server) as caller, socket.create_connection(address, timeout=30) as peer:
        reader = threading.Thread(target=read_to_the_end, args=(peer,))
        reader.start()
        with suppress(ConnectionError):  # the server may close the connection
            peer.sendall(corpus.PREFACE + corpus.frame(corpus.SETTINGS, 0, 0, b""))
            peer.sendall(b"".join(flood))
        for _ in range(10):
            assert server.call(services.PREDICT, request) is not None
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
        reader.join()
    assert caller.megabytes < 100
    assert caller.longest < LONGEST_WAIT


def read_to_the_end(peer):
    with suppress(OSError):
        while peer.recv(1 << 16):
            pass


def test_200_requests_at_a_time_on_one_connection_wait_for_a_stream(server):
    request = predict.encode_request(ModelSpec("m"), {"x": np.zeros(1, np.float32)})
    in_flight = threading.Semaphore(200)
    calls = []
    for _ in range(1000):
        assert in_flight.acquire(timeout=30)
        calls.append(server.start_call(services.PREDICT, request))
        calls[-1].add_done_callback(lambda _: in_flight.release())
    assert Counter(call.code() for call in calls) == {grpc.StatusCode.OK: 1000}


def test_an_image_batch_of_38_mb_is_accepted(server):
    images = np.zeros(9_633_792, np.float32)
    request = predict.encode_request(ModelSpec("m"), {"x": images}, ["version"])
    assert server.call(services.PREDICT, request) is not None


def test_a_json_body_of_32_mb_is_accepted(server):
    body = b'{"inputs":[' + b"0.12345678," * 3_000_000 + b"1]}"
    assert server.rest.predict(body).status == 200


@pytest.mark.parametrize("name", [rb"\udc80", rb"\ud800", b"\xff"])
@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
def test_a_signature_name_that_is_not_unicode_is_a_bad_request(server, name, method):
    body = b'{"signature_name": "%b", "instances": [1.0], "examples": [{"x": 1.0}]}' % name
    assert server.rest.send("POST", f"/v1/models/m:{method}", body).status == 400
