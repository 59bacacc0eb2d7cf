"""gRPC over HTTP/2 of the load generator."""

from __future__ import annotations

import time

import grpc
import numpy as np
import pytest

from tests.bench.loops import count_is, plan_for, run_loop, target_for
from tests.client.fakes import FakeRpcServer, FakeService
from tfserving.bench.targets import resolve_targets
from tfserving.client.options import Tls
from tfserving.errors import ExhaustedError
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec


def request_for(size: int = 3, model: str = "half") -> tuple[str, bytes]:
    return services.PREDICT.path, predict.encode_request(ModelSpec(model), {"x": np.ones(size, np.float32)})


# The response of the fake server is as large as the request.
@pytest.mark.parametrize("size", [0, 1, 16_370, 1_000_000])
def test_sends_and_receives_messages_of_any_size(rpc_server, service, size):
    plan = plan_for(rpc_server.port, [request_for(size)], is_grpc=True, connections=3)
    outcomes = run_loop(plan, count_is(9)).outcomes
    assert set(outcomes) == {""}
    assert service.methods.count("Predict") == outcomes.total()


def test_reports_the_status_and_the_message_of_an_error(rpc_server):
    plan = plan_for(rpc_server.port, [request_for(model="größe")], is_grpc=True)
    assert set(run_loop(plan, count_is(3)).outcomes) == {"NOT_FOUND: Servable not found for request: größe 0"}


def test_continues_after_single_errors(rpc_server, service):
    service.failures = [ExhaustedError("Server Threadpool Exhausted") for _ in range(2)]
    outcomes = run_loop(plan_for(rpc_server.port, [request_for()], is_grpc=True), count_is(10)).outcomes
    assert outcomes["RESOURCE_EXHAUSTED: Server Threadpool Exhausted"] == 2
    assert outcomes[""] == outcomes.total() - 2


def test_sends_headers(rpc_server, service):
    target = target_for(rpc_server.port, headers=(("authorization", "Bearer x"),))
    run_loop(plan_for(0, [request_for()], is_grpc=True, targets=(target,)), count_is(2))
    assert {each["authorization"] for each in service.metadata} == {"Bearer x"}


def test_spreads_connections_over_servers(rpc_server, service):
    other = FakeService()
    with FakeRpcServer(other) as second:
        targets = (target_for(rpc_server.port), target_for(second.port))
        run_loop(plan_for(0, [request_for()], is_grpc=True, targets=targets, connections=2), count_is(20))
    assert service.methods
    assert other.methods


def test_encrypts_the_connection(service, certificates):
    files = [(certificates / name).read_bytes() for name in ("server.key", "server.pem")]
    credentials = grpc.ssl_server_credentials([tuple(files)])
    with FakeRpcServer(service, credentials=credentials) as server:
        ca = str(certificates / "ca.pem")
        target = target_for(server.port, tls_name="tf.example", ca=ca)
        large = request_for(100_000)
        plan = plan_for(0, [request_for(), large], is_grpc=True, targets=(target,), connections=2)
        assert set(run_loop(plan, count_is(10)).outcomes) == {""}
        wrong = target_for(server.port, tls_name="other.example", ca=ca)
        plan = plan_for(0, [request_for()], is_grpc=True, targets=(wrong,))
        (outcome,) = run_loop(plan, count_is(1)).outcomes
    assert outcome.startswith("UNAVAILABLE: TLS handshake failed:")


def test_presents_a_client_certificate(service, certificates):
    files = [(certificates / name).read_bytes() for name in ("server.key", "server.pem")]
    ca = certificates / "ca.pem"
    credentials = grpc.ssl_server_credentials([tuple(files)], ca.read_bytes(), require_client_auth=True)
    own = {"certificate": certificates / "client.pem", "key": certificates / "client.key"}
    with FakeRpcServer(service, credentials=credentials) as server:
        for files, is_accepted in ((own, True), ({}, False)):
            tls = Tls(ca=ca, server_name="tf.example", **files)
            targets = resolve_targets(f"127.0.0.1:{server.port}", is_grpc=True, tls=tls, headers=())
            plan = plan_for(0, [request_for()], is_grpc=True, targets=targets)
            assert (set(run_loop(plan, count_is(2)).outcomes) == {""}) is is_accepted


def test_loses_no_request_when_the_server_limits_the_age_of_connections():
    handled = []

    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        handled.append(context.peer())
        return data

    methods = {services.PREDICT.name: grpc.unary_unary_rpc_method_handler(handle)}
    from concurrent import futures

    options = [("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 5000)]
    server = grpc.server(futures.ThreadPoolExecutor(2), options=options)
    service = services.PREDICTION_SERVICE
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        plan = plan_for(port, [request_for()], is_grpc=True)
        reports = run_loop(plan, lambda reports: len(set(handled)) >= 3)
    finally:
        server.stop(None).wait()
    assert set(reports.outcomes) == {""}


def test_counts_a_server_that_is_not_grpc_as_an_error(rest_server):
    (outcome,) = run_loop(plan_for(rest_server.port, [request_for()], is_grpc=True), count_is(1)).outcomes
    assert outcome.startswith("UNAVAILABLE: ")


def test_counts_refused_connections_as_errors(rpc_server, service):
    with FakeRpcServer(service) as stopped:
        port = stopped.port
    outcomes = run_loop(plan_for(port, [request_for()], is_grpc=True), count_is(2)).outcomes
    assert set(outcomes) == {"UNAVAILABLE: Connection refused"}


def test_fails_requests_that_take_longer_than_the_timeout(rpc_server, service):
    service.before = lambda method: time.sleep(0.6)
    plan = plan_for(rpc_server.port, [request_for()], is_grpc=True, timeout=0.2)
    assert set(run_loop(plan, count_is(1)).outcomes) == {"DEADLINE_EXCEEDED: no response after 0.2 s"}
