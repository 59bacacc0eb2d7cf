"""grpc.aio as the gRPC server, for --grpc_front=aio, with workarounds for what it lacks.

The accept loop of grpc.aio terminates when the name of a method is not valid UTF-8, and the server with it
(`_server_main_loop` in server.pyx.pxi, grpcio 1.85). Therefore every method is registered with gRPC's core,
which compares bytes, and requests for other methods are rejected before they reach that loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc

from tfserving.server.grpc.call_timeout import CallTimeout


def create_aio_server(
    options: Sequence[tuple[str, Any]], request_timeout: float | None = None
) -> grpc.aio.Server:
    """A `grpc.aio.server` for services whose methods are registered (`add_registered_method_handlers`).

    Args:
        options: channel arguments.
        request_timeout: seconds for the message of a call with one request, and for the whole of a call with
            a stream of requests; None for no limit.
    """
    timeout = None if request_timeout is None else _TimedHandlers(request_timeout)
    original = cygrpc.AioServer

    def create(*args: Any) -> Any:
        return _RegisteredMethodsServer(timeout, *args)

    # grpc.aio.Server has no parameter for the class that it wraps
    cygrpc.AioServer = create
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = original


class _RegisteredMethodsServer(cygrpc.AioServer):  # type: ignore[misc]
    def __init__(self, request_timeout: _TimedHandlers | None, *args: Any) -> None:
        super().__init__(*args)
        self._request_timeout = request_timeout

    def add_registered_method_handlers(self, handlers: dict[str, Any]) -> None:
        """Add handlers with the timeout; they take precedence over those that are added otherwise."""
        if self._request_timeout is not None:
            handlers = {path: self._request_timeout.limit(each) for path, each in handlers.items()}
        super().add_registered_method_handlers(handlers)

    # Older versions of grpcio do not register methods: their loop has to receive every request.
    if hasattr(cygrpc.AioServer, "_request_registered_call"):

        async def _request_call(self) -> None:
            """Reject every request for a method that is not registered; never returns."""
            while True:
                call = await super()._request_call()
                task = asyncio.get_running_loop().create_task(_reject(call))
                _tasks.add(task)
                task.add_done_callback(_tasks.discard)
                del call, task


# asyncio keeps only weak references to tasks
_tasks: set[asyncio.Task[None]] = set()


async def _reject(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    rejection = context.abort(grpc.StatusCode.UNIMPLEMENTED, "the method does not exist")
    # abort() always raises: AbortError, or an error because the caller has disconnected
    await asyncio.gather(rejection, return_exceptions=True)


class _TimedHandlers:
    """Handlers with a timeout for their requests.

    Args:
        seconds: for the message of an RPC with one request, and for the whole of an RPC with many.
    """

    def __init__(self, seconds: float) -> None:
        self._timeout = CallTimeout[Any](seconds, self._abort_late)
        self._aborts: set[asyncio.Task[Any]] = set()

    def limit(self, handler: Any) -> grpc.RpcMethodHandler:
        """A handler that does the same as `handler`, but with the timeout.

        To gRPC, it is one for a stream of requests: only these are called before the message has arrived.
        """
        codec = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary:

            async def respond(_: Any, context: Any) -> Any:
                request = await self._read(context)
                if request is grpc.aio.EOF:
                    return None
                running = handler.unary_unary(request, context)
                del request  # an error refers to this frame, and gRPC to the error
                return await running

            return grpc.stream_unary_rpc_method_handler(respond, *codec)
        if handler.unary_stream:

            async def respond_often(_: Any, context: Any) -> Any:
                request = await self._read(context)
                if request is not grpc.aio.EOF:
                    async for response in handler.unary_stream(request, context):
                        yield response

            return grpc.stream_stream_rpc_method_handler(respond_often, *codec)

        async def stream(requests: Any, context: Any) -> Any:
            self._timeout.start(context)
            try:
                async for response in handler.stream_stream(requests, context):
                    yield response
            finally:
                self._timeout.stop(context)

        return grpc.stream_stream_rpc_method_handler(stream, *codec)

    async def _read(self, context: Any) -> Any:
        """The request; EOF if there is none, which has ended the RPC."""
        self._timeout.start(context)
        try:
            request = await context.read()
        finally:
            self._timeout.stop(context)
        if request is grpc.aio.EOF:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the request has no message")
        return request

    def _abort_late(self, context: Any) -> None:
        details = self._timeout.describe_late_request()
        aborting = _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, details)
        task = asyncio.get_running_loop().create_task(aborting)
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)


async def _abort(context: Any, code: grpc.StatusCode, details: str) -> None:
    # abort() always raises: AbortError, or an error because the caller has disconnected
    await asyncio.gather(context.abort(code, details), return_exceptions=True)
