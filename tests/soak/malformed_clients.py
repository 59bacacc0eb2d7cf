"""Misbehaving clients: invalid requests, random bytes, and requests that are abandoned."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import time

import grpc
import numpy as np

from tests.soak.load_generators import TIMEOUT, connect
from tests.soak.results import Results
from tests.soak.workers import Worker
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"

# The longest time in seconds that a connection stays half-open, and the largest number of them.
_HALF_OPEN_SECONDS = 20.0
_HALF_OPEN = 40


class InvalidRequestClient(Worker):
    """Sends invalid gRPC requests that are not conformance cases, and checks the status of each."""

    def __init__(self, name: str, results: Results, seed: int, grpc_address: str) -> None:
        super().__init__(name, results, seed)
        self._address = grpc_address
        valid = predict.encode_request(ModelSpec("half_plus_two"), {"x": np.ones((2, 1), np.float32)})
        custom = messages.ReloadConfigRequest(config={"custom_model_config": {}}).SerializeToString()
        self._requests: list[tuple[str, bytes, str]] = [
            (services.PREDICT.path, b"\xff\xff\xff", "INVALID_ARGUMENT"),
            (services.PREDICT.path, valid[:-3], "INVALID_ARGUMENT"),
            (services.PREDICT.path, b"", "INVALID_ARGUMENT"),
            (services.CLASSIFY.path, b"\x0a\xff", "INVALID_ARGUMENT"),
            (services.MULTI_INFERENCE.path, b"\x07", "INVALID_ARGUMENT"),
            (services.GET_MODEL_METADATA.path, b"", "INVALID_ARGUMENT"),
            (services.GET_MODEL_STATUS.path, b"\x0a", "INVALID_ARGUMENT"),
            (services.RELOAD_CONFIG.path, b"", "INVALID_ARGUMENT"),
            (services.RELOAD_CONFIG.path, b"\xff", "INVALID_ARGUMENT"),
            (services.RELOAD_CONFIG.path, custom, "INVALID_ARGUMENT"),
            ("/tensorflow.serving.PredictionService/Guess", valid, "UNIMPLEMENTED"),
            ("/", valid, "UNIMPLEMENTED"),
        ]

    def open(self) -> None:
        self._channel = connect(self._address)

    def step(self) -> None:
        path, data, expected = self.rng.choice(self._requests)
        try:
            self._channel.unary_unary(path)(data, timeout=TIMEOUT)
            status = "OK"
        except grpc.RpcError as error:
            status = error.code().name
        self.results.count("invalid requests")
        if status != expected:
            self.results.fail(f"{path} with {data!r} returned {status}, expected is {expected}")
        self.pause(0.01)

    def close(self) -> None:
        self._channel.close()


class RandomBytesClient(Worker):
    """Sends invalid bytes to both ports, in two pieces, then closes or resets the connection.

    Some connections stay half-open for a while: the client sends nothing more and reads nothing.
    """

    def __init__(self, name: str, results: Results, seed: int, ports: tuple[int, int]) -> None:
        super().__init__(name, results, seed)
        self._ports = ports
        self._half_open: list[tuple[float, socket.socket]] = []

    def step(self) -> None:
        while self._half_open and (
            self._half_open[0][0] < time.monotonic() or len(self._half_open) > _HALF_OPEN
        ):
            _disconnect(self._half_open.pop(0)[1], reset=self.rng.random() < 0.5)
        connection = socket.create_connection(("127.0.0.1", self.rng.choice(self._ports)), timeout=10)
        with contextlib.suppress(OSError):  # the server may close the connection at any point
            connection.settimeout(2)
            data = self._choose_bytes()
            middle = self.rng.randint(0, len(data))
            connection.sendall(data[:middle])
            if self.rng.random() < 0.5:
                self.pause(self.rng.random() / 20)
            connection.sendall(data[middle:])
            if self.rng.random() < 0.3:
                connection.recv(4096)
        if self.rng.random() < 0.3:
            self._half_open.append((time.monotonic() + self.rng.random() * _HALF_OPEN_SECONDS, connection))
            self.results.count("half-open connections")
        else:
            _disconnect(connection, reset=self.rng.random() < 0.5)
        self.results.count("connections with invalid bytes")
        self.pause(0.02)

    def close(self) -> None:
        while self._half_open:
            _disconnect(self._half_open.pop()[1], reset=True)

    def _choose_bytes(self) -> bytes:
        noise = self.rng.randbytes(self.rng.choice([0, 1, 9, 100, 5000, 70000]))
        frame = (
            struct.pack(">I", self.rng.choice([0, 4, len(noise), 2**24 - 1]))[1:]
            + self.rng.randbytes(2)
            + struct.pack(">I", self.rng.choice([0, 1, 3, 2**31 - 1]))
        )
        post = b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\n"
        head = post + b"Host: x\r\nContent-Length: %d\r\n" % self.rng.choice([3, 10**6, 10**30])
        chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
        return self.rng.choice(
            [
                b"",
                noise,
                _PREFACE + noise,
                _PREFACE + _SETTINGS + frame + noise,
                _PREFACE + _SETTINGS + b"\0\0\4\1\4\0\0\0\1" + b"\x82\x84\x86\x41",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,  # a TLS handshake
                b"GET /v1/models HTTP/9.9\r\n\r\n",
                b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
                b"GET / HTTP/1.1\r\nHost\0: " + noise + b"\r\n\r\n",
                head,
                head + b"\r\n" + noise,
                chunked + noise,
                chunked + b"3\r\nabc\r\nzz\r\n",
                post + b"Content-Length: 9\r\nContent-Encoding: gzip\r\n\r\n\x1f",
                b"GET /v1/models/half_plus_two HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
            ]
        )


class AbandoningClient(Worker):
    """Calls a slow model and abandons the request: by a deadline, by cancelling, by disconnecting."""

    def __init__(self, name: str, results: Results, seed: int, grpc_address: str, rest_address: str) -> None:
        super().__init__(name, results, seed)
        self._grpc, self._rest = grpc_address, rest_address
        self._request = predict.encode_request(ModelSpec("slow"), {"x": np.ones(2, np.float32)})

    def open(self) -> None:
        self._channel = connect(self._grpc)
        self._predict = self._channel.unary_unary(services.PREDICT.path)

    def step(self) -> None:
        self.rng.choice([self._exceed_deadline, self._cancel, self._disconnect, self._wait])()
        self.results.count("requests to a slow model")

    def _exceed_deadline(self) -> None:
        try:
            self._predict(self._request, timeout=self.rng.random() / 20)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise RuntimeError(
                    f"a request with a short deadline: {error.code()}: {error.details()}"
                ) from error

    def _cancel(self) -> None:
        call = self._predict.future(self._request, timeout=TIMEOUT)
        self.pause(self.rng.random() / 20)
        call.cancel()

    def _disconnect(self) -> None:
        connection = http.client.HTTPConnection(self._rest, timeout=TIMEOUT)
        connection.request("POST", "/v1/models/slow:predict", json.dumps({"instances": [1.0, 2.0]}))
        self.pause(self.rng.random() / 20)
        connection.close()

    def _wait(self) -> None:
        """Wait for a response: it comes in time only if the server does not run abandoned requests."""
        _, outputs = predict.decode_response(self._predict(self._request, timeout=TIMEOUT))
        if outputs["y"].tolist() != [1.0, 1.0]:
            self.results.fail(f"the slow model returned {outputs}")

    def close(self) -> None:
        self._channel.close()


def _disconnect(connection: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
