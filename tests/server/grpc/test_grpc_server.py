import contextlib
import datetime
import socket
from unittest import mock

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tfserving.errors import ConfigError, UnavailableError
from tfserving.server.grpc import grpc_workarounds
from tfserving.server.grpc.grpc_server import GrpcOptions, GrpcServer, _channel_arguments, read_ssl_config

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class NoApi:
    def add_to(self, server):
        pass


@pytest.fixture
def serve(in_loop):
    """Starts a server; returns its address."""
    with contextlib.ExitStack() as stack:

        def start(availability=dict, **options):
            bound = socket.socket()
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]

            async def run():
                server = GrpcServer(NoApi(), GrpcOptions("127.0.0.1", port, **options), availability)
                await server.start(bound)
                return server

            server = in_loop(run())
            stack.callback(lambda: in_loop(server.stop(0)))
            return f"127.0.0.1:{port}"

        yield start


def check(channel, name):
    return (
        health_pb2_grpc.HealthStub(channel)
        .Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
        .status
    )


def watching(channel):
    """What the health service tells of model "m", as it changes."""
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="m"), timeout=30)


def test_the_health_service_knows_the_models(serve):
    models = {"good": True, "bad": False}
    with grpc.insecure_channel(serve(lambda: dict(models), health=True)) as channel:
        assert check(channel, "good") == SERVING
        assert check(channel, "bad") == NOT_SERVING
        assert check(channel, "") == NOT_SERVING
        models["bad"] = True
        assert check(channel, "bad") == check(channel, "") == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "nobody")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_who_watches_is_told(serve):
    models = {"m": False}
    with grpc.insecure_channel(serve(lambda: dict(models), health=True)) as channel:
        watch = watching(channel)
        assert next(watch).status == NOT_SERVING
        models["m"] = True
        assert next(watch).status == SERVING
        watch.cancel()


def test_a_model_that_is_gone_is_not_healthy(serve):
    models = {"m": True}
    with grpc.insecure_channel(serve(lambda: dict(models), health=True)) as channel:
        assert check(channel, "m") == SERVING
        del models["m"]
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "m")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_who_watches_is_told_after_another_left(serve):
    models = {"m": False}
    with grpc.insecure_channel(serve(lambda: dict(models), health=True)) as channel:
        watch = [watching(channel) for _ in range(2)]
        assert [next(each).status for each in watch] == [NOT_SERVING, NOT_SERVING]
        watch[0].cancel()
        assert check(channel, "m") == NOT_SERVING
        models["m"] = True
        assert next(watch[1]).status == SERVING
        watch[1].cancel()


def test_who_watches_is_told_of_the_end_and_does_not_put_it_off(in_loop):
    async def run():
        server = GrpcServer(NoApi(), GrpcOptions("127.0.0.1", 0, health=True), lambda: {"m": True})
        port = server._server.add_insecure_port("127.0.0.1:0")
        await server.start(None)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="m"))
            assert (await watch.read()).status == SERVING
            await server.stop(3600)
            assert (await watch.read()).status == NOT_SERVING
            assert await watch.read() is grpc.aio.EOF

    in_loop(run())


def test_the_health_service_is_off_by_default(serve):
    with grpc.insecure_channel(serve()) as channel, pytest.raises(grpc.RpcError) as caught:
        check(channel, "")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_describes_the_services(serve):
    def asked(channel, **question):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(**question)
        return next(stub.ServerReflectionInfo(iter([request]), timeout=30))

    with grpc.insecure_channel(serve()) as channel:
        names = {entry.name for entry in asked(channel, list_services="").list_services_response.service}
        assert {
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
        } <= names
        reply = asked(channel, file_containing_symbol="tensorflow.serving.PredictionService")
        assert reply.file_descriptor_response.file_descriptor_proto


def test_whatever_a_method_is_called_the_server_serves_on(serve, caplog):
    address = serve(health=True)
    host, port = address.split(":")
    # in this protocol: the preface, SETTINGS, and HEADERS whose :path is not UTF-8, without compression
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


def test_a_machine_that_cannot_call_itself_serves_all_the_same(serve, monkeypatch):
    monkeypatch.setattr(grpc_workarounds.grpc.aio, "insecure_channel", mock.Mock(side_effect=RuntimeError))
    with grpc.insecure_channel(serve(health=True)) as channel:
        assert check(channel, "") == SERVING


def test_a_unix_socket(serve, tmp_path):
    path = tmp_path / "grpc.sock"
    serve(health=True, socket_path=str(path))
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert check(channel, "") == SERVING


def test_a_taken_port_is_an_error(in_loop):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        async def run():
            await GrpcServer(NoApi(), GrpcOptions("127.0.0.1", port), dict).start(socket.socket())

        with pytest.raises(UnavailableError, match=str(port)):
            in_loop(run())


def certificate(name="localhost"):
    """A self-signed certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def ssl_config(tmp_path, text):
    path = tmp_path / "ssl.config"
    path.write_text(text)
    return str(path)


def quoted(pem):
    return '"' + pem.replace("\n", "\\n") + '"'


def test_tls_and_who_may_call(serve, tmp_path):
    (cert, key), (other_cert, other_key) = certificate(), certificate("client")
    text = f"server_key: {quoted(key)} server_cert: {quoted(cert)}"
    address = serve(health=True, ssl=read_ssl_config(ssl_config(tmp_path, text)))
    name = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(cert.encode()), name) as channel:
        assert check(channel, "") == SERVING
    text += f" custom_ca: {quoted(other_cert)} client_verify: true"
    address = serve(health=True, ssl=read_ssl_config(ssl_config(tmp_path, text)))
    ours = grpc.ssl_channel_credentials(cert.encode(), other_key.encode(), other_cert.encode())
    with grpc.secure_channel(address, ours, name) as channel:
        assert check(channel, "") == SERVING
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(cert.encode()), name) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            check(channel, "")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server_keys: 1", "server_keys"),
        ('server_key: "k"', "needs server_key and server_cert"),
        ('server_key: "k" server_cert: "c" client_verify: true', "client_verify needs custom_ca"),
    ],
)
def test_a_bad_ssl_config_is_named(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        read_ssl_config(ssl_config(tmp_path, text))
    with pytest.raises(ConfigError, match="nowhere"):
        read_ssl_config("/nowhere")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [("a=1,oops", "'oops' is no key=value"), ("a=99999999999", "'a=99999999999' is no integer of 32 bits")],
)
def test_bad_channel_arguments_are_named(arguments, said):
    with pytest.raises(ConfigError, match=said):
        GrpcServer(NoApi(), GrpcOptions(arguments=arguments), dict)


def test_channel_arguments_are_integers_where_they_can_be():
    found = dict(_channel_arguments("a=-1,b=--5,c=\u00b2,d=x=y"))
    assert {key: found[key] for key in "abcd"} == {"a": -1, "b": "--5", "c": "\u00b2", "d": "x=y"}


def test_keys_that_do_not_fit_are_thought_of_when_a_port_cannot_be_opened(serve, tmp_path):
    text = 'server_key: "no key" server_cert: "no certificate"'
    with pytest.raises(UnavailableError, match="--ssl_config_file"):
        serve(ssl=read_ssl_config(ssl_config(tmp_path, text)))
