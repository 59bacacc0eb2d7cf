"""The server on the core of gRPC, with handlers for the cases that the API does not have."""

import asyncio
import contextlib
import gc
import socket
import struct
import threading
import time
import tracemalloc

import grpc
import pytest

from tests.fuzz import corpus
from tfserving.server.grpc.core_server import CoreServer


class Handlers:
    """Handlers for bytes, and what they have noticed."""

    def __init__(self):
        self.begun = threading.Event()
        self.go_on = asyncio.Event()
        self.begins = 0
        self.ends = []

    async def echo(self, request, context):
        return request

    async def wait(self, request, context):
        self.begins += 1
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        self.ends.append("done")
        return request

    async def fail(self, request, context):
        if request == b"later":
            await asyncio.sleep(0)
        raise ValueError("no luck")

    async def abort_later(self, request, context):
        await asyncio.sleep(0)
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    async def remaining(self, request, context):
        return str(context.time_remaining()).encode()

    async def count(self, request, context):
        try:
            for number in range(1_000_000):
                yield str(number).encode()
        finally:
            self.ends.append("closed")

    async def fail_in_stream(self, request, context):
        yield b"first"
        raise ValueError("no luck")

    async def double(self, requests, context):
        async for request in requests:
            yield 2 * request

    async def spin(self, request, context):
        self.begins += 1
        time.sleep(0.001)
        return b""

    async def cancelled(self, request, context):
        if request == b"later":
            await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def number(self, request, context):
        if request == b"later":
            await asyncio.sleep(0)
        return 5

    async def clean_up(self, request, context):
        try:
            await context.abort(grpc.StatusCode.DATA_LOSS, "lost \ud800")
        finally:
            await asyncio.sleep(0.05)
            self.ends.append("clean")

    async def insist(self, request, context):
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)
            self.begins += 1
            yield b""

    async def time_out(self, request, context):
        yield b"first"
        raise TimeoutError("too slow")

    def add_to(self, server):
        unary = [self.echo, self.wait, self.fail, self.abort_later, self.remaining, self.spin]
        unary += [self.cancelled, self.number, self.clean_up]
        handlers = {each.__name__: grpc.unary_unary_rpc_method_handler(each) for each in unary}
        for each in (self.count, self.fail_in_stream, self.insist, self.time_out):
            handlers[each.__name__] = grpc.unary_stream_rpc_method_handler(each)
        handlers["double"] = grpc.stream_stream_rpc_method_handler(self.double)
        handlers["parse"] = grpc.unary_unary_rpc_method_handler(self.echo, request_deserializer=int)
        server.add_registered_method_handlers("s", handlers)


@pytest.fixture
def handlers():
    return Handlers()


@pytest.fixture
def server(in_loop, handlers):
    async def start():
        server = CoreServer([])
        handlers.add_to(server)
        server.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server

    server = in_loop(start())
    yield server
    in_loop(server.stop(0))


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def call(channel, method, request=b"", timeout=30):
    return channel.unary_unary(f"/s/{method}").future(request, timeout=timeout)


def status(future):
    return future.code(), future.details()


@pytest.mark.parametrize("method", ["echo", "count", "double"])
def test_a_call_whose_response_is_not_read_is_cancelled(in_loop, handlers, method, eventually):
    async def start():
        server = CoreServer([], 1.0)
        handlers.add_to(server)
        server.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server

    server = in_loop(start())
    no_window = corpus.frame(corpus.SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    request = corpus.grpc_call(f"/s/{method}", b"x").replace(
        corpus.frame(corpus.SETTINGS, 0, 0, b""), no_window
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as peer:
        peer.sendall(request)
        frames, kinds = peer.makefile("rb"), []
        while corpus.RST_STREAM not in kinds:
            head = frames.read(9)
            frames.read(int.from_bytes(head[:3], "big"))
            kinds.append(head[3])
    assert corpus.DATA not in kinds
    eventually(lambda: server._calls == 0)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        assert call(channel, "echo", b"y").result() == b"y"
    eventually(lambda: not server._responses._waiting)
    in_loop(server.stop(0))


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "grpc"]


both = pytest.mark.parametrize("request_", [b"now", b"later"], ids=["now", "later"])


@both
def test_a_handler_that_fails_is_logged_and_ends_its_call(channel, caplog, request_):
    assert status(call(channel, "fail", request_)) == (grpc.StatusCode.UNKNOWN, "ValueError: no luck")
    (record,) = caplog.records
    assert record.getMessage() == "/s/fail failed"
    assert record.exc_info


@both
def test_a_handler_that_is_cancelled_from_within_ends_its_call_only(channel, request_):
    assert call(channel, "cancelled", request_).code() is grpc.StatusCode.CANCELLED
    assert call(channel, "echo", b"x").result() == b"x"


@both
def test_a_response_that_is_not_bytes_is_an_error(server, channel, caplog, request_):
    code, details = status(call(channel, "number", request_))
    assert code is grpc.StatusCode.UNKNOWN
    assert details == "TypeError: the response is not serialized: int"
    assert len(caplog.records) == 1


def test_a_handler_cleans_up_after_it_has_aborted(channel, handlers, eventually):
    assert status(call(channel, "clean_up")) == (grpc.StatusCode.DATA_LOSS, "lost ?")
    eventually(lambda: handlers.ends == ["clean"])


@pytest.mark.parametrize(
    ("method", "error"), [("fail_in_stream", "ValueError: no luck"), ("time_out", "TimeoutError: too slow")]
)
def test_a_stream_that_fails_sends_what_it_has(channel, caplog, method, error):
    stream = channel.unary_stream(f"/s/{method}")(b"", timeout=30)
    assert next(stream) == b"first"
    with pytest.raises(grpc.RpcError, match=error):
        next(stream)
    assert len(caplog.records) == 1


def test_a_request_that_cannot_be_parsed_is_an_error_of_the_caller(channel, caplog):
    code, details = status(call(channel, "parse", b"x"))
    assert code is grpc.StatusCode.INTERNAL
    assert details.startswith("the request cannot be parsed: invalid literal")
    assert not caplog.records


def test_a_handler_can_abort_after_it_has_waited(channel, caplog):
    assert status(call(channel, "abort_later")) == (grpc.StatusCode.DATA_LOSS, "lost")
    assert not caplog.records


def test_the_deadline_is_known_if_there_is_one(channel):
    assert 0 < float(call(channel, "remaining").result()) <= 31  # gRPC rounds it up
    assert call(channel, "remaining", timeout=None).result() == b"None"


def test_each_request_of_a_stream_has_its_response_in_order(channel):
    requests = [str(number).encode() for number in range(200)]
    responses = list(channel.stream_stream("/s/double")(iter(requests), timeout=30))
    assert responses == [2 * request for request in requests]


def test_a_stream_that_the_caller_cancels_is_closed(channel, handlers, eventually):
    stream = channel.unary_stream("/s/count")(b"", timeout=30)
    assert [next(stream) for _ in range(3)] == [b"0", b"1", b"2"]
    stream.cancel()
    eventually(lambda: handlers.ends == ["closed"])


def test_a_stream_ends_with_its_caller_even_if_the_handler_goes_on(server, channel, handlers, eventually):
    stream = channel.unary_stream("/s/insist")(b"", timeout=30)
    next(stream)
    stream.cancel()
    eventually(lambda: server._calls == 0)
    begins = handlers.begins
    time.sleep(0.05)
    assert handlers.begins <= begins + 1


def test_nothing_is_kept_of_a_stream(channel, eventually):
    size = 2_000_000
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        assert len(list(channel.stream_stream("/s/double")(iter([bytes(size)]), timeout=30))) == 1
        eventually(lambda: tracemalloc.get_traced_memory()[0] < size)
    finally:
        tracemalloc.stop()
        gc.enable()


def test_calls_whose_callers_have_gone_are_skipped_in_a_backlog(channel, handlers):
    futures = [call(channel, "spin", timeout=0.05) for _ in range(1000)]
    assert call(channel, "echo", b"x").result() == b"x"
    assert {future.code() for future in futures} >= {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert handlers.begins < 700  # each takes 1 ms


def test_every_call_ends_however_short_its_deadline_is(server, channel, handlers, eventually):
    futures = [call(channel, "wait", timeout=number * 1e-5) for number in range(500)]
    assert {future.code() for future in futures} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    eventually(lambda: server._calls == 0)
    eventually(lambda: handlers.ends == handlers.begins * ["cancelled"])
    assert call(channel, "echo", b"x").result() == b"x"


def test_other_work_of_the_event_loop_has_its_turns(channel, in_loop):
    turns = 0
    is_over = False

    async def count_turns():
        nonlocal turns
        while not is_over:
            turns += 1
            await asyncio.sleep(0)

    futures = [call(channel, "spin") for _ in range(100)]
    counting = threading.Thread(target=in_loop, args=(count_turns(),))
    counting.start()
    for future in futures:
        future.result()
    is_over = True
    counting.join(30)
    assert turns > 10


def test_stop_waits_for_calls_in_progress_and_rejects_new_ones(server, channel, in_loop, handlers):
    async def stop():
        stopping = asyncio.ensure_future(server.stop(30))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        handlers.go_on.set()
        await stopping

    waiting = call(channel, "wait", b"x")
    assert handlers.begun.wait(30)
    in_loop(stop())
    assert waiting.result() == b"x"
    assert call(channel, "echo", timeout=5).code() is grpc.StatusCode.UNAVAILABLE


def test_stop_cancels_calls_after_the_grace(server, channel, in_loop, handlers, eventually):
    waiting = call(channel, "wait")
    assert handlers.begun.wait(30)
    in_loop(server.stop(0.1))
    assert waiting.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    eventually(lambda: handlers.ends == ["cancelled"])


def test_the_thread_ends_with_the_server(in_loop, handlers, eventually):
    async def start_and_stop():
        server = CoreServer([])
        handlers.add_to(server)
        server.add_insecure_port("127.0.0.1:0")
        await server.start()
        assert len(threads()) == before + 1
        await server.stop(None)
        await server.stop(None)

    before = len(threads())
    in_loop(start_and_stop())
    eventually(lambda: len(threads()) == before)


def test_a_server_that_was_not_started_can_be_stopped(in_loop):
    in_loop(CoreServer([]).stop(1))
