"""Measures the latency of short requests while a slow model is busy."""

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

# Seconds between two rounds of probes.
_PAUSE = 0.02


class Prober:
    """Requests status, health and another model over both APIs in turn, on open connections."""

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

        def send(method: str, path: str, body: str | None = None) -> None:
            rest.request(method, path, body)
            response = rest.getresponse()
            response.read()
            assert response.status == 200

        body = json.dumps({"instances": [1.0, 2.0, 3.0]})
        self._probes: Mapping[str, Callable[[], object]] = {
            "status over gRPC": lambda: channel.unary_unary(services.GET_MODEL_STATUS.path)(
                status, timeout=60
            ),
            "health over gRPC": lambda: health.Check(health_request, timeout=60),
            "another model over gRPC": lambda: channel.unary_unary(services.PREDICT.path)(data, timeout=60),
            "status over REST": lambda: send("GET", "/v1/models/slow"),
            "another model over REST": lambda: send("POST", "/v1/models/trivial:predict", body),
        }

    def measure(self, seconds: float) -> dict[str, list[float]]:
        """Send probes for some seconds; return the latencies in seconds by the name of the probe."""
        latencies: dict[str, list[float]] = {name: [] for name in self._probes}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, probe in self._probes.items():
                began = time.perf_counter()
                probe()
                latencies[name].append(time.perf_counter() - began)
            time.sleep(_PAUSE)
        return latencies

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class SlowLoad:
    """Clients of the slow model; each sends the next request when it has a response."""

    def __init__(self, server: Server, clients: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        self._data = predict.encode_request(ModelSpec("slow"), {"x": np.ones(1, np.float32)})
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send_requests) for _ in range(clients)]
        self.latencies: list[float] = []

    def _send_requests(self) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            self._channel.unary_unary(services.PREDICT.path)(self._data, timeout=600)
            self.latencies.append(time.perf_counter() - began)

    def __enter__(self) -> SlowLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()


def measure_slow_model(server: Server) -> float:
    """Return the latency in seconds of the slow model with one client."""
    with SlowLoad(server, 1) as load:
        time.sleep(0.1)
    return statistics.median(load.latencies)
