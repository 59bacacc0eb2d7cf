"""Whatever comes in at its ports, the server answers the next good request and logs no failure of its own."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.conformance import compare
from tests.embedded import ROOT, embedded
from tests.fuzz import corpus
from tests.fuzz.mutations import mutated, pieces
from tests.fuzz.rounds import fuzz
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

pytestmark = [pytest.mark.fuzz, pytest.mark.tensorflow]

GOOD = predict.encode_request(ModelSpec("half_plus_two"), {"x": np.array([[6.0]], np.float32)})
ANSWER = 5.0

# What a refusal may be called; UNKNOWN is what gRPC makes of an exception that nobody expected.
REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "INTERNAL"}


class Server:
    """The embedded server with the models of the conformance cases."""

    def __init__(self, server):
        self._server = server
        self._channel = grpc.insecure_channel(server.grpc)
        self._rest = HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
        self._read = 0
        self.ports = {"gRPC": server.grpc_port, "REST": server.rest_port}

    def close(self):
        """Closes our connections to it."""
        self._channel.close()
        self._rest.close()

    def call(self, path, data):
        """The answer to a gRPC call, or the name of the status."""
        try:
            return self._channel.unary_unary(path)(data, timeout=60)
        except grpc.RpcError as error:
            return error.code().name

    def send(self, api, parts, patience=0.05):
        """Sends bytes on a connection of their own; returns what comes back until the server closes it.

        Args:
            patience: seconds to wait for an answer before telling the server that nothing more comes; then
                it must close.
        """
        answer = b""
        with socket.create_connection(("127.0.0.1", self.ports[api]), timeout=30) as peer:
            try:
                for part in parts:
                    peer.sendall(part)
                select.select([peer], [], [], patience)
                peer.shutdown(socket.SHUT_WR)
                while more := peer.recv(1 << 16):
                    answer += more
            except TimeoutError:
                raise
            except OSError:
                pass  # it was closed in our face
        return answer

    def assert_well(self):
        """Fails if the server does not answer as it should, or has logged a failure."""
        answer = self.call(services.PREDICT.path, GOOD)
        assert isinstance(answer, bytes), f"a good call was answered with {answer}"
        assert predict.decode_response(answer)[1]["y"].tolist() == [[ANSWER]]
        self._rest.request("POST", "/v1/models/half_plus_two:predict", json.dumps({"instances": [[6.0]]}))
        assert json.loads(self._rest.getresponse().read()) == {"predictions": [[ANSWER]]}
        with self._server.log.open("rb") as log:
            log.seek(self._read)
            new = log.read().decode(errors="replace")
            self._read = log.tell()
        assert "Traceback" not in new, new


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    zoo = tmp_path_factory.mktemp("zoo")
    subprocess.run(
        [sys.executable, Path(compare.__file__).with_name("zoo.py"), zoo],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    flags = [
        f"--model_config_file={zoo / 'models.config'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_grpc_healthcheck_service=true",
    ]
    with embedded(tmp_path_factory.mktemp("log") / "log", *flags) as running:
        server = Server(running)
        yield server
        server.close()


def test_calls_over_grpc(server):
    by_path = {path: [data for other, data in corpus.CALLS if other == path] for path, _ in corpus.CALLS}

    def check(example):
        path, data = example
        answer = server.call(path, data)
        assert isinstance(answer, bytes) or answer in REFUSED
        server.assert_well()

    calls = [st.tuples(st.just(path), mutated(right)) for path, right in by_path.items()]
    fuzz(st.one_of(calls), check)


def frames():
    """Frames of HTTP/2 that make sense by themselves, in any order."""
    path = services.PREDICT.path
    stream = st.sampled_from([0, 1, 1, 1, 2, 3, 2**31 - 1, 2**32 - 1])
    flags = st.sampled_from([0, 1, 4, 5, 8, 0x20, 0xFF])
    payload = st.one_of(
        st.just(corpus.header_block(path)),
        mutated(
            [corpus.header_block(path), corpus.grpc_message(GOOD), b"\0\0\0\0\1\0\0\0\5", b"\0\3\0\0\0\0"]
        ),
        mutated([GOOD]).map(corpus.grpc_message),
    )
    length = st.sampled_from([None, None, None, 0, 8, 2**14, 2**24 - 1])
    return st.builds(corpus.frame, st.integers(0, 11), flags, stream, payload, length)


def test_bytes_at_the_grpc_port(server):
    whole = corpus.grpc_call(services.PREDICT.path, GOOD)
    assert b"grpc-status" in server.send("gRPC", [whole], 10), (
        "what is to be changed is not right to begin with"
    )
    opening = corpus.PREFACE + corpus.frame(corpus.SETTINGS, 0, 0, b"")
    sequences = st.lists(frames(), max_size=6).map(lambda made: opening + b"".join(made))
    data = st.one_of(mutated([whole, *corpus.HTTP_REQUESTS]), sequences, st.binary(max_size=300))

    def check(parts):
        server.send("gRPC", parts)
        server.assert_well()

    fuzz(data.flatmap(pieces), check)


def test_bytes_at_the_rest_port(server):
    for request in corpus.HTTP_REQUESTS[:4]:
        assert server.send("REST", [request], 10).startswith(b"HTTP/1.1 200 OK")

    def check(parts):
        answer = server.send("REST", parts)
        assert not answer or answer.startswith(b"HTTP/"), answer
        assert b" 500 " not in answer.partition(b"\r\n")[0], answer
        server.assert_well()

    fuzz(mutated([*corpus.HTTP_REQUESTS, corpus.PREFACE], corpus.HTTP_WORDS).flatmap(pieces), check)
