"""The gRPC API with each --grpc_front, with a fake model."""

import contextlib
import socket
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.server.apis import predict_request
from tests.server.fake_loader import FakeLoader
from tfserving.server.core.manager import ServableManager
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.grpc.grpc_server import GrpcServer
from tfserving.server.ports import bind
from tfserving.server.server_options import GRPC_FRONTS, GrpcOptions, LimitOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire import predict, services


class Requests:
    """Notes the statuses of requests, as an observer."""

    def __init__(self):
        self.statuses = []

    def request_started(self, context):
        assert context.peer.startswith("ipv4:127.0.0.1:")

    def request_finished(self, context):
        self.statuses.append(context.status)


@pytest.fixture(scope="module")
def requests():
    return Requests()


@pytest.fixture(scope="module")
def loader():
    return FakeLoader()


@contextlib.contextmanager
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    with bind("127.0.0.1", number, "port") as port:
        yield port


@pytest.fixture(scope="module", params=GRPC_FRONTS)
def channel(request, in_loop, loader, requests):
    manager = ServableManager(loader)
    manager.start()
    manager.aspire("m", {3: Path("/models/m/3")})
    manager.wait_until_available(["m"])
    limits = LimitOptions()
    workers = WorkerPools(4, lambda name: name == "m", limits)
    api = GrpcApi(Service(manager, workers), limits, observers=[requests])
    options = GrpcOptions(front=request.param, health_service=True)
    with free_port() as port:

        async def start():
            server = GrpcServer(api, options, lambda: {"m": True}, limits)
            await server.start(port)
            return server

        server = in_loop(start())
        with grpc.insecure_channel(port.address, [("grpc.max_receive_message_length", -1)]) as channel:
            yield channel
        in_loop(server.stop(0))
    manager.stop()
    workers.shut_down()


@pytest.fixture
def servable(loader, monkeypatch):
    found = loader.loaded["m", 3]
    monkeypatch.setattr(found, "is_fast", False)
    return found


def call(channel, data, timeout=30, method=services.PREDICT.path):
    return channel.unary_unary(method)(data, timeout=timeout)


@pytest.mark.parametrize("is_fast", [True, False])
def test_predicts(channel, servable, is_fast):
    servable.is_fast = is_fast
    _, outputs = predict.decode_response(call(channel, predict_request(x=[2.0])))
    assert outputs["y"].tolist() == [6.0]


def test_a_message_of_38_mb_arrives(channel, servable):
    x = np.ones(38_000_000 // 4, np.float32)
    _, outputs = predict.decode_response(call(channel, predict_request(x=x, outputs=["y"])))
    assert outputs["y"].shape == x.shape


@pytest.mark.parametrize(
    ("data", "method", "code"),
    [
        (predict_request("nobody"), services.PREDICT.path, grpc.StatusCode.NOT_FOUND),
        (b"\xff", services.PREDICT.path, grpc.StatusCode.INVALID_ARGUMENT),
        (b"", "/tensorflow.serving.PredictionService/Other", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_errors_have_their_codes(channel, data, method, code):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, data, method=method)
    assert caught.value.code() is code


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "deadline"])
def test_a_request_whose_caller_is_gone_is_cancelled(
    channel, servable, requests, monkeypatch, cancelled, eventually
):
    gate, entered = threading.Event(), threading.Event()
    compute = servable.compute

    def block(*args):
        entered.set()
        assert gate.wait(30)
        return compute(*args)

    monkeypatch.setattr(servable, "compute", block)
    requests.statuses.clear()
    waiting = channel.unary_unary(services.PREDICT.path).future(
        predict_request(), timeout=30 if cancelled else 0.5
    )
    assert entered.wait(30)
    if cancelled:
        waiting.cancel()
    eventually(lambda: requests.statuses == ["CANCELLED"])
    gate.set()
    monkeypatch.undo()
    call(channel, predict_request())


def test_health_and_reflection_are_served(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="m")
    assert stub.Check(request, timeout=30).status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(request, timeout=30)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = reflection.ServerReflectionInfo(iter([listing]), timeout=30)
    names = [service.name for service in response.list_services_response.service]
    assert services.PREDICTION_SERVICE in names


def test_many_requests_at_a_time_are_served(channel, servable):
    servable.is_fast = True
    futures = [
        channel.unary_unary(services.PREDICT.path).future(predict_request(x=[value]), timeout=30)
        for value in range(300)
    ]
    results = [predict.decode_response(future.result())[1]["y"][0] for future in futures]
    assert results == [3.0 * value for value in range(300)]
