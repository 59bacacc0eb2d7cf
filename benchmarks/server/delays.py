"""How long quick calls take while a slow model is busy, seen by somebody who asks all the time."""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.server.servers import Server
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec

# Seconds between two rounds of questions.
_PAUSE = 0.02


class Asker:
    """Asks for status, health and another model over both APIs, in turn, on connections that stay open."""

    def __init__(self, server: Server) -> None:
        self._stack = contextlib.ExitStack()
        channel = self._stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
        rest = self._stack.enter_context(
            contextlib.closing(HTTPConnection("127.0.0.1", server.rest_port, timeout=60))
        )
        status = messages.GetModelStatusRequest(model_spec={"name": "slow"}).SerializeToString()
        data = predict.encode_request(ModelSpec("trivial"), {"x": np.ones(3, np.float32)})
        health = health_pb2_grpc.HealthStub(channel)
        health_request = health_pb2.HealthCheckRequest(service="slow")

        def over_rest(method: str, path: str, body: str | None = None) -> None:
            rest.request(method, path, body)
            response = rest.getresponse()
            response.read()
            assert response.status == 200

        body = json.dumps({"instances": [1.0, 2.0, 3.0]})
        self.questions: Mapping[str, Callable[[], object]] = {
            "status over gRPC": lambda: channel.unary_unary(services.GET_MODEL_STATUS.path)(
                status, timeout=60
            ),
            "health over gRPC": lambda: health.Check(health_request, timeout=60),
            "another model over gRPC": lambda: channel.unary_unary(services.PREDICT.path)(data, timeout=60),
            "status over REST": lambda: over_rest("GET", "/v1/models/slow"),
            "another model over REST": lambda: over_rest("POST", "/v1/models/trivial:predict", body),
        }

    def ask(self, seconds: float) -> dict[str, list[float]]:
        """The seconds that each answer took, asked for so long."""
        took: dict[str, list[float]] = {name: [] for name in self.questions}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, question in self.questions.items():
                began = time.perf_counter()
                question()
                took[name].append(time.perf_counter() - began)
            time.sleep(_PAUSE)
        return took

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class SlowCalls:
    """Callers of the slow model, each calling again as soon as it has an answer. They stop at the end."""

    def __init__(self, server: Server, callers: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        self._data = predict.encode_request(ModelSpec("slow"), {"x": np.ones(1, np.float32)})
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]
        self.seconds: list[float] = []

    def _call(self) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            self._channel.unary_unary(services.PREDICT.path)(self._data, timeout=600)
            self.seconds.append(time.perf_counter() - began)

    def __enter__(self) -> SlowCalls:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()


def alone(server: Server) -> float:
    """Seconds of a call of the slow model when nobody else calls."""
    with SlowCalls(server, 1) as calls:
        time.sleep(0.1)
    return statistics.median(calls.seconds)
