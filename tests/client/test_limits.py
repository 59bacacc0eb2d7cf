"""Servers that send slowly, or more than fits in memory: deadlines and the limit of responses."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from concurrent import futures

import grpc
import pytest

from tests.client.clients import Blocking, make_client
from tfserving.client import Retry, TfRestClient, Tls
from tfserving.errors import (
    DeadlineError,
    ExhaustedError,
    InvalidInputError,
    ProtocolError,
    TfServingError,
)

STATUS = b'{"model_version_status": []}'
MEGABYTE = 1 << 20
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def serve(respond, context=None):
    """Calls `respond(connection)` after each request; the address."""
    connections = []

    def answer(connection):
        with contextlib.suppress(OSError):
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
                connections.append(connection)
            while connection.recv(65536):
                respond(connection)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                threads.append(threading.Thread(target=answer, args=(connections[-1],)))
                threads[-1].start()

    server = socket.create_server(("127.0.0.1", 0))
    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        _close(server)
        threads[0].join()
        for connection in connections:
            _close(connection)
        for thread in threads[1:]:
            thread.join()


def _close(sock):
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def drip(prefix):
    """Sends a prefix, and then a byte every 50 ms."""

    def respond(connection):
        connection.sendall(prefix)
        while True:
            connection.sendall(b"1")
            time.sleep(0.05)

    return respond


def http(body, *headers, status="200 OK"):
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers))

    def respond(connection):
        connection.sendall(head.encode() + b"\r\n")
        connection.sendall(body)

    return respond


def gzip_of(size, byte=b" "):
    compressor = zlib.compressobj(9, wbits=31)
    parts = [compressor.compress(byte * MEGABYTE) for _ in range(size // MEGABYTE)]
    return b"".join([*parts, compressor.flush()])


@pytest.fixture
def make(kind):
    loop = asyncio.new_event_loop()
    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)

        def one(address, **options):
            options = {"retry": Retry(attempts=2, first_pause=0.001), **options}
            wrapped = Blocking(make_client(kind, address, "half", **options), loop)
            stack.callback(wrapped.close)
            return wrapped

        yield one


only_rest = pytest.mark.parametrize("kind", ["rest", "aio_rest"], indirect=True)
only_rpc = pytest.mark.parametrize("kind", ["rpc", "aio"], indirect=True)


def seconds_of_failed_status(client, error=DeadlineError, **options):
    started = time.monotonic()
    with pytest.raises(error):
        client.status(**options)
    return time.monotonic() - started


@only_rest
@pytest.mark.parametrize(
    "prefix",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nx-header: ",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n",
        CHUNKED,
        CHUNKED + b"ffff;",
        CHUNKED + b"ffff\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_a_dripping_server_cannot_extend_the_deadline(make, prefix):
    with serve(drip(prefix)) as address:
        assert 0.4 < seconds_of_failed_status(make(address), timeout=0.5) < 1.5
        assert 0.4 < seconds_of_failed_status(make(address, timeout=0.5)) < 1.5


@only_rpc
def test_a_dripping_server_cannot_extend_the_deadline_of_a_grpc_call(make):
    settings = b"\0\0\0\4\0\0\0\0\0"
    with serve(drip(settings)) as address:
        assert seconds_of_failed_status(make(address), TfServingError, timeout=0.5) < 1.5


@only_rest
def test_a_dripping_tls_server_cannot_extend_the_deadline(make, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    tls = Tls(ca=certificates / "ca.pem", server_name="tf.example")
    with serve(drip(b"HTTP/1.1 200 OK\r\nx-header: "), context) as address:
        assert 0.4 < seconds_of_failed_status(make(address, tls=tls), timeout=0.5) < 1.5


@only_rest
def test_a_dripping_proxy_cannot_extend_the_deadline(make):
    with serve(drip(b"HTTP/1.1 200 OK\r\nx-header: ")) as proxy:
        client = make("https://tf.example", proxy=f"http://{proxy}")
        assert seconds_of_failed_status(client, timeout=0.5) < 1.5


@pytest.mark.parametrize("kind", ["rest"], indirect=True)  # aiohttp warns about the size of the request
def test_a_server_that_reads_nothing_cannot_extend_the_deadline(make):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        client = make(f"127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(DeadlineError):
            client.classify([{"x": b"\xff" * 30 * MEGABYTE}], timeout=0.5)
        assert time.monotonic() - started < 2.5


def test_a_deadline_ends_with_its_call(rest_server):
    with TfRestClient(rest_server.address, "half") as client:
        client.status(timeout=0.3)
        time.sleep(0.4)
        assert client.status(timeout=None)
        assert client.status()


@only_rest
def test_reads_gzip(make):
    with serve(http(gzip.compress(STATUS), "content-encoding: gzip")) as address:
        client = make(address)
        assert client.status() == client.status() == []
    with serve(http(STATUS, "content-encoding: Identity")) as address:
        assert make(address).status() == []


@only_rest
def test_requests_accept_gzip_only(make, rest_server):
    make(rest_server.address).status()
    assert rest_server.headers[-1]["accept-encoding"] == "gzip"


@only_rest
@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,deflate", "deflate", "br", "x"])
def test_refuses_nested_and_other_encodings(make, encoding):
    body = gzip.compress(gzip_of(64 * MEGABYTE))
    with serve(http(body, f"content-encoding: {encoding}")) as address:
        with pytest.raises(ProtocolError, match=r"Content-Encoding '.*', expected gzip or none") as caught:
            make(address).status()
    assert caught.value.address == address


@only_rest
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"junk", id="not gzip"),
        pytest.param(gzip.compress(STATUS)[:-3], id="truncated"),
        pytest.param(gzip.compress(STATUS) * 2, id="two members"),
    ],
)
def test_damaged_gzip_is_a_protocol_error(make, body):
    with serve(http(body, "content-encoding: gzip")) as address:
        with pytest.raises(ProtocolError, match="gzip"):
            make(address).status()


@only_rest
@pytest.mark.parametrize("status", ["200 OK", "302 Found\r\nlocation: /", "400 Bad Request"])
@pytest.mark.parametrize("is_compressed", [True, False])
def test_a_response_above_the_limit_is_an_error_and_takes_little_memory(make, status, is_compressed):
    body = gzip_of(256 * MEGABYTE) if is_compressed else b" " * (64 * MEGABYTE)
    headers = ["content-encoding: gzip"] if is_compressed else []
    with serve(http(body, *headers, status=status)) as address:
        client = make(address, max_response_bytes=8 * MEGABYTE)
        tracemalloc.start()
        try:
            with pytest.raises(ExhaustedError, match="max_response_bytes=8388608; pass") as caught:
                client.status()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (caught.value.address, caught.value.model) == (address, "half")
    assert peak < 32 * MEGABYTE


@only_rest
def test_a_body_without_a_length_is_limited(make):
    def respond(connection):
        connection.sendall(CHUNKED + b"100000\r\n" + bytes(MEGABYTE) + b"\r\n" + b"100000\r\n")
        connection.sendall(bytes(MEGABYTE) + b"\r\n0\r\n\r\n")

    with serve(respond) as address, pytest.raises(ExhaustedError, match="max_response_bytes"):
        make(address, max_response_bytes=MEGABYTE).status()


@only_rest
def test_a_body_as_large_as_the_limit_is_read(make):
    for headers, body in (([], STATUS), (["content-encoding: gzip"], gzip.compress(STATUS))):
        with serve(http(body, *headers)) as address:
            assert make(address, max_response_bytes=max(len(STATUS), len(body))).status() == []
    with serve(http(STATUS)) as address, pytest.raises(ExhaustedError):
        make(address, max_response_bytes=len(STATUS) - 1).status()


@only_rest
def test_limits_the_number_of_arrays_in_a_body(make):
    limit = 160_000
    most = limit // 16
    with serve(http(b"[" + b"[]," * most + b"0]")) as address:
        with pytest.raises(ExhaustedError, match=f"more than {most} arrays and objects"):
            make(address, max_response_bytes=limit).status()
    with serve(http(b"[" + b"[]," * (most - 1) + b"0]")) as address, pytest.raises(ProtocolError):
        make(address, max_response_bytes=limit).status()


@only_rest
def test_a_body_that_does_not_fit_in_memory_is_an_error(make, rest_server, monkeypatch):
    def fail(*args):
        raise MemoryError

    client = make(rest_server.address)
    client.status()
    for target in ("rest_codec.decode_json", "rest_body.BodyReader.add"):
        monkeypatch.setattr(f"tfserving.client.{target}", fail)
        with pytest.raises(ExhaustedError, match="does not fit in memory") as caught:
            client.status()
        assert caught.value.address == rest_server.address


@only_rpc
def test_a_grpc_response_above_the_limit_is_an_error(make, rpc_server):
    client = make(rpc_server.address, max_response_bytes=20_000)
    assert client.infer([1])["y"].tolist() == [2.5]
    with pytest.raises(ExhaustedError, match="pass a larger max_response_bytes="):
        client.infer([1] * 10_000)
    assert make(rpc_server.address, max_response_bytes=None).infer([1] * 10_000)["y"].size == 10_000


@pytest.mark.parametrize("value", [0, -1, 2**31, 1.5, "5", True, float("nan")])
def test_rejects_an_invalid_limit(kind, value):
    with pytest.raises(InvalidInputError, match=r"^max_response_bytes="):
        make_client(kind, "127.0.0.1:1", "half", max_response_bytes=value)


@only_rpc
def test_a_compressed_grpc_response_above_the_limit_is_an_error(make):
    class Bomb(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: bytes(64 * MEGABYTE))

    options = [("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)]
    server = grpc.server(
        futures.ThreadPoolExecutor(1), (Bomb(),), options=options, compression=grpc.Compression.Gzip
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ExhaustedError, match="max_response_bytes="):
            make(f"127.0.0.1:{port}", max_response_bytes=8 * MEGABYTE).status()
    finally:
        server.stop(None).wait()
