"""The gRPC server: calls of gRPC's core, served in the event loop.

grpc.aio has a thread that takes the events of the core, and wakes the event loop several times for a request.
Here the event loop takes the events itself while there are any. A thread waits for the next one only when
there is none, so a busy server hardly uses it.

`cygrpc` is private. These are the classes that grpc.server consists of, not those of grpc.aio.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc

from tfserving.server.coroutines import resume
from tfserving.server.grpc.call_timeout import CallTimeout

log = logging.getLogger(__name__)

# Seconds of events after which other work of the event loop comes first.
_TURN_SECONDS = 0.002

# A deadline further away than this means that there is none.
_LONGEST_DEADLINE = 1e9


class CoreServer:
    """A server with the methods of `grpc.aio.Server` that generated code calls.

    Handlers are those of `grpc.aio`, except that responses of a stream are yielded, that the context is a
    `CallContext`, and that a handler with one request and one response begins outside of a task, so that what
    needs one, such as asyncio.timeout(), fails until it has waited for something.

    Args:
        options: channel arguments.
        timeout: seconds for the message of a call with one request, for the whole of a call with a stream of
            requests, and for the caller to read the response; None for no limit.
    """

    def __init__(self, options: Sequence[tuple[str, Any]], timeout: float | None = None) -> None:
        self._requests = CallTimeout(timeout, self._end_late)
        self._responses = CallTimeout(timeout, CallContext.cancel)
        self._handlers: dict[bytes, grpc.RpcMethodHandler] = {}
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._queue)
        self._loop: asyncio.AbstractEventLoop
        # Held while the event loop takes the events, and not the thread.
        self._in_loop = threading.Lock()
        self._stopped = asyncio.Event()
        self._is_started = False
        self._has_ended = False
        self._is_behind = False
        self._calls = 0

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: generated code also adds the handlers by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Add the handlers of a service by the names of its methods."""
        for method, handler in handlers.items():
            self._handlers[f"/{service}/{method}".encode()] = handler

    def add_insecure_port(self, address: str) -> int:
        """Open an address and return its port.

        Raises:
            RuntimeError: the address cannot be opened.
        """
        return self._add_port(address)

    def add_secure_port(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """As `add_insecure_port`, with TLS."""
        return self._add_port(address, credentials._credentials)

    def _add_port(self, address: str, *credentials: Any) -> int:
        port = int(self._server.add_http2_port(address.encode(), *credentials))
        if not port:
            raise RuntimeError(f"gRPC cannot bind {address}")
        return port

    async def start(self) -> None:
        """Accept calls from now on, and serve them in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._is_started = True
        self._server.start()
        self._accept_next()
        self._in_loop.acquire()
        threading.Thread(target=self._wait_for_events, name="grpc", daemon=True).start()

    async def stop(self, grace: float | None) -> None:
        """Reject new calls, and cancel those that are not done after `grace` seconds."""
        if not self._is_started:
            return
        self._server.shutdown(self._queue, lambda _: self._stopped.set())
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), grace or 0)
        self._server.cancel_all_calls()
        await self._stopped.wait()
        self._server.destroy()

    def _wait_for_events(self) -> None:
        """Run in the thread."""
        while not self._has_ended:
            event = self._poll(None)
            try:
                self._loop.call_soon_threadsafe(self._handle_events, event)
            except RuntimeError:
                return  # the event loop is closed
            del event
            self._in_loop.acquire()

    def _poll(self, deadline: float | None) -> Any:
        while True:
            try:
                return self._queue.poll(deadline)
            except Exception:
                log.exception("gRPC has an event that cannot be read")
                self._accept_next()  # it may have been a call

    def _handle_events(self, event: Any) -> None:
        """Handle an event, and those that follow it until there is none or other work comes first."""
        end = time.perf_counter() + _TURN_SECONDS
        while event.tag is not None:
            try:
                event.tag(event)
            except Exception:
                log.exception("an event of gRPC failed")
            except BaseException:  # which ends the event loop, but it may run again
                self._loop.call_soon(self._handle_events, self._poll(0))
                raise
            del event  # it has the call and its message
            event = self._poll(0)
            if time.perf_counter() > end:
                self._is_behind = True
                self._loop.call_soon(self._handle_events, event)
                return
        self._is_behind = False
        self._has_ended = not self._calls and self._stopped.is_set()
        self._in_loop.release()

    def _accept_next(self) -> None:
        with contextlib.suppress(ValueError):  # the server is stopping
            self._server.request_call(self._queue, self._queue, self._accept)

    def _accept(self, event: Any) -> None:
        self._accept_next()
        if not event.success:
            return  # the server is stopping
        self._calls += 1
        handler = self._handlers.get(event.call_details.method)
        call = CallContext(event, handler, self._loop, self._responses, self._end_call)
        if handler is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, "the method does not exist")
            return
        self._requests.start(call)
        if handler.request_streaming:
            call.serve_stream()
        else:
            if self._is_behind:
                call.watch()  # first, to skip it if its caller has gone by the time of its message
            call.receive(self._serve)

    def _serve(self, call: CallContext, message: bytes | None) -> None:
        self._requests.stop(call)
        if message is None:
            call.end(grpc.StatusCode.INVALID_ARGUMENT, "the request has no message")
        elif not call.has_ended:
            call.serve(message)

    def _end_call(self, call: CallContext) -> None:
        self._calls -= 1
        self._requests.stop(call)
        self._responses.stop(call)

    def _end_late(self, call: CallContext) -> None:
        call.end_late(self._requests.describe_late_request())


class CallContext:
    """A call, and the context of its handler.

    Args:
        event: the event that accepted the call.
        handler: of its method.
        loop: serves the call.
        responses: notes calls whose responses the caller has to read.
        note_end: is called when the call is complete on both sides.

    Attributes:
        has_ended: whether the status was sent, or the caller has gone.
    """

    def __init__(
        self,
        event: Any,
        handler: grpc.RpcMethodHandler,
        loop: asyncio.AbstractEventLoop,
        responses: CallTimeout[CallContext],
        note_end: Callable[[CallContext], None],
    ) -> None:
        self._call = event.call
        self._details = event.call_details
        self._handler = handler
        self._loop = loop
        self._responses = responses
        self._note_end = note_end
        self._task: asyncio.Task[None] | None = None
        self._is_watched = False
        self._has_begun = False
        self.has_ended = False

    def peer(self) -> str:
        """The caller's address in gRPC's notation."""
        return str(self._call.peer().decode())

    def time_remaining(self) -> float | None:
        """Seconds to the deadline; None if the caller has set none."""
        seconds = self._details.deadline - time.time()
        return max(0.0, seconds) if seconds < _LONGEST_DEADLINE else None

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the call with a status; never returns."""
        self.end(code, details)
        raise _AbortedError

    def receive(self, function: Callable[[CallContext, bytes | None], None]) -> None:
        """Call `function` with this call and its next message, None if there is none."""
        self._start(
            [cygrpc.ReceiveMessageOperation(0)],
            lambda event: function(self, event.batch_operations[0].message()),
        )

    def serve(self, message: bytes) -> None:
        """Run the handler of a call with one request; without a task until it waits for something."""
        request = self._deserialize(message)
        if request is None:
            return
        del message
        if self._handler.response_streaming:
            self._start_task(self._send_all(self._handler.unary_stream(request, self)))
            return
        running = self._handler.unary_unary(request, self)
        del request
        try:
            future = running.send(None)
        except StopIteration as done:
            self._respond(done.value)
        except asyncio.CancelledError:
            self.end(grpc.StatusCode.CANCELLED, _CANCELLED)
        except Exception as error:  # noqa: BLE001 - it becomes the status
            self._fail(error)
        else:
            self._start_task(self._respond_later(resume(running, future)))

    def serve_stream(self) -> None:
        """Run the handler of a call with a stream of requests."""
        responses = self._handler.stream_stream(self._requests(), self)
        self._start_task(self._send_all(responses))

    def end_late(self, details: str) -> None:
        """End the call because its request, or the end of its stream, has not arrived in time."""
        self.end(grpc.StatusCode.DEADLINE_EXCEEDED, details)
        if self._task is not None:
            self._task.cancel()

    def cancel(self) -> None:
        """End the call on both sides, and forget what the caller has not read."""
        self._call.cancel()

    def end(self, code: grpc.StatusCode, details: str = "", message: bytes | None = None) -> None:
        """Send a status, after the message if there is one; do nothing if the call has ended."""
        if self.has_ended:
            return
        self.has_ended = True
        operations = self._begin()
        if message is not None:
            operations.append(cygrpc.SendMessageOperation(message, 0))
        self._responses.start(self)
        text = details.encode("utf-8", "replace")
        operations.append(cygrpc.SendStatusFromServerOperation((), code.value[0], text, 0))
        if self._is_watched:
            self._start(operations, _ignore)
        else:
            self._watch(operations)

    def watch(self) -> None:
        """Notice from now on when the caller cancels the call."""
        if not self._is_watched:
            self._watch([])

    def _begin(self) -> list[Any]:
        if self._has_begun:
            return []
        self._has_begun = True
        return [cygrpc.SendInitialMetadataOperation((), 0)]

    def _start(self, operations: list[Any], function: Callable[[Any], None]) -> None:
        """Start operations; `function` is called with their event."""
        error = self._call.start_server_batch(operations, function)
        if error:
            raise RuntimeError(f"gRPC rejects {operations}: error {error}")

    def _watch(self, operations: list[Any]) -> None:
        """Start operations, and notice the end of the call."""
        self._is_watched = True
        self._start([*operations, cygrpc.ReceiveCloseOnServerOperation(0)], self._close)

    def _close(self, _: Any) -> None:
        was_open = not self.has_ended
        self.has_ended = True
        self._note_end(self)
        if was_open and self._task is not None:
            # later: a task that is cancelled before it begins would not run the handler to its end
            self._loop.call_soon(self._task.cancel)

    def _start_task(self, running: Coroutine[Any, Any, None]) -> None:
        self.watch()
        self._task = self._loop.create_task(running)
        self._task.add_done_callback(self._end_task)

    def _end_task(self, _: asyncio.Task[None]) -> None:
        self._task = None
        self.end(grpc.StatusCode.CANCELLED, _CANCELLED)  # unless it has sent a status

    def _deserialize(self, message: bytes) -> Any:
        """The request; None if there is none in the message, which ends the call."""
        deserialize = self._handler.request_deserializer
        if deserialize is None:
            return message
        try:
            return deserialize(message)
        except Exception as error:  # noqa: BLE001 - of any kind, by the handler
            self.end(grpc.StatusCode.INTERNAL, f"the request cannot be parsed: {error}")
            return None

    def _serialize(self, response: Any) -> bytes:
        serialize = self._handler.response_serializer
        message = response if serialize is None else serialize(response)
        if not isinstance(message, bytes):
            raise TypeError(f"the response is not serialized: {type(message).__name__}")
        return message

    def _respond(self, response: Any) -> None:
        try:
            message = self._serialize(response)
        except Exception as error:  # noqa: BLE001 - it becomes the status
            self._fail(error)
        else:
            self.end(grpc.StatusCode.OK, "", message)

    async def _respond_later(self, response: Awaitable[Any]) -> None:
        try:
            self._respond(await response)
        except Exception as error:  # noqa: BLE001 - it becomes the status
            self._fail(error)

    async def _send_all(self, responses: AsyncGenerator[Any, None]) -> None:
        try:
            async with contextlib.aclosing(responses):
                async for response in responses:
                    operations = [*self._begin(), cygrpc.SendMessageOperation(self._serialize(response), 0)]
                    self._responses.start(self)
                    await self._do(operations)
                    if self.has_ended:
                        return
                    self._responses.stop(self)
        except Exception as error:  # noqa: BLE001 - it becomes the status
            self._fail(error)
        else:
            self.end(grpc.StatusCode.OK)

    async def _requests(self) -> AsyncGenerator[Any, None]:
        while True:
            (received,) = await self._do([cygrpc.ReceiveMessageOperation(0)])
            message = received.message()
            request = None if message is None else self._deserialize(message)
            if request is None:
                return
            yield request

    async def _do(self, operations: list[Any]) -> Any:
        """Start operations and wait until they are done; returns them."""
        done = self._loop.create_future()

        def set_done(event: Any) -> None:
            if not done.done():
                done.set_result(event.batch_operations)  # not the event, which refers to this function

        self._start(operations, set_done)
        return await done

    def _fail(self, error: Exception) -> None:
        if isinstance(error, _AbortedError):
            return
        log.error("%s failed", self._details.method.decode(), exc_info=error)
        self.end(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")


_CANCELLED = "the request was cancelled"


class _AbortedError(Exception):
    """Ends a handler that has called `CallContext.abort`."""


def _ignore(_: Any) -> None:
    pass
