"""A REST API on a port of 127.0.0.1 with a fake service, in its own thread."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tfserving.errors import NotFoundError
from tfserving.server.futures import CompletedFuture
from tfserving.server.rest.rest_server import make_rest_server
from tfserving.server.server_options import LimitOptions, RestOptions
from tfserving.server.service import Prediction
from tfserving.wire import messages
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import (
    CLASSIFY_METHOD,
    PREDICT_METHOD,
    REGRESS_METHOD,
    Signature,
    TensorInfo,
)

DOUBLE = Signature(
    "serving_default",
    PREDICT_METHOD,
    {"x": TensorInfo("x", DType.DT_FLOAT, (None,), "x:0")},
    {"y": TensorInfo("y", DType.DT_FLOAT, (None,), "y:0")},
)


def from_examples(outputs):
    """A signature that takes tf.Examples."""
    inputs = {"inputs": TensorInfo("inputs", DType.DT_STRING, (None,), "inputs:0")}
    infos = {name: TensorInfo(name, dtype, None, f"{name}:0") for name, dtype in outputs.items()}
    return Signature("from_examples", "", inputs, infos)


# By method name. One signature cannot serve both.
FROM_EXAMPLES = {
    CLASSIFY_METHOD: from_examples({"classes": DType.DT_STRING, "scores": DType.DT_FLOAT}),
    REGRESS_METHOD: from_examples({"outputs": DType.DT_FLOAT}),
}


class FakeService:
    """Serves one model "m", which doubles; tests may replace `run`. `specs` are the requested ones."""

    def __init__(self, run=lambda inputs: {"y": inputs["x"] * 2}):
        self.run = run
        self.specs = []
        self.submitted = 0
        self._pool = ThreadPoolExecutor(4)

    def _check(self, spec):
        self.specs.append(spec)
        self.check_served(spec)

    def check_served(self, spec):
        if spec.name != "m":
            raise NotFoundError(f"Servable not found for request: Latest({spec.name})")

    def predict(self, context, spec, read, outputs=(), *, method=None):
        self._check(spec)
        signature = FROM_EXAMPLES[method] if spec.signature == "from_examples" else DOUBLE
        return CompletedFuture(Prediction(ModelSpec(spec.name, 7), signature, self.run(read(signature))))

    def metadata(self, context, spec):
        self._check(spec)
        return ModelSpec(spec.name, 7), messages.SignatureDefMap()

    def status(self, context, spec):
        self._check(spec)
        response = messages.GetModelStatusResponse()
        response.model_version_status.add(version=7, state=30).status.SetInParent()
        return response

    async def run_in_worker(self, model, size, function, *args):
        self.submitted += 1
        future = await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        return future.result()

    def run_where_fast(self, model, size, function, context, *args):
        return self.run_in_worker(model, size, function, context, *args)

    def close(self):
        self._pool.shutdown()


@dataclass(frozen=True)
class Response:
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self):
        assert list(self.json) == ["error"]
        return self.json["error"]


class Running:
    """A listening server; `send` sends one request on its own connection."""

    def __init__(self, port):
        self.port = port

    def send(self, method, path, body=None, headers=None):
        if body is not None and not isinstance(body, (bytes, list)):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=isinstance(body, list))
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def predict(self, body, headers=None, *, model="m"):
        return self.send("POST", f"/v1/models/{model}:predict", body, headers)


@contextmanager
def serve(service, options=None, limits=None):
    """Runs the REST API for a service until the end of the block."""
    started, stopped = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    ports = []

    async def main():
        server = make_rest_server(service, options or RestOptions(), limits or LimitOptions())
        listener = socket.create_server(("127.0.0.1", 0))
        ports.append(listener.getsockname()[1])
        await server.start([listener])
        started.set()
        await stopped.wait()
        await server.stop(0.1)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert started.wait(30)
        yield Running(*ports)
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()
        service.close()


def zeros(*shape):
    """A `run` that returns zeros for any inputs."""
    return lambda inputs: {"y": np.zeros(shape, np.float32)}
