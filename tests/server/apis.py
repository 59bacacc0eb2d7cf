"""Both APIs on ports of 127.0.0.1, with a manager of fake servables."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from tests.server.fake_loader import FakeLoader
from tests.server.fake_service import Running
from tfserving.server.core.manager import ServableManager
from tfserving.server.grpc.core_server import CoreServer
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.grpc.grpc_server import parse_channel_arguments
from tfserving.server.rest.rest_server import make_rest_server
from tfserving.server.server_options import LimitOptions, RestOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire import messages, predict
from tfserving.wire.model_spec import ModelSpec


class Apis:
    """A running server with both APIs."""

    def __init__(self, loader, manager, channel, grpc_port, port):
        self.loader = loader
        self.manager = manager
        self.grpc_port = grpc_port
        self.rest = Running(port)
        self._channel = channel

    def start_call(self, method, request, timeout=30):
        """A future for the response to a serialized request."""
        return self._channel.unary_unary(method.path).future(request, timeout=timeout)

    def call(self, method, request, timeout=30):
        """The response to a request, serialized or not; None if the call failed."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        try:
            return self._channel.unary_unary(method.path)(data, timeout=timeout)
        except grpc.RpcError:
            return None


@contextmanager
def serve(in_loop, observers=(), page=None, models=("m",), loader=None, limits=None):
    """Serves version 3 of the models until the end of the block."""
    loader = loader or FakeLoader()
    limits = limits or LimitOptions()
    manager = ServableManager(loader)
    manager.start()
    for model in models:
        manager.aspire(model, {3: Path(f"/models/{model}/3")})
    manager.wait_until_available(models)
    workers = WorkerPools(4, lambda name: name in models, limits)
    service = Service(manager, workers)

    async def start():
        server = CoreServer(parse_channel_arguments("", limits), limits.idle_timeout_in_ms / 1e3)
        GrpcApi(service, limits, observers=observers).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        rest_server = make_rest_server(service, RestOptions(), limits, observers=observers, page=page)
        listener = socket.create_server(("127.0.0.1", 0))
        await rest_server.start([listener])
        return server, port, rest_server, listener.getsockname()[1]

    server, port, rest_server, rest_port = in_loop(start())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Apis(loader, manager, channel, port, rest_port)
    in_loop(server.stop(0))
    in_loop(rest_server.stop(0.1))
    manager.stop()
    workers.shut_down()


def predict_request(name="m", x=(1.0, 2.0), outputs=(), **spec):
    """A PredictRequest for the fake servable, serialized."""
    return predict.encode_request(ModelSpec(name, **spec), {"x": np.asarray(x, np.float32)}, outputs)


def examples(*values):
    """An Input with an example for each value."""
    message = messages.Input()
    for value in values:
        message.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return message
