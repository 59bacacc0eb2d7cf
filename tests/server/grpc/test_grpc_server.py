import contextlib
import socket
import threading
import time
from unittest import mock

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.server.certificates import certificate, quoted
from tfserving.errors import ConfigError, UnavailableError
from tfserving.server.grpc import grpc_server
from tfserving.server.grpc.grpc_server import GrpcServer, parse_channel_arguments
from tfserving.server.ports import BoundPort, bind
from tfserving.server.server_options import GRPC_FRONTS, GrpcOptions, LimitOptions

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class NoApi:
    def add_to(self, server):
        pass


@contextlib.contextmanager
def free_port():
    """A port that is bound as the server binds it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    with bind("127.0.0.1", number, "port") as port:
        yield port


@pytest.fixture(params=GRPC_FRONTS)
def front(request):
    return request.param


@pytest.fixture
def serve(in_loop, front):
    """Starts a server; returns its address."""
    with contextlib.ExitStack() as stack:

        def start(availability=dict, limits=None, **options):
            port = stack.enter_context(free_port())

            async def run():
                limits_ = limits or LimitOptions()
                server = GrpcServer(NoApi(), GrpcOptions(front=front, **options), availability, limits_)
                await server.start(port)
                return server

            server = in_loop(run())
            stack.callback(lambda: in_loop(server.stop(0)))
            return port.address

        yield start


def check(channel, name):
    return (
        health_pb2_grpc.HealthStub(channel)
        .Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
        .status
    )


def watch(channel):
    """The stream of statuses of model "m"."""
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="m"), timeout=30)


def test_check_reports_each_model_and_all_of_them(serve):
    models = {"good": True, "bad": False}
    with grpc.insecure_channel(serve(lambda: dict(models), health_service=True)) as channel:
        assert check(channel, "good") == SERVING
        assert check(channel, "bad") == NOT_SERVING
        assert check(channel, "") == NOT_SERVING
        models["bad"] = True
        assert check(channel, "bad") == check(channel, "") == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "other")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "long" * 5000)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_sends_changes(serve):
    models = {"m": False}
    with grpc.insecure_channel(serve(lambda: dict(models), health_service=True)) as channel:
        stream = watch(channel)
        assert next(stream).status == NOT_SERVING
        models["m"] = True
        assert next(stream).status == SERVING
        stream.cancel()


def test_check_of_a_removed_model_is_not_found(serve):
    models = {"m": True}
    with grpc.insecure_channel(serve(lambda: dict(models), health_service=True)) as channel:
        assert check(channel, "m") == SERVING
        del models["m"]
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "m")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_sends_changes_after_another_watcher_has_left(serve):
    models = {"m": False}
    with grpc.insecure_channel(serve(lambda: dict(models), health_service=True)) as channel:
        streams = [watch(channel) for _ in range(2)]
        assert [next(stream).status for stream in streams] == [NOT_SERVING, NOT_SERVING]
        streams[0].cancel()
        assert check(channel, "m") == NOT_SERVING
        models["m"] = True
        assert next(streams[1]).status == SERVING
        streams[1].cancel()


def test_stop_ends_the_streams_of_watchers_and_does_not_wait_for_them(in_loop, front):
    async def run(port):
        options = GrpcOptions(front=front, health_service=True)
        server = GrpcServer(NoApi(), options, lambda: {"m": True}, LimitOptions())
        await server.start(port)
        async with grpc.aio.insecure_channel(port.address) as channel:
            stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="m"))
            assert (await stream.read()).status == SERVING
            await server.stop(3600)
            assert (await stream.read()).status == NOT_SERVING
            assert await stream.read() is grpc.aio.EOF

    with free_port() as port:
        in_loop(run(port))


def test_the_health_service_is_off_by_default(serve):
    with grpc.insecure_channel(serve()) as channel, pytest.raises(grpc.RpcError) as caught:
        check(channel, "")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_describes_the_services(serve):
    def reflect(channel, **fields):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(**fields)
        return next(stub.ServerReflectionInfo(iter([request]), timeout=30))

    with grpc.insecure_channel(serve()) as channel:
        names = {entry.name for entry in reflect(channel, list_services="").list_services_response.service}
        assert {
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
        } <= names
        reply = reflect(channel, file_containing_symbol="tensorflow.serving.PredictionService")
        assert reply.file_descriptor_response.file_descriptor_proto


def test_a_method_name_that_is_not_utf8_does_not_stop_the_server(serve, caplog):
    address = serve(health_service=True)
    host, port = address.split(":")
    # HTTP/2: the preface, SETTINGS, and HEADERS whose :path is not UTF-8, without compression
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/\xff\xfe"), (b":authority", b"x")]
    fields += [(b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"x", b"\xff")]
    block = b"".join(b"\0%c%s%c%s" % (len(name), name, len(value), value) for name, value in fields)
    frames = b"\0\0\0\4\0\0\0\0\0" + b"\0\0%c\1\5\0\0\0\1" % len(block) + block
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=30) as peer:
            peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
            answer = b""
            while b"grpc-status" not in answer:
                received = peer.recv(1 << 16)
                assert received, answer
                answer += received
        with grpc.insecure_channel(address) as channel:
            assert check(channel, "") == SERVING
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/grpc.health.v1.Health/Guess")(b"", timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not any(record.exc_info for record in caplog.records)


def test_the_server_starts_where_the_transport_cannot_be_warmed_up(serve, monkeypatch):
    fails = mock.Mock(side_effect=RuntimeError)
    monkeypatch.setattr(grpc_server, "_send_large_message", fails)
    with grpc.insecure_channel(serve(health_service=True)) as channel:
        assert check(channel, "") == SERVING


def test_serves_a_unix_socket(serve, tmp_path):
    path = tmp_path / "grpc.sock"
    serve(health_service=True, socket_path=str(path))
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert check(channel, "") == SERVING


def test_a_port_in_use_is_an_error(in_loop):
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]

        async def run():
            port = BoundPort("127.0.0.1", number, "port", (other.dup(),))
            await GrpcServer(NoApi(), GrpcOptions(), dict, LimitOptions()).start(port)

        with pytest.raises(UnavailableError, match=f"cannot open the gRPC API at 127.0.0.1:{number}"):
            in_loop(run())


def ssl_config(tmp_path, text):
    path = tmp_path / "ssl.config"
    path.write_text(text)
    return str(path)


def test_the_unix_socket_uses_tls_as_well(serve, tmp_path):
    cert, key = certificate()
    config = ssl_config(tmp_path, f"server_key: {quoted(key)} server_cert: {quoted(cert)}")
    path = tmp_path / "grpc.sock"
    serve(health_service=True, socket_path=str(path), ssl_config_file=config)
    name = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(f"unix:{path}", grpc.ssl_channel_credentials(cert.encode()), name) as channel:
        assert check(channel, "") == SERVING
    with grpc.insecure_channel(f"unix:{path}") as channel, pytest.raises(grpc.RpcError) as caught:
        check(channel, "")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls_requires_a_client_certificate_only_if_configured(serve, tmp_path):
    (cert, key), (other_cert, other_key) = certificate(), certificate("client")
    text = f"server_key: {quoted(key)} server_cert: {quoted(cert)}"
    address = serve(health_service=True, ssl_config_file=ssl_config(tmp_path, text))
    name = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(cert.encode()), name) as channel:
        assert check(channel, "") == SERVING
    text += f" custom_ca: {quoted(other_cert)} client_verify: true"
    address = serve(health_service=True, ssl_config_file=ssl_config(tmp_path, text))
    ours = grpc.ssl_channel_credentials(cert.encode(), other_key.encode(), other_cert.encode())
    with grpc.secure_channel(address, ours, name) as channel:
        assert check(channel, "") == SERVING
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(cert.encode()), name) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server_keys: 1", "server_keys"),
        ('server_key: "k"', "server_key or server_cert is missing"),
        ('server_key: "k" server_cert: "c" client_verify: true', "client_verify is set without custom_ca"),
        (None, "No such file"),
    ],
)
def test_an_invalid_ssl_config_is_an_error(tmp_path, text, message):
    path = str(tmp_path / "missing") if text is None else ssl_config(tmp_path, text)
    with pytest.raises(ConfigError, match=f"--ssl_config_file={path}: .*{message}"):
        GrpcServer(NoApi(), GrpcOptions(ssl_config_file=path), dict, LimitOptions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a=1,oops", "'oops' is not a key=value pair"),
        ("a=99999999999", "'a=99999999999' does not fit a 32-bit integer"),
    ],
)
def test_invalid_channel_arguments_are_an_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        GrpcServer(NoApi(), GrpcOptions(channel_arguments=arguments), dict, LimitOptions())


def test_channel_arguments_become_integers_if_possible():
    found = dict(parse_channel_arguments("a=-1,b=--5,c=\u00b2,d=x=y", LimitOptions()))
    assert {key: found[key] for key in "abcd"} == {"a": -1, "b": "--5", "c": "\u00b2", "d": "x=y"}


PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("field", ["server_key", "server_cert", "custom_ca"])
def test_a_path_in_the_ssl_config_is_an_error_before_models_load(tmp_path, field):
    cert, key = certificate()
    values = {"server_key": key, "server_cert": cert, "custom_ca": cert, field: "/etc/tls/server.pem"}
    text = " ".join(f"{name}: {quoted(value)}" for name, value in values.items())
    message = f"{field} is not PEM text .*give the contents of the PEM file, not its path"
    with pytest.raises(ConfigError, match=message):
        GrpcServer(NoApi(), GrpcOptions(ssl_config_file=ssl_config(tmp_path, text)), dict, LimitOptions())


def broken_pairs():
    (cert, key), (_, other_key) = certificate(), certificate()
    yield pytest.param(other_key, cert, id="key of another certificate")
    yield pytest.param(PEM.format("AAAA"), cert, id="broken key")
    yield pytest.param(key, PEM.format("AAAA"), id="broken certificate")
    yield pytest.param(cert, key, id="swapped")


@pytest.mark.parametrize(("key", "cert"), broken_pairs())
def test_keys_and_certificates_that_grpc_rejects_are_an_error_before_models_load(tmp_path, key, cert):
    text = f"server_key: {quoted(key)} server_cert: {quoted(cert)}"
    with pytest.raises(ConfigError, match="gRPC rejects the key and certificates"):
        GrpcServer(NoApi(), GrpcOptions(ssl_config_file=ssl_config(tmp_path, text)), dict, LimitOptions())


HEALTH, REFLECTION = "/grpc.health.v1.Health", "/grpc.reflection.v1alpha.ServerReflection"


@pytest.mark.parametrize("path", [f"{HEALTH}/Check", f"{HEALTH}/Watch", f"{REFLECTION}/ServerReflectionInfo"])
def test_a_stream_that_sends_no_message_ends_after_the_idle_timeout(serve, path, caplog):
    address = serve(lambda: {"m": True}, LimitOptions(idle_timeout_in_ms=300), health_service=True)
    wait = threading.Event()
    with grpc.insecure_channel(address) as channel:
        stream = channel.stream_stream(path)(iter(lambda: wait.wait(30), True), timeout=30)
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert time.monotonic() - started < 10
        wait.set()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "--idle_timeout_in_ms" in caught.value.details()
        assert check(channel, "m") == SERVING
    assert not caplog.records


@pytest.mark.parametrize("milliseconds", [0, -1])
def test_there_may_be_no_idle_timeout(serve, milliseconds):
    address = serve(lambda: {"m": True}, LimitOptions(idle_timeout_in_ms=milliseconds), health_service=True)
    request = health_pb2.HealthCheckRequest(service="m").SerializeToString()

    def late():
        time.sleep(0.2)
        yield request

    with grpc.insecure_channel(address) as channel:
        assert channel.stream_unary(f"{HEALTH}/Check")(late(), timeout=30)


def test_a_watch_outlives_the_idle_timeout_once_its_message_has_arrived(serve):
    models = {"m": False}
    limits = LimitOptions(idle_timeout_in_ms=100)
    with grpc.insecure_channel(serve(lambda: dict(models), limits, health_service=True)) as channel:
        stream = watch(channel)
        assert next(stream).status == NOT_SERVING
        time.sleep(0.5)
        models["m"] = True
        assert next(stream).status == SERVING
        stream.cancel()


def test_a_request_without_a_message_is_invalid(serve, caplog):
    with grpc.insecure_channel(serve(health_service=True)) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(f"{HEALTH}/Check")(iter(()), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records
