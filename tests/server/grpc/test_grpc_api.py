"""The gRPC API in a server with fake models, called through a plain channel."""

import threading
import time
from concurrent.futures import Future
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.server.apis import examples
from tests.server.fake_loader import FakeLoader
from tfserving.server.core.manager import ServableManager
from tfserving.server.futures import then
from tfserving.server.grpc.core_server import CoreServer
from tfserving.server.grpc.grpc_api import GrpcApi, _first_task
from tfserving.server.server_options import LimitOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec


@pytest.fixture(scope="module")
def reloaded():
    """The configurations of the reloads, with their timeouts in seconds."""
    return []


@pytest.fixture(scope="module")
def found():
    """Is done when the model "nowhere" becomes available."""
    return Future()


@pytest.fixture(scope="module")
def channel(reloaded, found, in_loop):
    manager = ServableManager(FakeLoader())
    manager.start()
    manager.aspire("m", {3: Path("/models/m/3")})
    manager.wait_until_available(["m"])
    workers = WorkerPools(4, lambda name: name == "m", LimitOptions())

    def reload(config, timeout):
        if any(model.name == "nowhere" for model in config.models):
            return then(found, lambda _: reloaded.append((config, timeout)))
        reloaded.append((config, timeout))
        available = Future()
        available.set_result(None)
        return available

    async def start():
        server = CoreServer([("grpc.max_receive_message_length", -1)])
        GrpcApi(Service(manager, workers), LimitOptions(), reload=reload).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = in_loop(start())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    in_loop(server.stop(0))
    workers.shut_down()
    manager.stop()


def call(channel, method, data):
    return channel.unary_unary(method.path)(data, timeout=30)


def call_error(channel, method, data):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, data)
    return caught.value.code(), caught.value.details()


def test_predict_returns_outputs_and_the_version(channel):
    x = np.array([1, 2], np.float32)
    spec, outputs = predict.decode_response(
        call(channel, services.PREDICT, predict.encode_request(ModelSpec("m"), {"x": x}))
    )
    assert spec == ModelSpec("m", version=3, signature="serving_default")
    assert outputs["y"].tolist() == [3.0, 6.0]


def test_responses_have_values_in_repeated_fields(channel):
    request = predict.encode_request(ModelSpec("m"), {"x": np.ones(1, np.float32)})
    reply = messages.PredictResponse.FromString(call(channel, services.PREDICT, request))
    assert list(reply.outputs["y"].float_val) == [3.0]
    assert not reply.outputs["y"].tensor_content


@pytest.mark.parametrize("method", [services.PREDICT, services.GET_MODEL_METADATA, services.GET_MODEL_STATUS])
@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x05abc", bytes(1000)])
def test_rejects_garbage_and_keeps_serving(channel, method, data):
    assert call_error(channel, method, data)[0] is grpc.StatusCode.INVALID_ARGUMENT
    test_predict_returns_outputs_and_the_version(channel)


def test_rejects_a_tensor_that_contradicts_itself(channel):
    message = messages.PredictRequest(model_spec=ModelSpec("m").to_message())
    message.inputs["x"].dtype = 1
    message.inputs["x"].tensor_shape.dim.add(size=2**40)
    code, text = call_error(channel, services.PREDICT, message.SerializeToString())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'x'" in text
    assert "2 GiB" in text


@pytest.mark.parametrize(
    ("method", "request_", "code", "message"),
    [
        (services.PREDICT, messages.PredictRequest(), "INVALID_ARGUMENT", "no model name was given"),
        (
            services.PREDICT,
            messages.PredictRequest(model_spec={"name": "nobody"}),
            "NOT_FOUND",
            "Servable not found for request: Latest(nobody)",
        ),
        (
            services.GET_MODEL_METADATA,
            messages.GetModelMetadataRequest(model_spec={"name": "m"}),
            "INVALID_ARGUMENT",
            "metadata_field",
        ),
        (
            services.GET_MODEL_METADATA,
            messages.GetModelMetadataRequest(model_spec={"name": "m"}, metadata_field=["x"]),
            "INVALID_ARGUMENT",
            "'x'",
        ),
        (
            services.GET_MODEL_STATUS,
            messages.GetModelStatusRequest(model_spec={"name": "nobody"}),
            "NOT_FOUND",
            "nobody",
        ),
    ],
)
def test_a_rejected_request_gets_a_status_and_a_message(channel, method, request_, code, message):
    got, text = call_error(channel, method, request_.SerializeToString())
    assert got is grpc.StatusCode[code]
    assert message in text


@pytest.mark.parametrize(
    "name", ["m" * 100_000, "模" * 30_000, "\n" * 30_000], ids=["ascii", "utf8", "lines"]
)
def test_an_error_that_quotes_a_long_name_reaches_the_client(channel, name):
    request_ = messages.PredictRequest(model_spec={"name": name})
    code, text = call_error(channel, services.PREDICT, request_.SerializeToString())
    assert code is grpc.StatusCode.NOT_FOUND
    assert text.startswith("Servable not found for request: Latest(" + name[:100])


def test_metadata_returns_the_signatures(channel):
    request = messages.GetModelMetadataRequest(model_spec={"name": "m"}, metadata_field=["signature_def"])
    reply = messages.GetModelMetadataResponse.FromString(
        call(channel, services.GET_MODEL_METADATA, request.SerializeToString())
    )
    signatures = messages.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(signatures)
    assert "serving_default" in signatures.signature_def
    assert reply.model_spec.version.value == 3


def test_reload_replaces_the_configuration(channel, reloaded):
    request = messages.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="m", base_path="/models/m", model_platform="tensorflow")
    call(channel, services.RELOAD_CONFIG, request.SerializeToString())
    config, timeout = reloaded.pop()
    assert [model.name for model in config.models] == ["m"]
    assert 0 < timeout < 60
    empty = messages.ReloadConfigRequest()
    empty.config.model_config_list.SetInParent()
    call(channel, services.RELOAD_CONFIG, empty.SerializeToString())
    assert reloaded.pop()[0].models == ()
    code, text = call_error(channel, services.RELOAD_CONFIG, b"")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "model_config_list" in text
    assert not reloaded


def test_waiting_reloads_do_not_delay_another(channel, reloaded, found):
    def request(name):
        made = messages.ReloadConfigRequest()
        made.config.model_config_list.config.add(name=name, base_path="/m", model_platform="tensorflow")
        return made.SerializeToString()

    reload = channel.unary_unary(services.RELOAD_CONFIG.path)
    threads = threading.active_count()
    waiting = [reload.future(request("nowhere"), timeout=60) for _ in range(40)]
    reload(request("m"), timeout=30)
    assert threading.active_count() < threads + 10
    assert [config.models[0].name for config, _ in reloaded] == ["m"]
    found.set_result(None)
    for each in waiting:
        each.result()
    reloaded.clear()


def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/tensorflow.serving.PredictionService/Guess")(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (services.CLASSIFY, messages.ClassificationRequest()),
        (services.REGRESS, messages.RegressionRequest()),
        (services.MULTI_INFERENCE, messages.MultiInferenceRequest()),
        (services.GET_MODEL_STATUS, messages.GetModelStatusRequest()),
        (services.GET_MODEL_METADATA, messages.GetModelMetadataRequest()),
        (services.RELOAD_CONFIG, messages.ReloadConfigRequest()),
    ],
    ids=lambda value: getattr(value, "path", ""),
)
def test_a_large_message_of_tiny_fields_does_not_delay_another_caller(channel, method, message):
    data = message.SerializeToString() + b"\xf8\x07\x01" * (2 << 20)  # protobuf: 0.3 s
    attack = channel.unary_unary(method.path).future(data, timeout=60, compression=grpc.Compression.Gzip)
    request = predict.encode_request(ModelSpec("m"), {"x": np.ones(1, np.float32)})
    longest = 0.0
    while not attack.done():
        started = time.perf_counter()
        call(channel, services.PREDICT, request)
        longest = max(longest, time.perf_counter() - started)
    assert attack.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--grpc_max_message_fields" in attack.details()
    assert longest < 1


@pytest.mark.parametrize("field", ["inputs", "strings"])
def test_a_predict_has_a_limited_number_of_inputs_and_strings(channel, field):
    if field == "inputs":
        body = b"\x12\0" * 2_000_000
    else:
        tensor = messages.TensorProto(string_val=[b""] * 5_000_000)
        body = messages.PredictRequest(inputs={"x": tensor}).SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, services.PREDICT, body)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--grpc_max_message_fields" in caught.value.details()


@pytest.mark.parametrize("name", ["m", "m" * 200])
def test_a_task_names_the_model_whose_workers_run_it(name):
    task = {"model_spec": {"name": name}, "method_name": "x"}
    request = messages.MultiInferenceRequest(tasks=[task, task], input=examples(1))
    assert predict.peek_model(_first_task(request.SerializeToString())) == name


def test_a_reload_ends_with_its_caller(in_loop, eventually):
    pending = Future()
    api = GrpcApi(None, LimitOptions(), reload=lambda config, timeout: pending)

    async def start():
        server = CoreServer([])
        api.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = in_loop(start())
    request = messages.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as own:
        caller = own.unary_unary(services.RELOAD_CONFIG.path).future(request.SerializeToString(), timeout=60)
        time.sleep(0.2)
        caller.cancel()
        eventually(pending.cancelled)
    in_loop(server.stop(0))
