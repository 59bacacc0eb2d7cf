"""Load generators: send valid predictions and check each response."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping

import grpc
import numpy as np

from tests.soak.expectations import REJECTIONS, Expectations
from tests.soak.results import Results
from tests.soak.workers import Worker
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

# Seconds; much longer than any request takes, so that a timeout means that the server hangs.
TIMEOUT = 60.0

_HTTP_STATUSES = {404: "NOT_FOUND", 400: "INVALID_ARGUMENT"}


def connect(address: str) -> grpc.Channel:
    """Open a channel that shares its connection with no other channel."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


class LoadGenerator(Worker):
    """Calls versioned models by version, by label or without either, and checks each response.

    Args:
        models: the expectations of each model.
        max_rows: the largest number of rows of a request; most have up to 8.
        newest_only: name neither versions nor labels, so that no request may be rejected.
    """

    def __init__(
        self,
        name: str,
        results: Results,
        seed: int,
        address: str,
        models: Mapping[str, Expectations],
        *,
        max_rows: int = 1000,
        newest_only: bool = False,
    ) -> None:
        super().__init__(name, results, seed)
        self.address = address
        self._models = models
        self._max_rows = max_rows
        self._newest_only = newest_only
        self.seen_versions: set[int] = set()

    def predict(self, spec: ModelSpec, x: np.ndarray) -> tuple[np.ndarray, int | None] | str:
        """Return y and the version in the response, if it has one; or the status that rejects the request."""
        raise NotImplementedError

    def step(self) -> None:
        name = self.rng.choice(list(self._models))
        expectations = self._models[name]
        spec = ModelSpec(name) if self._newest_only else self._choose_spec(name, expectations)
        rows = self._max_rows if self.rng.random() < 0.02 else self.rng.randint(1, 8)
        # Products stay below 2**24, where float32 is exact.
        x = np.array([self.rng.randint(1, 500) for _ in range(rows)], np.float32)
        since = expectations.current_interval()
        outcome = self.predict(spec, x)
        response: int | str
        if isinstance(outcome, str):
            response = outcome
            self.results.count(f"{self.kind} requests rejected")
        else:
            y, named = outcome
            response = round(float(y[0] / x[0])) if y.shape == x.shape else -1
            self.results.count(f"{self.kind} requests succeeded")
            self.seen_versions.add(response)
            if not np.array_equal(y, x * np.float32(response)) or named not in (None, response):
                self.results.fail(f"{self.name}: {spec} with {x} returned {y} from version {named}")
                return
        violation = expectations.find_violation(since, spec, response)
        if violation:
            self.results.fail(f"{self.name}: {violation}")

    def _choose_spec(self, name: str, expectations: Expectations) -> ModelSpec:
        """Choose a version or label that is served, was served, or does not exist."""
        served = expectations.latest
        kind = self.rng.random()
        if kind < 0.5:
            return ModelSpec(name)
        if kind < 0.8:
            newest = max(served.versions, default=1)
            versions = [*served.versions, newest, newest + 1, max(newest - 1, 0)]
            return ModelSpec(name, self.rng.choice(versions))
        return ModelSpec(name, label=self.rng.choice([*served.labels, "stable", "unknown"]))


class GrpcLoadGenerator(LoadGenerator):
    """Sends requests over one gRPC connection."""

    def open(self) -> None:
        self._channel = connect(self.address)
        self._predict = self._channel.unary_unary(services.PREDICT.path)

    def predict(self, spec: ModelSpec, x: np.ndarray) -> tuple[np.ndarray, int | None] | str:
        try:
            data = self._predict(predict.encode_request(spec, {"x": x}), timeout=TIMEOUT)
        except grpc.RpcError as error:
            if error.code().name in REJECTIONS:
                return error.code().name
            raise RuntimeError(f"{spec}: {error.code().name}: {error.details()}") from error
        response_spec, outputs = predict.decode_response(data)
        return outputs["y"], response_spec.version

    def close(self) -> None:
        self._channel.close()


class RestLoadGenerator(LoadGenerator):
    """Sends requests over one HTTP connection."""

    def open(self) -> None:
        self._connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)

    def predict(self, spec: ModelSpec, x: np.ndarray) -> tuple[np.ndarray, int | None] | str:
        path = f"/v1/models/{spec.name}"
        if spec.version is not None:
            path += f"/versions/{spec.version}"
        if spec.label is not None:
            path += f"/labels/{spec.label}"
        sent, received = self.rng.choice([("instances", "predictions"), ("inputs", "outputs")])
        try:
            self._connection.request("POST", f"{path}:predict", json.dumps({sent: x.tolist()}))
            response = self._connection.getresponse()
            body = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            raise
        if response.status in _HTTP_STATUSES:
            return _HTTP_STATUSES[response.status]
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body}")
        return np.array(body[received], np.float32), None

    def close(self) -> None:
        self._connection.close()
