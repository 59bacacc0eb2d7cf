"""Checkers: compare responses with recorded ones, and check health, status and metrics."""

from __future__ import annotations

import http.client
import re
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conformance import compare
from tests.soak.load_generators import TIMEOUT, connect
from tests.soak.results import Results
from tests.soak.workers import Worker
from tfserving.server.core.servable_state import State
from tfserving.wire import messages, services

METRICS_PATH = "/monitoring/prometheus/metrics"

_SAMPLE = re.compile(r"^(:tensorflow\S*_count|:tensorflow\S*request_count)(\{.*\})? (\S+)$", re.MULTILINE)


class ConformanceChecker(Worker):
    """Sends conformance cases over both APIs and compares the responses with the recorded ones."""

    def __init__(
        self, name: str, results: Results, seed: int, addresses: tuple[str, str], *, batching: bool
    ) -> None:
        super().__init__(name, results, seed)
        from tests.conformance import cases, conformance  # they import TensorFlow

        self._conformance = conformance
        self._golden = compare.load(compare.GOLDEN)
        self._golden.update(compare.load(compare.GOLDEN_BATCHING) if batching else {})
        self._cases: list[tuple[str, tuple[Any, ...]]] = []
        self._cases += [(f"grpc: {name}", tuple(case)) for name, *case in cases.GRPC]
        self._cases += [(f"rest: {name}", tuple(case)) for name, *case in cases.REST]
        self._grpc, self._rest = addresses

    def open(self) -> None:
        self._channel = connect(self._grpc)

    def step(self) -> None:
        name, case = self.rng.choice(self._cases)
        if name.startswith("grpc"):
            response = self._conformance.call_grpc(self._channel, *case)
        else:
            response = self._conformance.call_rest(self._rest, *case)
        self.results.count("conformance cases")
        if not compare.agree(self._golden[name], response):
            self.results.fail(f"{name}: got {response}, recorded is {self._golden[name]}")
        self.pause(0.005)

    def close(self) -> None:
        self._channel.close()


class StatusChecker(Worker):
    """Checks health, status and metrics of a model that no operator changes.

    Args:
        model: the name of that model.
    """

    def __init__(
        self, name: str, results: Results, seed: int, addresses: tuple[str, str], model: str
    ) -> None:
        super().__init__(name, results, seed)
        self._grpc, self._rest = addresses
        self._model = model
        self._counters: dict[str, float] = {}

    def open(self) -> None:
        self._channel = connect(self._grpc)

    def step(self) -> None:
        self.rng.choice([self._check_health, self._watch_health, self._check_status, self._check_metrics])()
        self.results.count("checks of health, status and metrics")
        self.pause(0.02)

    def _check_health(self) -> None:
        request = health_pb2.HealthCheckRequest(service=self._model)
        response = health_pb2_grpc.HealthStub(self._channel).Check(request, timeout=TIMEOUT)
        if response.status != response.SERVING:
            self.results.fail(f"health Check of {self._model} is not SERVING: {response}")

    def _watch_health(self) -> None:
        request = health_pb2.HealthCheckRequest(service=self._model)
        stream = health_pb2_grpc.HealthStub(self._channel).Watch(request, timeout=TIMEOUT)
        response = next(stream)
        stream.cancel()
        if response.status != response.SERVING:
            self.results.fail(f"health Watch of {self._model} is not SERVING: {response}")

    def _check_status(self) -> None:
        request = messages.GetModelStatusRequest(model_spec={"name": self._model})
        call = self._channel.unary_unary(services.GET_MODEL_STATUS.path)
        data = call(request.SerializeToString(), timeout=TIMEOUT)
        response = messages.GetModelStatusResponse.FromString(data)
        if any(status.state != State.AVAILABLE for status in response.model_version_status):
            self.results.fail(f"a version of {self._model} is not AVAILABLE: {response}")

    def _check_metrics(self) -> None:
        connection = http.client.HTTPConnection(self._rest, timeout=TIMEOUT)
        connection.request("GET", METRICS_PATH)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"metrics: {response.status} {text}")
        counters = {name + labels: float(value) for name, labels, value in _SAMPLE.findall(text)}
        if not counters:
            self.results.fail("the metrics have no counters")
        for name, value in self._counters.items():
            if name not in counters and "model_path=" in name:
                continue  # the server keeps a limited number of model paths
            if counters.get(name, 0.0) < value:
                self.results.fail(f"{name} decreased from {value:g} to {counters.get(name)}")
        self._counters = counters

    def close(self) -> None:
        self._channel.close()
