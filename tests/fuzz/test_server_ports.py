"""After any bytes at its ports, the server responds to the next valid request and logs no traceback.

Meanwhile the server may allocate only MAX_GROWTH_MB more than when it is idle, and a second caller, which is
another process, waits at most TFSERVING_FUZZ_MAX_WAIT seconds (default: 2.5, since other tests may run on the
machine). With pytest's -s, the figures are printed at the end.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from http.client import HTTPConnection

import grpc
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.embedded import ROOT, embedded
from tests.fuzz import corpus
from tests.fuzz.mutations import mutated, pieces
from tests.fuzz.second_caller import SecondCaller
from tests.process_usage import limit_growth, read_peak, read_usage, reset_peak
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

pytestmark = [pytest.mark.fuzz, pytest.mark.tensorflow]

VALID_REQUEST = predict.encode_request(ModelSpec("half_plus_two"), {"x": np.array([[6.0]], np.float32)})
EXPECTED = 5.0

# Not UNKNOWN, which gRPC makes of an exception that the server did not handle.
REJECTIONS = {
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
}

MAX_GROWTH_MB = 2000.0
MAX_WAIT = float(os.environ.get("TFSERVING_FUZZ_MAX_WAIT") or 2.5)


class ServerUnderTest:
    """Connections to an embedded server that serves the models of the conformance cases."""

    def __init__(self, server, caller):
        self._server = server
        self._caller = caller
        self._channel = grpc.insecure_channel(server.grpc)
        self._rest = HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
        self._log_position = 0
        self.ports = {"gRPC": server.grpc_port, "REST": server.rest_port}
        self.assert_healthy()
        self._caller.measure()
        self._idle = read_usage(server.process.pid)
        reset_peak(server.process.pid)
        limit_growth(server.process.pid, MAX_GROWTH_MB)

    def close(self):
        """Print the figures, and close the connections."""
        pid = self._server.process.pid
        print(f"\nidle before: {self._idle}")
        print(f"peak: {read_peak(pid):.0f} MB, {self._growth:.0f} MB more (limit: {MAX_GROWTH_MB:.0f} MB)")
        print(f"at the end: {read_usage(pid)}")
        print(f"longest waits of the second caller (limit: {MAX_WAIT} s):")
        for api, longest in self._caller.longest.items():
            print(f"  {api}: {longest:.3f} s, in {self._caller.calls[api]:,} calls")
        self._channel.close()
        self._rest.close()

    def call(self, path, data):
        """Return the response to a gRPC call, or the name of its status."""
        try:
            return self._channel.unary_unary(path)(data, timeout=60)
        except grpc.RpcError as error:
            return error.code().name

    def send(self, api, parts, wait=0.05):
        """Send bytes on a new connection; return everything that the server sends until it closes it.

        Args:
            parts: the bytes, one send each.
            wait: seconds to wait for the response before closing the sending side; then the server must
                close the connection.
        """
        response = b""
        with socket.create_connection(("127.0.0.1", self.ports[api]), timeout=30) as peer:
            try:
                for part in parts:
                    peer.sendall(part)
                select.select([peer], [], [], wait)
                peer.shutdown(socket.SHUT_WR)
                while more := peer.recv(1 << 16):
                    response += more
            except TimeoutError:
                raise
            except OSError:
                pass  # the server may close the connection at any point
        return response

    @property
    def _growth(self):
        return read_peak(self._server.process.pid) - self._idle.resident

    def assert_within_limits(self):
        """Assert that memory and the waits of the second caller have been within their limits so far."""
        self._caller.measure()
        assert max(self._caller.longest.values()) <= MAX_WAIT, self._caller.longest
        assert self._growth <= MAX_GROWTH_MB

    def assert_healthy(self, example=None):
        """Assert that both APIs respond correctly and that the log has no new traceback.

        Args:
            example: what was sent before; printed if the second caller waited too long.
        """
        response = self.call(services.PREDICT.path, VALID_REQUEST)
        assert isinstance(response, bytes), f"a valid request returned {response}"
        assert predict.decode_response(response)[1]["y"].tolist() == [[EXPECTED]]
        self._rest.request("POST", "/v1/models/half_plus_two:predict", json.dumps({"instances": [[6.0]]}))
        assert json.loads(self._rest.getresponse().read()) == {"predictions": [[EXPECTED]]}
        with self._server.log.open("rb") as log:
            log.seek(self._log_position)
            new = log.read().decode(errors="replace")
            self._log_position = log.tell()
        assert "Traceback" not in new, new
        wait = self._caller.measure()
        if wait > MAX_WAIT:
            print(f"the second caller waited {wait:.3f} s beside {repr(example)[:500]}", flush=True)


def sometimes(rare, usual):
    """A strategy for one of `rare`, 1 in 20, or for `usual`."""
    return st.integers(0, 19).flatmap(lambda number: usual if number else st.sampled_from(rare))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    zoo = tmp_path_factory.mktemp("zoo")
    subprocess.run(
        [sys.executable, "-m", "tests.conformance.zoo", zoo],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    flags = [
        f"--model_config_file={zoo / 'models.config'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_grpc_healthcheck_service=true",
    ]
    with (
        embedded(tmp_path_factory.mktemp("log") / "log", *flags) as running,
        SecondCaller(running.grpc_port, running.rest_port) as caller,
    ):
        server = ServerUnderTest(running, caller)
        yield server
        server.close()


def test_survives_mutated_grpc_messages(fuzz, server):
    by_path = {path: [data for other, data in corpus.CALLS if other == path] for path, _ in corpus.CALLS}

    def check(example):
        path, data = example
        response = server.call(path, data)
        assert isinstance(response, bytes) or response in REJECTIONS
        server.assert_healthy(example)

    calls = [st.tuples(st.just(path), mutated(valid)) for path, valid in by_path.items()]
    fuzz(sometimes(corpus.amplifying_calls(), st.one_of(calls)), check)
    server.assert_within_limits()


def http2_frames():
    """A strategy for HTTP/2 frames, each nearly valid."""
    path = services.PREDICT.path
    stream = st.sampled_from([0, 1, 1, 1, 2, 3, 2**31 - 1, 2**32 - 1])
    flags = st.sampled_from([0, 1, 4, 5, 8, 0x20, 0xFF])
    payload = st.one_of(
        st.just(corpus.header_block(path)),
        mutated(
            [
                corpus.header_block(path),
                corpus.grpc_message(VALID_REQUEST),
                b"\0\0\0\0\1\0\0\0\5",
                b"\0\3\0\0\0\0",
            ]
        ),
        mutated([VALID_REQUEST]).map(corpus.grpc_message),
    )
    length = st.sampled_from([None, None, None, 0, 8, 2**14, 2**24 - 1])
    return st.builds(corpus.frame, st.integers(0, 11), flags, stream, payload, length)


def test_survives_bytes_at_the_grpc_port(fuzz, server):
    valid = corpus.grpc_call(services.PREDICT.path, VALID_REQUEST)
    assert b"grpc-status" in server.send("gRPC", [valid], 10), "the unchanged request is not valid"
    opening = corpus.PREFACE + corpus.frame(corpus.SETTINGS, 0, 0, b"")
    sequences = st.lists(http2_frames(), max_size=6).map(lambda frames: opening + b"".join(frames))
    data = st.one_of(mutated([valid, *corpus.HTTP_REQUESTS]), sequences, st.binary(max_size=300))

    def check(parts):
        server.send("gRPC", parts)
        server.assert_healthy(parts)

    fuzz(data.flatmap(pieces), check)
    server.assert_within_limits()


def test_survives_bytes_at_the_rest_port(fuzz, server):
    for request in corpus.HTTP_REQUESTS[:4]:
        assert server.send("REST", [request], 10).startswith(b"HTTP/1.1 200 OK")

    def check(parts):
        response = server.send("REST", parts)
        assert not response or response.startswith(b"HTTP/"), response
        assert b" 500 " not in response.partition(b"\r\n")[0], response
        server.assert_healthy(parts)

    usual = mutated([*corpus.HTTP_REQUESTS, corpus.PREFACE], corpus.HTTP_TOKENS)
    fuzz(sometimes(corpus.amplifying_http_requests(), usual).flatmap(pieces), check)
    server.assert_within_limits()
