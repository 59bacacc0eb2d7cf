"""Those who ask the recorded conformance cases, in any order, and those who watch the server's health."""

from __future__ import annotations

import http.client
import re
import sys
from pathlib import Path
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conformance import compare
from tests.soak.actors import Actor
from tests.soak.callers import TIMEOUT, connected
from tests.soak.record import Record
from tfserving.server.core.servable_state import State
from tfserving.server.observability.observers import DEFAULT_PATH
from tfserving.wire import messages, services

_SAMPLE = re.compile(r"^(:tensorflow\S*_count|:tensorflow\S*request_count)(\{.*\})? (\S+)$", re.MULTILINE)


class Examiner(Actor):
    """Asks cases over both APIs and compares the answers with those of the real server."""

    def __init__(
        self, name: str, record: Record, seed: int, addresses: tuple[str, str], *, batching: bool
    ) -> None:
        super().__init__(name, record, seed)
        # they import TensorFlow, and each other as neighbours
        sys.path.insert(0, str(Path(compare.__file__).parent))
        import cases
        import conformance

        self._asking = conformance
        golden = compare.load(compare.GOLDEN)
        golden.update(compare.load(compare.GOLDEN_BATCHING) if batching else {})
        self._cases: list[tuple[str, tuple[Any, ...]]] = []
        self._cases += [(f"grpc: {name}", tuple(case)) for name, *case in cases.GRPC]
        self._cases += [(f"rest: {name}", tuple(case)) for name, *case in cases.REST]
        self._golden = golden
        self._grpc, self._rest = addresses

    def open(self) -> None:
        self._channel = connected(self._grpc)

    def act(self) -> None:
        name, case = self.random.choice(self._cases)
        if name.startswith("grpc"):
            answer = self._asking.call_grpc(self._channel, *case)
        else:
            answer = self._asking.call_rest(self._rest, *case)
        self.record.count("recorded cases")
        if not compare.agree(self._golden[name], answer):
            self.record.wrong(f"{name}: answered {answer}, recorded is {self._golden[name]}")
        self.rest(0.005)

    def close(self) -> None:
        self._channel.close()


class Watcher(Actor):
    """Looks at health, status and metrics, which must be there whatever else goes on.

    Args:
        model: one that nobody touches.
    """

    def __init__(self, name: str, record: Record, seed: int, addresses: tuple[str, str], model: str) -> None:
        super().__init__(name, record, seed)
        self._grpc, self._rest = addresses
        self._model = model
        self._counters: dict[str, float] = {}

    def open(self) -> None:
        self._channel = connected(self._grpc)

    def act(self) -> None:
        self.random.choice([self._health, self._watch, self._status, self._metrics])()
        self.record.count("looks at health, status and metrics")
        self.rest(0.02)

    def _health(self) -> None:
        request = health_pb2.HealthCheckRequest(service=self._model)
        answer = health_pb2_grpc.HealthStub(self._channel).Check(request, timeout=TIMEOUT)
        if answer.status != answer.SERVING:
            self.record.wrong(f"{self._model} is not healthy: {answer}")

    def _watch(self) -> None:
        request = health_pb2.HealthCheckRequest(service=self._model)
        stream = health_pb2_grpc.HealthStub(self._channel).Watch(request, timeout=TIMEOUT)
        answer = next(stream)
        stream.cancel()
        if answer.status != answer.SERVING:
            self.record.wrong(f"{self._model} is not healthy for those who watch: {answer}")

    def _status(self) -> None:
        request = messages.GetModelStatusRequest(model_spec={"name": self._model})
        call = self._channel.unary_unary(services.GET_MODEL_STATUS.path)
        data = call(request.SerializeToString(), timeout=TIMEOUT)
        answer = messages.GetModelStatusResponse.FromString(data)
        if any(status.state != State.AVAILABLE for status in answer.model_version_status):
            self.record.wrong(f"{self._model} is not available: {answer}")

    def _metrics(self) -> None:
        connection = http.client.HTTPConnection(self._rest, timeout=TIMEOUT)
        connection.request("GET", DEFAULT_PATH)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"metrics: {response.status} {text}")
        counters = {name + labels: float(value) for name, labels, value in _SAMPLE.findall(text)}
        if not counters:
            self.record.wrong("there are no counters among the metrics")
        for name, value in self._counters.items():
            if name not in counters and "model_path=" in name:
                continue  # only so many directories are kept
            if counters.get(name, 0.0) < value:
                self.record.wrong(f"{name} went back from {value:g} to {counters.get(name)}")
        self._counters = counters

    def close(self) -> None:
        self._channel.close()
