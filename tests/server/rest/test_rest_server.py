"""Limits of REST connections: timeouts, the number of connections, and the bytes of bodies."""

import asyncio
import gc
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from unittest import mock

import numpy as np
import pytest

from tests.server import apis
from tests.server.fake_loader import FakeLoader
from tests.server.fake_service import FakeService, serve, zeros
from tfserving.server.http.http_connection import PORTION_BYTES, HttpConnection
from tfserving.server.rest.large_bodies import LARGE_BYTES, Turns
from tfserving.server.rest.rest_server import make_rest_server
from tfserving.server.server_options import LimitOptions, RestOptions


@pytest.fixture
def service():
    return FakeService()


@contextmanager
def connected(server, *parts):
    """A connection on which the parts of a request were sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        for part in parts:
            client.sendall(part)
        yield client


HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize("parts", [(), (b"GET /v1/mod",), (b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n",)])
def test_a_connection_with_a_slow_head_is_closed(service, parts):
    with serve(service, limits=LimitOptions(head_timeout_in_ms=100)) as server:
        with connected(server, *parts) as client:
            assert client.recv(4096) == b""


def test_a_dripping_head_is_closed(service):
    with serve(service, limits=LimitOptions(head_timeout_in_ms=300)) as server:
        with connected(server, b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n") as client:
            assert b"200 OK" in client.recv(4096)
            started = time.monotonic()
            with suppress(ConnectionError):
                while time.monotonic() < started + 30:
                    client.sendall(b"G")
                    time.sleep(0.05)
            assert time.monotonic() < started + 30


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(service):
    def run(inputs):
        time.sleep(0.5)
        return inputs | {"y": np.zeros(1)}

    service.run = run
    with serve(service, limits=LimitOptions(idle_timeout_in_ms=100)) as server:
        with connected(server, HEAD % 18, b'{"instances": [1]}') as client:
            assert b"200 OK" in client.recv(4096)
            assert client.recv(4096) == b""


def test_timeouts_of_0_close_no_connection(service):
    limits = LimitOptions(head_timeout_in_ms=0, idle_timeout_in_ms=0, body_timeout_in_ms=0)
    with serve(service, limits=limits) as server, connected(server, HEAD % 18) as client:
        time.sleep(0.3)
        client.sendall(b'{"instances": [1]}')
        assert b"200 OK" in client.recv(4096)
        client.sendall(b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in client.recv(4096)


def test_a_slow_body_gets_a_504_and_the_connection_is_closed(service, caplog):
    with serve(service, limits=LimitOptions(body_timeout_in_ms=200)) as server:
        with connected(server, HEAD % 100, b'{"ins') as client:
            response = client.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 504")
    assert b"5 bytes so far" in response
    assert b"--rest_api_body_timeout_in_ms" in response
    assert not any(record.exc_info for record in caplog.records)


def test_the_timeout_of_a_body_starts_again_with_each_portion(service):
    body = b'{"instances": [1]}' + b" " * 5 * PORTION_BYTES
    with serve(service, limits=LimitOptions(body_timeout_in_ms=1000)) as server:
        with connected(server, HEAD % len(body)) as client:
            for start in range(0, len(body), PORTION_BYTES):
                client.sendall(body[start : start + PORTION_BYTES])
                time.sleep(0.3)
            assert b"200 OK" in client.recv(4096)


def test_a_client_that_does_not_read_its_response_is_disconnected(service):
    service.run = zeros(10_000_000)
    with serve(service, limits=LimitOptions(body_timeout_in_ms=200)) as server:
        with connected(server, HEAD % 18, b'{"instances": [1]}') as client:
            assert client.recv(100)
            time.sleep(2)
            received = 0
            with suppress(ConnectionResetError):
                while piece := client.recv(1 << 20):
                    received += len(piece)
    assert received < 30_000_000  # of 40,000,000


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_for_an_unknown_model_is_not_read_to_its_end(service, chunked):
    size = 400_000_000
    head = b"POST /v1/models/other:predict HTTP/1.1\r\nHost: x\r\n"
    if chunked:
        parts = (head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size, bytes(2 * PORTION_BYTES))
    else:
        parts = (head + b"Content-Length: %d\r\n\r\n" % size,)
    with serve(service) as server, connected(server, *parts) as client:
        response = client.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 404")
    assert service.submitted == 0


def test_bodies_that_are_arriving_are_limited_and_small_requests_still_succeed(service):
    body = b'{"instances": [1]}' + b" " * 20 * PORTION_BYTES
    with serve(service, limits=LimitOptions(max_queued_bytes=4 * PORTION_BYTES)) as server:
        with connected(server, HEAD % len(body), body[: 3 * PORTION_BYTES]) as first:
            assert server.predict({"instances": [1]}).status == 200
            with connected(server, HEAD % len(body), body[: 3 * PORTION_BYTES]) as second:
                response = second.makefile("rb").read()
            assert response.startswith(b"HTTP/1.1 429")
            assert b"--max_queued_bytes=1048576" in response
            # alone, a body of any size is accepted
            first.sendall(body[3 * PORTION_BYTES :])
            assert b"200 OK" in first.recv(4096)
        assert server.predict(body).status == 200


def test_bodies_that_wait_to_be_parsed_are_limited(service, eventually):
    double, release = service.run, threading.Event()

    def run(inputs):
        release.wait(30)
        return double(inputs)

    service.run = run
    large = b'{"instances": [1]}' + b" " * LARGE_BYTES
    limits = LimitOptions(max_queued_bytes=LARGE_BYTES * 3 // 2)
    with serve(service, limits=limits) as server, ThreadPoolExecutor(8) as callers:
        running = [callers.submit(server.predict, {"instances": [1]}) for _ in range(4)]
        eventually(lambda: service.submitted == 4)  # all worker threads
        running.append(callers.submit(server.predict, large))
        eventually(lambda: service.submitted == 5)  # its turn has begun
        waiting = [callers.submit(server.predict, large)]
        time.sleep(0.5)  # it arrives; if it is slower, one of the two is rejected as well
        waiting.append(callers.submit(server.predict, large))
        rejected = next(as_completed(waiting, 30)).result()
        release.set()
        accepted = [future.result(30).status for future in (*running, *waiting)]
    assert rejected.status == 429
    assert "--max_queued_bytes" in rejected.error
    assert sorted(accepted) == [200] * 6 + [429]


def test_a_busy_model_does_not_delay_large_bodies_of_others(in_loop, eventually):
    loader, release, begun = FakeLoader(), threading.Event(), []
    large = b'{"inputs": [1]}' + b" " * LARGE_BYTES
    with (
        apis.serve(in_loop, models=("busy", "idle"), loader=loader) as server,
        ThreadPoolExecutor(6) as callers,
    ):
        servable = loader.loaded["busy", 3]
        compute = servable.compute

        def wait(*arguments):
            begun.append(arguments)
            assert release.wait(30)
            return compute(*arguments)

        servable.compute = wait
        busy = [callers.submit(server.rest.predict, {"inputs": [1]}, model="busy") for _ in range(4)]
        eventually(lambda: len(begun) == 4)  # all worker threads
        busy.append(callers.submit(server.rest.predict, large, model="busy"))
        time.sleep(0.3)  # it has its turn, and no thread
        assert server.rest.predict(large, model="idle").status == 200
        release.set()
        assert {call.result(30).status for call in busy} == {200}


def test_a_body_whose_request_was_cancelled_while_it_waited_is_not_parsed():
    async def main():
        turns = Turns()
        first, second = (turns.for_body(model, LARGE_BYTES, is_gzip=False) for model in "ab")

        async def hold(turn):
            turn.begin()
            await asyncio.Event().wait()

        holding = asyncio.create_task(first.run(lambda: hold(first)))
        waiting = asyncio.create_task(second.run(lambda: asyncio.to_thread(second.begin)))
        await asyncio.sleep(0.2)
        waiting.cancel()
        begun = asyncio.create_task(asyncio.to_thread(second.begin))
        with pytest.raises(asyncio.CancelledError):
            await begun
        first.end()
        with pytest.raises(asyncio.CancelledError):
            second.begin()
        third = turns.for_body("b", LARGE_BYTES, is_gzip=True)
        assert await third.run(lambda: asyncio.to_thread(third.begin)) is None
        third.end()
        holding.cancel()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert gc.isenabled()


def test_a_new_connection_replaces_the_one_that_has_been_idle_longest(service):
    with serve(service, limits=LimitOptions(max_connections=4)) as server, ExitStack() as stack:
        status = b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n"

        def connect():
            client = stack.enter_context(connected(server, status))
            assert b"200 OK" in client.recv(4096)
            return client

        first, second, *others = (connect() for _ in range(4))
        first.sendall(status)
        assert b"200 OK" in first.recv(4096)
        connect()
        assert second.recv(4096) == b""
        for client in (first, *others):
            client.sendall(status)
            assert b"200 OK" in client.recv(4096)


def test_connections_that_send_slowly_do_not_shut_out_others(service):
    with serve(service, limits=LimitOptions(max_connections=8)) as server, ExitStack() as stack:
        for number in range(30):
            parts = [(), (b"GET /v1",), (HEAD % 100, b"{")][number % 3]
            stack.enter_context(connected(server, *parts))
        for _ in range(5):
            started = time.monotonic()
            assert server.predict({"instances": [1]}).status == 200
            assert time.monotonic() - started < 5


def test_a_connection_whose_request_runs_is_not_replaced(service):
    running, release = threading.Barrier(3), threading.Event()

    def run(inputs):
        running.wait(30)
        assert release.wait(30)
        return {"y": np.zeros(1)}

    service.run = run
    with serve(service, limits=LimitOptions(max_connections=2)) as server, ExitStack() as stack:
        parts = (HEAD % 18, b'{"instances": [1]}')
        busy = [stack.enter_context(connected(server, *parts)) for _ in range(2)]
        running.wait(30)
        with connected(server) as refused, suppress(ConnectionResetError):
            assert refused.recv(4096) == b""
        release.set()
        for client in busy:
            assert b"200 OK" in client.recv(4096)


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD % 100,
        HEAD % 100_000,
        b"GET /v1/models/m HTTP/1.1\r\n",
        b"GET\n",
        b"",
    ],
)
def test_a_request_whose_connection_is_lost_immediately_is_dropped(service, caplog, has_begun, data):
    async def run():
        server = make_rest_server(service, RestOptions(), LimitOptions())
        connection = HttpConnection(server, asyncio.get_running_loop())
        transport = mock.Mock(asyncio.Transport)
        transport.is_closing.return_value = False
        transport.get_write_buffer_size.return_value = 0
        connection.connection_made(transport)
        connection.data_received(data)
        if has_begun:
            await asyncio.sleep(0)
        connection.connection_lost(None)
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()  # reports what a task has raised
        await server.stop(0)

    asyncio.run(run())
    assert not caplog.records


def test_requests_of_a_client_that_reads_nothing_wait(service, eventually):
    service.run = lambda inputs: {"y": np.zeros(12_000)}  # 48 kB of JSON
    requests = 1000
    with serve(service) as server, connected(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(requests * (HEAD % 18 + b'{"instances": [1]}'))
        seen = []

        def has_stopped():
            time.sleep(0.1)
            seen.append(service.submitted)
            return len(seen) > 3 and seen[-4] == seen[-1] > 0

        eventually(has_stopped)
        assert seen[-1] < requests
