"""HTTP connections of the REST clients: servers that are missing, slow, silent, not HTTP, or behind TLS."""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
import urllib3

from tests.client.clients import Blocking, make_client
from tests.client.fakes import FakeRestServer
from tfserving.client import Retry, Tls
from tfserving.errors import (
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    TfServingError,
    UnavailableError,
)


@pytest.fixture(params=["rest", "aio_rest"])
def make(request):
    loop = asyncio.new_event_loop()
    with contextlib.ExitStack() as ends:

        def one(address, **options):
            options = {"retry": Retry(attempts=3, first_pause=0.001), **options}
            wrapped = Blocking(make_client(request.param, address, "half", **options), loop)
            ends.callback(wrapped.close)
            return wrapped

        yield one
    loop.close()


class Raw:
    """Sends given bytes after the first bytes of each connection, and closes it."""

    def __init__(self, *responses):
        self.connections = 0
        self._responses = list(responses)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection:
                    connection.recv(65536)
                    self.connections += 1
                    connection.sendall(self._responses[min(self.connections, len(self._responses)) - 1])

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


def http(status, body, length=None):
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


STATUS = b'{"model_version_status": []}'


def test_calls_go_to_all_servers_and_skip_those_that_do_not_respond(make, rest_server, service):
    with FakeRestServer(service) as other:
        client = make(f"127.0.0.1:1,{rest_server.address},http://{other.address}")
        for _ in range(8):
            client.infer([1])
        assert rest_server.requests
        assert other.requests


def test_a_missing_server_is_unavailable(make):
    client = make("127.0.0.1:1")
    with pytest.raises(
        UnavailableError, match=r"127.0.0.1:1, model 'half': UNAVAILABLE: .*[Rr]efused"
    ) as caught:
        client.status()
    assert caught.value.address == "127.0.0.1:1"
    assert caught.value.server_message is None


def test_retries_when_the_server_closes_without_a_response(make):
    with Raw(b"", b"", http("200 OK", STATUS)) as server:
        assert make(server.address).status() == []
    with Raw(b"") as server:
        with pytest.raises(UnavailableError):
            make(server.address).status()
        assert server.connections in (3, 6), "aiohttp also retries each attempt"


def test_retries_when_the_response_is_truncated(make):
    with Raw(http("200 OK", STATUS[:5], 28), http("200 OK", STATUS)) as server:
        client = make(server.address)
        if urllib3.__version__ >= "2" or "Async" in repr(client.wrapped):
            assert client.status() == []
        else:  # urllib3 1 does not detect it
            with pytest.raises(ProtocolError):
                client.status()
    with Raw(http("200 OK", STATUS[:5], 28)) as server, pytest.raises(ProtocolError):
        make(server.address).status()


@pytest.mark.parametrize("response", [b"\x00\x00\x12\x04", b"SSH-2.0-x\r\n", b"HTTP/1.1 \xff\r\n\r\n"])
def test_a_response_that_is_not_http_is_a_protocol_error(make, response):
    with Raw(response) as server, pytest.raises(ProtocolError, match="not a port for HTTP"):
        make(server.address).status()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("502 Bad Gateway", UnavailableError),
        ("503 Unavailable", UnavailableError),
        ("504 Timeout", DeadlineError),
        ("404 Not Found", NotFoundError),
        ("302 Found", TfServingError),
        ("500 Oops", TfServingError),
    ],
)
def test_status_of_a_proxy_determines_the_error(make, status, kind):
    with Raw(http(status, b"<html>sorry</html>")) as server, pytest.raises(kind, match="sorry") as caught:
        make(server.address).status()
    assert type(caught.value) is kind


def test_an_error_that_is_not_utf8_can_be_printed(make):
    with Raw(http("400 Bad Request", b'{"error": "caf\xe9 is wrong"}')) as server:
        with pytest.raises(InvalidInputError, match="is wrong") as caught:
            make(server.address).status()
    assert str(caught.value).encode()


def test_a_silent_server_ends_in_a_deadline_error(make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = make(f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DeadlineError, match="DEADLINE_EXCEEDED"):
            client.status(timeout=0.1)


def test_request_paths_begin_with_the_path_of_the_url(make, rest_server):
    client = make(f"http://{rest_server.address}/models/")
    with pytest.raises(TfServingError, match="Malformed request: /models/v1/models/half"):
        client.status()


@pytest.mark.parametrize("path", ["", "/wrong"])
def test_a_password_in_the_url_is_sent_and_never_shown(make, rest_server, path):
    client = make(f"http://user:p%40ss@{rest_server.address}{path}")
    if path:
        with pytest.raises(TfServingError) as caught:
            client.status()
        errors = (caught.value, caught.value.__cause__, caught.value.__context__)
        assert "ss@" not in "".join(f"{error} {error!r} {getattr(error, '__dict__', '')}" for error in errors)
    else:
        client.infer([1])
        assert rest_server.headers[-1]["authorization"] == "Basic dXNlcjpwQHNz"
    assert client.address == f"{rest_server.address}{path}"
    assert "user" not in repr(client.wrapped)


def test_metadata_overrides_the_password_in_the_url(make, rest_server):
    client = make(f"http://user:pass@{rest_server.address}", metadata={"authorization": "Bearer x"})
    client.status()
    assert rest_server.headers[-1]["authorization"] == "Bearer x"


@pytest.mark.parametrize(
    "address",
    [
        "http://user:secret@a:b",
        "http://user:secret@",
        "ftp://user:secret@a",
        "http://user:sec,ret@a:1",
        "http://user:sec/ret@a:1",
        "http://1:2/secret@a:1",
        "user:secret@a:1",
        ["http://user:secret@a", "secret@b"],
        "http://a:1,user:sec,ret@b",
    ],
)
def test_errors_for_invalid_addresses_do_not_show_passwords(kind, address):
    with pytest.raises(InvalidInputError) as caught:
        make_client(kind, address, "half")
    assert "sec" not in str(caught.value)


def test_tls_verifies_the_server_and_sends_the_client_certificate(make, service, certificates):
    with FakeRestServer(service) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        context.verify_mode = ssl.CERT_REQUIRED
        server.encrypt(context)
        own = {"certificate": certificates / "client.pem", "key": certificates / "client.key"}
        good = Tls(ca=certificates / "ca.pem", server_name="tf.example", **own)
        assert make(server.address, tls=good).infer([1])["y"].tolist() == [2.5]
        for wrong in (
            Tls(ca=certificates / "ca.pem", **own),
            Tls(server_name="tf.example", **own),
            Tls(ca=certificates / "ca.pem", server_name="tf.example"),
            None,
        ):
            with pytest.raises((UnavailableError, ProtocolError)):
                make(server.address, tls=wrong).infer([1])


@pytest.mark.parametrize("address", ["http://a", ["https://a", "http://b"], "a:1,http://user:secret@b"])
def test_rejects_tls_together_with_an_address_without_tls(make, address):
    with pytest.raises(InvalidInputError, match="is not encrypted, but tls= requires encryption") as caught:
        make(address, tls=Tls())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Bearer x"}])
def test_does_not_send_credentials_from_netrc(make, rest_server, tmp_path, monkeypatch, metadata):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\ndefault login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    make(rest_server.address, metadata=metadata).status()
    assert rest_server.headers[-1].get("authorization") == metadata.get("authorization")
