"""Callers who send what is right and know what must come back."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping

import grpc
import numpy as np

from tests.soak.actors import Actor
from tests.soak.record import Record
from tests.soak.wishes import REFUSALS, Wishes
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

# Seconds; far more than any call takes, so that one that hangs is seen.
TIMEOUT = 60.0

_HTTP_CODES = {404: "NOT_FOUND", 400: "INVALID_ARGUMENT"}


def connected(address: str) -> grpc.Channel:
    """A channel that shares its connection with no other."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


class Caller(Actor):
    """Calls models that answer x * version, by number, by label or the newest, and judges the answers.

    Args:
        models: the wishes for each.
        most_rows: that a call may have; most have few.
        newest_only: names neither versions nor labels, so that no call may be refused.
    """

    def __init__(
        self,
        name: str,
        record: Record,
        seed: int,
        address: str,
        models: Mapping[str, Wishes],
        *,
        most_rows: int = 1000,
        newest_only: bool = False,
    ) -> None:
        super().__init__(name, record, seed)
        self.address = address
        self._models = models
        self._most_rows = most_rows
        self._newest_only = newest_only
        self.seen: set[int] = set()

    def call(self, asked: ModelSpec, x: np.ndarray) -> tuple[np.ndarray, int | None] | str:
        """The outputs, and the version that the answer names if it names one; or the code of the refusal."""
        raise NotImplementedError

    def act(self) -> None:
        name = self.random.choice(list(self._models))
        wishes = self._models[name]
        asked = ModelSpec(name) if self._newest_only else self._asked(name, wishes)
        length = self._most_rows if self.random.random() < 0.02 else self.random.randint(1, 8)
        # products stay below 2**24, where float32 is exact
        x = np.array([self.random.randint(1, 500) for _ in range(length)], np.float32)
        mark = wishes.mark()
        outcome = self.call(asked, x)
        answer: int | str
        if isinstance(outcome, str):
            answer = outcome
            self.record.count(f"{self.name.partition(' ')[0]} refused")
        else:
            y, named = outcome
            answer = round(float(y[0] / x[0])) if y.shape == x.shape else -1
            self.record.count(f"{self.name.partition(' ')[0]} answered")
            self.seen.add(answer)
            if not np.array_equal(y, x * np.float32(answer)) or named not in (None, answer):
                self.record.wrong(f"{self.name}: {asked} with {x} answered {y} by version {named}")
                return
        fault = wishes.fault(mark, asked, answer)
        if fault:
            self.record.wrong(f"{self.name}: {fault}")

    def _asked(self, name: str, wishes: Wishes) -> ModelSpec:
        wish = wishes.now
        kind = self.random.random()
        if kind < 0.5:
            return ModelSpec(name)
        if kind < 0.8:
            near = max(wish.versions, default=1)
            return ModelSpec(name, self.random.choice([*wish.versions, near, near + 1, max(near - 1, 0)]))
        return ModelSpec(name, label=self.random.choice([*wish.labels, "stable", "nobody"]))


class GrpcCaller(Caller):
    """Over gRPC, on a connection of its own."""

    def open(self) -> None:
        self._channel = connected(self.address)
        self._predict = self._channel.unary_unary(services.PREDICT.path)

    def call(self, asked: ModelSpec, x: np.ndarray) -> tuple[np.ndarray, int | None] | str:
        try:
            data = self._predict(predict.encode_request(asked, {"x": x}), timeout=TIMEOUT)
        except grpc.RpcError as error:
            if error.code().name in REFUSALS:
                return error.code().name
            raise RuntimeError(f"{asked}: {error.code().name}: {error.details()}") from error
        spec, outputs = predict.decode_response(data)
        return outputs["y"], spec.version

    def close(self) -> None:
        self._channel.close()


class RestCaller(Caller):
    """Over HTTP, on a connection of its own."""

    def open(self) -> None:
        self._connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)

    def call(self, asked: ModelSpec, x: np.ndarray) -> tuple[np.ndarray, int | None] | str:
        path = f"/v1/models/{asked.name}"
        if asked.version is not None:
            path += f"/versions/{asked.version}"
        if asked.label is not None:
            path += f"/labels/{asked.label}"
        sent, received = self.random.choice([("instances", "predictions"), ("inputs", "outputs")])
        try:
            self._connection.request("POST", f"{path}:predict", json.dumps({sent: x.tolist()}))
            response = self._connection.getresponse()
            body = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            raise
        if response.status in _HTTP_CODES:
            return _HTTP_CODES[response.status]
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body}")
        return np.array(body[received], np.float32), None

    def close(self) -> None:
        self._connection.close()
