"""Those who send what must be refused, what is no request at all, and those who leave without a word."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import time

import grpc
import numpy as np

from tests.soak.actors import Actor
from tests.soak.callers import TIMEOUT, connected
from tests.soak.record import Record
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"

# Seconds that a socket may stay half-open, and how many may be so.
_HALF_OPEN_SECONDS = 20.0
_HALF_OPEN = 40


class Refused(Actor):
    """Sends gRPC requests that no recorded case has, and wants the right code for each."""

    def __init__(self, name: str, record: Record, seed: int, grpc_address: str) -> None:
        super().__init__(name, record, seed)
        self._address = grpc_address
        good = predict.encode_request(ModelSpec("half_plus_two"), {"x": np.ones((2, 1), np.float32)})
        config = messages.ReloadConfigRequest
        self._requests: list[tuple[str, bytes, str]] = [
            (services.PREDICT.path, b"\xff\xff\xff", "INVALID_ARGUMENT"),
            (services.PREDICT.path, good[:-3], "INVALID_ARGUMENT"),
            (services.PREDICT.path, b"", "INVALID_ARGUMENT"),
            (services.CLASSIFY.path, b"\x0a\xff", "INVALID_ARGUMENT"),
            (services.MULTI_INFERENCE.path, b"\x07", "INVALID_ARGUMENT"),
            (services.GET_MODEL_METADATA.path, b"", "INVALID_ARGUMENT"),
            (services.GET_MODEL_STATUS.path, b"\x0a", "INVALID_ARGUMENT"),
            (services.RELOAD_CONFIG.path, b"", "INVALID_ARGUMENT"),
            (services.RELOAD_CONFIG.path, b"\xff", "INVALID_ARGUMENT"),
            (
                services.RELOAD_CONFIG.path,
                config(config={"custom_model_config": {}}).SerializeToString(),
                "INVALID_ARGUMENT",
            ),
            ("/tensorflow.serving.PredictionService/Guess", good, "UNIMPLEMENTED"),
            ("/", good, "UNIMPLEMENTED"),
        ]

    def open(self) -> None:
        self._channel = connected(self._address)

    def act(self) -> None:
        path, data, code = self.random.choice(self._requests)
        try:
            self._channel.unary_unary(path)(data, timeout=TIMEOUT)
            got = "OK"
        except grpc.RpcError as error:
            got = error.code().name
        self.record.count("refused")
        if got != code:
            self.record.wrong(f"{path} with {data!r}: {got}, not {code}")
        self.rest(0.01)

    def close(self) -> None:
        self._channel.close()


class Garbage(Actor):
    """Sends bytes that are no requests to both ports, in pieces, and leaves in every way there is.

    Some connections stay half-open for a while: something was sent, nothing more comes, nobody reads.
    """

    def __init__(self, name: str, record: Record, seed: int, ports: tuple[int, int]) -> None:
        super().__init__(name, record, seed)
        self._ports = ports
        self._half_open: list[tuple[float, socket.socket]] = []

    def act(self) -> None:
        while self._half_open and (
            self._half_open[0][0] < time.monotonic() or len(self._half_open) > _HALF_OPEN
        ):
            _leave(self._half_open.pop(0)[1], reset=self.random.random() < 0.5)
        peer = socket.create_connection(("127.0.0.1", self.random.choice(self._ports)), timeout=10)
        with contextlib.suppress(OSError):  # the server may hang up in the middle
            peer.settimeout(2)
            data = self._bytes()
            cut = self.random.randint(0, len(data))
            peer.sendall(data[:cut])
            if self.random.random() < 0.5:
                self.rest(self.random.random() / 20)
            peer.sendall(data[cut:])
            if self.random.random() < 0.3:
                peer.recv(4096)
        if self.random.random() < 0.3:
            self._half_open.append((time.monotonic() + self.random.random() * _HALF_OPEN_SECONDS, peer))
            self.record.count("half-open sockets")
        else:
            _leave(peer, reset=self.random.random() < 0.5)
        self.record.count("garbage")
        self.rest(0.02)

    def close(self) -> None:
        while self._half_open:
            _leave(self._half_open.pop()[1], reset=True)

    def _bytes(self) -> bytes:
        noise = self.random.randbytes(self.random.choice([0, 1, 9, 100, 5000, 70000]))
        frame = (
            struct.pack(">I", self.random.choice([0, 4, len(noise), 2**24 - 1]))[1:]
            + self.random.randbytes(2)
            + struct.pack(">I", self.random.choice([0, 1, 3, 2**31 - 1]))
        )
        path = "/v1/models/half_plus_two:predict"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {self.random.choice([3, 10**6, 10**30])}\r\n"
        )
        return self.random.choice(
            [
                b"",
                noise,
                _PREFACE + noise,
                _PREFACE + _SETTINGS + frame + noise,
                _PREFACE + _SETTINGS + b"\0\0\4\1\4\0\0\0\1" + b"\x82\x84\x86\x41",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,
                b"GET /v1/models HTTP/9.9\r\n\r\n",
                b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
                b"GET / HTTP/1.1\r\nHost\0: " + noise + b"\r\n\r\n",
                head.encode(),
                head.encode() + b"\r\n" + noise,
                f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + noise,
                f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n".encode(),
                f"POST {path} HTTP/1.1\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\n\x1f".encode(
                    "latin-1"
                ),
                b"GET /v1/models/half_plus_two HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
            ]
        )


class Quitter(Actor):
    """Asks a slow model and does not wait for the answer: deadlines, cancelled calls, closed connections."""

    def __init__(self, name: str, record: Record, seed: int, grpc_address: str, rest_address: str) -> None:
        super().__init__(name, record, seed)
        self._grpc, self._rest = grpc_address, rest_address
        self._request = predict.encode_request(ModelSpec("slow"), {"x": np.ones(2, np.float32)})

    def open(self) -> None:
        self._channel = connected(self._grpc)
        self._predict = self._channel.unary_unary(services.PREDICT.path)

    def act(self) -> None:
        self.random.choice([self._deadline, self._cancel, self._hang_up, self._wait])()
        self.record.count("calls given up")

    def _deadline(self) -> None:
        try:
            self._predict(self._request, timeout=self.random.random() / 20)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise RuntimeError(
                    f"a call with a short deadline: {error.code()}: {error.details()}"
                ) from error

    def _cancel(self) -> None:
        call = self._predict.future(self._request, timeout=TIMEOUT)
        self.rest(self.random.random() / 20)
        call.cancel()

    def _hang_up(self) -> None:
        connection = http.client.HTTPConnection(self._rest, timeout=TIMEOUT)
        connection.request("POST", "/v1/models/slow:predict", json.dumps({"instances": [1.0, 2.0]}))
        self.rest(self.random.random() / 20)
        connection.close()

    def _wait(self) -> None:
        # queued calls that were given up must not be begun, so this takes what a few calls take
        _, outputs = predict.decode_response(self._predict(self._request, timeout=TIMEOUT))
        if outputs["y"].tolist() != [1.0, 1.0]:
            self.record.wrong(f"the slow model answered {outputs}")

    def close(self) -> None:
        self._channel.close()


def _leave(peer: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
