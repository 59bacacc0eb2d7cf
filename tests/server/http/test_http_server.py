"""The HTTP server with handlers for the cases that the REST API does not have."""

import asyncio
import contextlib
import gc
import http.client
import socket
import threading
import time
import tracemalloc
from concurrent.futures import Future
from unittest import mock

import pytest
import uvloop

from tfserving.server.http import http_connection
from tfserving.server.http.http_connection import HttpConnection
from tfserving.server.http.http_messages import HttpRequest, HttpResponse
from tfserving.server.http.http_server import HttpServer
from tfserving.server.http.request_parser import MAX_HEAD_BYTES, RequestParser
from tfserving.server.server_options import LimitOptions

GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
RESET = b"\x01\0\0\0\0\0\0\0"  # for SO_LINGER: close with a reset
CHUNKED = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Handlers:
    """A handler for each path, and what they have noticed."""

    def __init__(self):
        self.begun = []
        self.ended = []
        self.go_on = asyncio.Event()

    async def handle(self, request):
        self.begun.append(request.target)
        try:
            return await getattr(self, request.target.split("/")[1])(request)
        finally:
            self.ended.append(request.target)

    async def echo(self, request):
        body = b""
        while not request.body.is_complete:
            try:
                await request.body.wait()
            except ConnectionError as error:
                return HttpResponse(str(error).encode(), 400)
            body += request.body.take()
        return HttpResponse(body + request.body.take() or request.target.encode())

    async def wait(self, request):
        await self.go_on.wait()
        return await self.echo(request)

    async def refuse(self, request):
        return HttpResponse(b"no", 403)

    async def fail(self, request):
        raise ValueError("no luck")

    async def cancelled(self, request):
        raise asyncio.CancelledError

    async def cancelled_later(self, request):
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def endless(self, request):
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
                continue
            return HttpResponse(b"")

    async def large(self, request):
        return HttpResponse(bytes(30_000_000))

    async def pieces(self, request):
        sizes = []
        while not request.body.is_complete:
            await request.body.wait()
            sizes.append(len(request.body.take()))
        sizes.append(len(request.body.take()))
        return HttpResponse(b"%d of %d" % (len(sizes), sum(sizes)))


def make_error(status, text):
    return HttpResponse(text.encode(), status)


class Running:
    """A server in its own thread.

    Attributes:
        errors: what the event loop has reported.
    """

    def __init__(self, make_loop, limits=LimitOptions()):  # noqa: B008 - it is frozen
        self.errors = []
        self.loop = make_loop()
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.handlers = Handlers()
        self.server = self.run(self._start(limits))

    async def _start(self, limits):
        server = HttpServer(self.handlers.handle, make_error, limits)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        await server.start([listener])
        return server

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def stop(self, grace) -> Future:
        return asyncio.run_coroutine_threadsafe(self.server.stop(grace), self.loop)

    def go_on(self):
        self.loop.call_soon_threadsafe(self.handlers.go_on.set)

    @contextlib.contextmanager
    def connect(self, *parts):
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
            for part in parts:
                client.sendall(part)
            yield client

    def close(self):
        self.stop(0).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Starts a server with limits."""
    with contextlib.ExitStack() as stack:

        def start(**limits):
            running = Running(request.param, LimitOptions(**limits))
            stack.callback(running.close)
            return running

        yield start


@pytest.fixture
def server(run):
    running = run()
    yield running
    gc.collect()
    assert running.errors == []


def read_response(client):
    """The next response: status, headers in lower case, body."""
    response = http.client.HTTPResponse(client)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, response.read()


def read_all(client):
    """The statuses and bodies of all responses until the connection closes."""
    data, responses = client.makefile("rb").read(), []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        responses.append((int(head.split()[1]), rest[:length]))
        data = rest[length:]
    return responses


def test_pipelined_requests_get_responses_in_order_also_if_the_client_sends_no_more(server):
    requests = b"".join(POST % (b"/echo", 3) + b"%03d" % number for number in range(200))
    with server.connect(requests) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == [(200, b"%03d" % number) for number in range(200)]


def test_a_request_that_runs_gets_its_response_although_the_client_sends_no_more(server, eventually):
    with server.connect(POST % (b"/wait", 2) + b"ab") as client:
        eventually(lambda: server.handlers.begun == ["/wait"])
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        server.go_on()
        assert read_all(client) == [(200, b"ab")]


def test_a_body_that_the_client_does_not_finish_fails(server):
    with server.connect(POST % (b"/echo", 10) + b"abc") as client:
        client.shutdown(socket.SHUT_WR)
        ((status, text),) = read_all(client)
    assert status == 400
    assert b"the connection was closed" in text


def test_bodies_that_wait_for_another_request_are_not_read(server, eventually):
    size = 50_000_000
    with server.connect(POST % (b"/wait", 0)) as client:
        eventually(lambda: server.handlers.begun == ["/wait"])
        client.sendall(POST % (b"/echo", size))
        client.settimeout(1)
        tracemalloc.start()
        try:
            with pytest.raises(TimeoutError):
                client.sendall(bytes(size))
            assert tracemalloc.get_traced_memory()[1] < 5_000_000 + size
        finally:
            tracemalloc.stop()
        server.go_on()
        client.settimeout(30)
        assert read_response(client)[0] == 200


def test_bodies_are_not_read_while_the_client_does_not_read_a_response(server, eventually):
    with server.connect(LARGE, POST % (b"/echo", 50_000_000)) as client:
        eventually(lambda: server.handlers.begun == ["/large"])
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(50_000_000))
        assert server.handlers.begun == ["/large"]


def test_of_many_tiny_requests_a_part_is_parsed_at_a_time(server, eventually):
    tiny = b"GET /refuse HTTP/1.1\r\nHost:\r\n\r\n"
    with server.connect(POST % (b"/wait", 0) + 10_000 * tiny) as client:
        eventually(lambda: server.handlers.begun == ["/wait"])
        client.shutdown(socket.SHUT_WR)
        eventually(lambda: all(connection._is_reading_paused for connection in server.server._connections))
        assert sum(type(value) is HttpRequest for value in gc.get_objects()) < 2000
        server.go_on()
        assert read_all(client) == [(200, b"/wait"), *[(403, b"no")] * 10_000]


def test_offers_are_ignored_wherever_they_are_split():
    offer = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    fixed = b"POST /echo HTTP/1.1\r\nContent-Length: 4\r\n" + offer + b"\r\nGET "
    last = fixed.replace(b"Connection: ", b"Connection: close, ")
    chunked = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + offer + b"\r\n3\r\nPUT\r\n0\r\n\r\n"
    tunnel = b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n"
    data = fixed + chunked + fixed + tunnel + GET + last
    expected = [("POST", b"GET "), ("POST", b"PUT"), ("POST", b"GET "), ("CONNECT", b""), ("GET", b"")]
    expected.append(("POST", b"GET "))
    for size in range(1, 60):
        parser, requests = RequestParser(mock.Mock()), []
        for start in range(0, len(data), size):
            parser.parse(data[start : start + size], most=0)
            while parser.requests:
                requests.append(parser.requests.popleft())
                parser.parse(b"", most=0)
        assert [(request.method, request.body.take()) for request in requests] == expected, size


def test_offers_of_another_protocol_are_ignored(server):
    offer = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    requests = b"GET /echo HTTP/1.1\r\n" + offer + b"\r\n"
    requests += b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + offer + b"\r\n2\r\ncd\r\n0\r\n\r\n"
    requests += b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n" + offer + b"\r\n"
    with server.connect(requests) as client:
        time.sleep(0.05)
        client.sendall(b"ab" + GET)
        client.shutdown(socket.SHUT_WR)
        assert [body for _, body in read_all(client)] == [b"/echo", b"cd", b"ab", b"/echo"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET /echo HTTP/2.0\r\nHost: x\r\n\r\n", b"its version is 2.0"),
        (b"GET /echo\r\n\r\n", b"its version is 0.9"),
        (b"GET /echo HTTP/1.1\r\n\r\n", b"it has no Host header"),
        (GET[:-2] + b"HOST: y\r\n\r\n", b"it has several Host headers"),
        (CHUNKED.replace(b"/1.1", b"/1.0") % b"/echo" + b"0\r\n\r\n", b"HTTP/1.0 has no Transfer-Encoding"),
        (GET[:-2] + b"A: " + b"x" * 4 * MAX_HEAD_BYTES, b"its head has more than"),
        (
            b"GET /echo HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"x" * MAX_HEAD_BYTES),
            b"its head has more than",
        ),
        (CHUNKED % b"/echo" + b"0\r\nA: " + b"x" * 4 * MAX_HEAD_BYTES, b"its head has more than"),
        (POST % (b"/echo", 1) + b"aGARBAGE\r\n", b"Invalid method"),
        (GET[:-2] + b"Transfer-Encoding: gzip, chunked\r\n\r\n", b"its Transfer-Encoding is not chunked"),
        (GET[:-2] + MAX_HEAD_BYTES // 64 * b"A: b\r\n" + b"\r\n", b"its head has more than"),
        (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"Length",
        ),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_invalid_http_gets_a_400_after_the_responses_before_and_ends_the_connection(server, data, reason):
    with server.connect(GET + GET, data) as client:
        client.shutdown(socket.SHUT_WR)
        responses = read_all(client)
    assert responses[:2] == [(200, b"/echo")] * 2
    status, text = responses[-1]
    assert status == 400
    assert reason in text


def test_only_the_first_of_equal_headers_counts_and_trailers_do_not(server):
    server.handlers.seen = []

    async def show(request):
        await Handlers.echo(server.handlers, request)
        return HttpResponse(request.header(b"a").encode())

    server.handlers.show = show
    with server.connect(b"GET /show HTTP/1.1\r\nHost: x\r\nA: 1 \t\r\na: 2\r\n\r\n") as client:
        assert read_response(client)[2] == b"1"
        client.sendall(CHUNKED % b"/show" + b"1\r\nx\r\n0\r\nA: 3\r\n\r\n")
        assert read_response(client)[2] == b""


def test_tiny_chunks_are_joined(server):
    count = 20_000
    with server.connect(CHUNKED % b"/pieces") as client:
        client.sendall(count * b"1\r\nx\r\n" + b"0\r\n\r\n")
        pieces, size = read_response(client)[2].split(b" of ")
    assert int(size) == count
    assert int(pieces) < 1000


def test_a_client_that_still_sends_can_read_the_response(server):
    with server.connect(POST % (b"/refuse", 100_000_000)) as client:
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                client.sendall(bytes(100_000))
        status, headers, body = read_response(client)
        assert (status, headers["connection"], body) == (403, "close", b"no")
        assert client.recv(1) == b""


def test_the_response_can_be_read_as_long_as_the_client_sends(run):
    server = run()
    with mock.patch.object(http_connection, "LINGERING_SECONDS", 0.5):
        with server.connect(POST % (b"/refuse", 100_000_000)) as client:
            for _ in range(15):
                client.sendall(bytes(1000))
                time.sleep(0.1)
            assert read_response(client)[0] == 403
            assert client.recv(1) == b""


def test_a_client_that_sends_without_end_is_disconnected(run):
    server = run()
    with mock.patch.object(http_connection, "_LONGEST_LINGERING", 1.0):
        with server.connect(POST % (b"/refuse", 100_000_000)) as client:
            end = time.monotonic() + 30
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < end:
                    client.sendall(bytes(1000))
                    time.sleep(0.05)
            assert time.monotonic() < end


def test_a_long_response_is_written_in_parts(server):
    with mock.patch.object(http_connection, "_WRITTEN_BYTES", 7_000_001), server.connect(LARGE) as client:
        assert read_response(client)[2] == bytes(30_000_000)


@pytest.mark.parametrize("path", [b"/fail", b"/cancelled", b"/cancelled_later"])
def test_a_handler_that_fails_ends_only_its_request(server, path, caplog):
    with server.connect(POST % (path, 0)) as client:
        if path == b"/fail":
            assert read_response(client)[0] == 500
        else:
            assert client.recv(1) == b""
    assert len(caplog.records) == (path == b"/fail")
    with server.connect(GET) as client:
        assert read_response(client)[0] == 200


def test_a_request_whose_client_has_gone_runs_to_its_end(server, eventually):
    with server.connect(POST % (b"/wait", 0)) as client:
        eventually(lambda: server.handlers.begun == ["/wait"])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    time.sleep(0.05)
    server.go_on()
    eventually(lambda: server.handlers.ended == ["/wait"])


def test_connections_are_freed_without_the_garbage_collector(server, eventually):
    kinds = (HttpConnection, RequestParser)
    parts = [(GET,), (b"GET /ec",), (POST % (b"/echo", 9), b"a"), (b"\0",), (POST % (b"/refuse", 9),)]
    gc.collect()
    gc.disable()
    try:
        for sent in parts * 3:
            with server.connect(*sent) as client:
                time.sleep(0.02)
                client.close()
        eventually(lambda: not any(type(value) in kinds for value in gc.get_objects()))
    finally:
        gc.enable()


def test_a_timeout_does_not_end_a_request_that_runs(run, eventually):
    server = run(head_timeout_in_ms=300, idle_timeout_in_ms=300, body_timeout_in_ms=300)
    with server.connect(POST % (b"/wait", 2) + b"ab") as client:
        eventually(lambda: server.handlers.begun == ["/wait"])
        time.sleep(1)
        server.go_on()
        assert read_response(client)[2] == b"ab"
        assert client.recv(1) == b""


def test_a_request_after_a_response_that_was_read_late_has_its_time(run, eventually):
    server = run(body_timeout_in_ms=1000)
    with server.connect(LARGE, POST % (b"/wait", 2) + b"ab") as client:
        time.sleep(0.3)
        stream = client.makefile("rb")
        while stream.readline() != b"\r\n":
            pass
        assert len(stream.read(30_000_000)) == 30_000_000
        eventually(lambda: "/wait" in server.handlers.begun)
        time.sleep(1.6)
        server.go_on()
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("further", [GET, b"GET /ec", b"\0garbage"])
def test_further_requests_do_not_extend_the_time_for_reading_a_response(run, further, eventually):
    server = run(body_timeout_in_ms=200)
    with server.connect(LARGE) as client:
        eventually(lambda: server.handlers.ended)
        end = time.monotonic() + 30
        with contextlib.suppress(ConnectionError):
            while server.server._connections and time.monotonic() < end:
                client.sendall(further)
                time.sleep(0.05)
        assert time.monotonic() < end


def test_a_part_of_a_head_after_a_request_must_be_completed_in_time(run):
    server = run(head_timeout_in_ms=500)
    with server.connect(GET + b"GET /ec") as client:
        assert read_all(client) == [(200, b"/echo")]


def test_when_no_other_waits_a_client_that_does_not_read_is_replaced(run, eventually):
    server = run(max_connections=2)
    with server.connect(POST % (b"/wait", 0)) as busy, server.connect(LARGE) as slow:
        eventually(lambda: server.handlers.ended == ["/large"])
        with server.connect(GET) as client:
            assert read_response(client)[0] == 200
        server.go_on()
        assert read_response(busy)[0] == 200
        with contextlib.suppress(ConnectionError):
            assert len(slow.makefile("rb").read()) < 30_000_000


@pytest.mark.parametrize(
    ("packets", "bodies"),
    [
        ([POST % (b"/echo", 2), b"ab"], [b"ab"]),
        ([GET + POST % (b"/echo", 2), b"ab"], [b"/echo", b"ab"]),
        ([b"\0"], [b"Invalid method encountered"]),
    ],
)
def test_what_has_arrived_gets_one_response_whenever_deadlines_are_checked(packets, bodies):
    async def run():
        loop, transport = asyncio.get_running_loop(), mock.Mock(asyncio.Transport)
        transport.is_closing.return_value = False
        transport.get_write_buffer_size.return_value = 0
        connection = HttpConnection(HttpServer(Handlers().handle, make_error, LimitOptions()), loop)
        connection.connection_made(transport)
        for packet in packets:
            connection.data_received(packet)
            connection.check_deadline(loop.time() + 1e6)
        for _ in range(3):
            await asyncio.sleep(0)
        transport.abort.assert_not_called()
        return [call.args[0] for call in transport.write.call_args_list]

    for response, body in zip(asyncio.run(run()), bodies, strict=True):
        assert response.endswith(body)


def test_a_client_that_closes_its_connection_must_read_the_response_in_time(run):
    server = run(body_timeout_in_ms=500)
    request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with server.connect(request) as client:
        time.sleep(2)
        with contextlib.suppress(ConnectionError):
            assert len(client.makefile("rb").read()) < 30_000_000
    with server.connect(request) as client:
        assert len(client.makefile("rb").read()) > 30_000_000


class TestStop:
    def test_closes_connections_without_a_request_and_lets_others_finish(self, server, eventually):
        with server.connect(GET) as idle, server.connect(b"GET /ec") as slow, contextlib.ExitStack() as stack:
            assert read_response(idle)[0] == 200
            busy = stack.enter_context(server.connect(POST % (b"/wait", 0) + GET))
            eventually(lambda: "/wait" in server.handlers.begun)
            stopping = server.stop(30)
            assert (idle.recv(1), slow.recv(1)) == (b"", b"")
            with pytest.raises(ConnectionRefusedError), server.connect():
                pass
            assert not stopping.done()
            server.go_on()
            status, headers, _ = read_response(busy)
            assert (status, headers["connection"], busy.recv(1)) == (200, "close", b"")
            stopping.result(30)

    @pytest.mark.parametrize("path", [b"/wait", b"/endless"])
    def test_cancels_what_runs_after_the_grace_period(self, server, path, eventually):
        with server.connect(POST % (path, 0)) as client:
            eventually(lambda: server.handlers.begun)
            server.stop(0.1).result(30)
            assert client.recv(1) == b""
        assert server.handlers.ended == [path.decode()]

    def test_does_not_wait_for_a_client_that_reads_nothing(self, server):
        with server.connect(LARGE) as client:
            assert client.recv(100)
            server.stop(0.1).result(30)

    def test_cancels_a_request_whose_client_has_gone(self, server, eventually):
        with server.connect(POST % (b"/wait", 0)) as client:
            eventually(lambda: server.handlers.begun)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        server.stop(0.1).result(30)
        assert server.handlers.ended == ["/wait"]

    def test_closes_connections_that_are_accepted_meanwhile(self):
        server = Running(uvloop.new_event_loop)  # asyncio forgets them
        with contextlib.ExitStack() as stack:
            stack.callback(server.close)
            server.loop.call_soon_threadsafe(time.sleep, 0.2)
            clients = [stack.enter_context(server.connect()) for _ in range(20)]
            started = time.monotonic()
            server.stop(30).result(60)
            assert time.monotonic() - started < 20
            for client in clients:
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""

    def test_lets_a_client_that_still_sends_read_its_response(self, server, eventually):
        with server.connect(POST % (b"/refuse", 1000)) as client:
            eventually(lambda: server.handlers.begun)
            stopping = server.stop(30)
            client.sendall(bytes(500))
            assert read_response(client)[0] == 403
            stopping.result(30)

    def test_does_not_wait_for_the_rest_of_a_rejected_body(self, server, eventually):
        with server.connect(POST % (b"/refuse", 100_000_000)) as client:
            assert read_response(client)[0] == 403
            stopping, began = server.stop(20), time.monotonic()
            with contextlib.suppress(ConnectionError):
                while not stopping.done():
                    client.sendall(bytes(1000))
                    time.sleep(0.05)
            assert time.monotonic() - began < 15

    def test_before_the_start(self):
        asyncio.run(HttpServer(Handlers().handle, make_error, LimitOptions()).stop(1))
