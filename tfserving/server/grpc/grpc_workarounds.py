"""Workarounds for grpc.aio: malformed requests must not stop the server, and small ones must not be slow.

The accept loop of grpc.aio terminates when the name of a method is not valid UTF-8, and the server with it
(`_server_main_loop` in server.pyx.pxi, grpcio 1.85). Therefore every method is registered with gRPC's core,
which compares bytes, and requests for other methods are rejected before they reach that loop.

For each request, that loop waits for the next one of all methods with asyncio.wait(), which takes longer than
to decode a small request. So requests for registered methods do not reach it either: each method has its own
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc

from tfserving.server.grpc.request_timeout import RequestTimeout


def create_server(
    options: Sequence[tuple[str, Any]], request_timeout: RequestTimeout | None = None
) -> grpc.aio.Server:
    """A `grpc.aio.server` for services whose methods are registered (`add_registered_method_handlers`).

    Args:
        request_timeout: applies to all methods; None for none.
    """
    _CYGRPC_LOG.addFilter(_is_worth_logging)
    original = cygrpc.AioServer

    def create(*args: Any) -> Any:
        return _RegisteredMethodsServer(request_timeout, *args)

    # grpc.aio.Server has no parameter for the class that it wraps
    cygrpc.AioServer = create
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = original


async def warm_up_transport() -> None:
    """Send one large message over a loopback connection.

    gRPC initializes on first use: without this, the first request of 600 kB takes 4 to 5 ms longer.
    """
    server = grpc.aio.server(options=_NO_SIZE_LIMIT)

    async def echo(message: bytes, context: Any) -> bytes:
        return message

    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tfserving.WarmUp", handlers),))
    # RuntimeError: the machine has no 127.0.0.1; the server works without the warmup
    with contextlib.suppress(grpc.RpcError, RuntimeError):
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        options = (*_NO_SIZE_LIMIT, ("grpc.enable_http_proxy", 0))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            await channel.unary_unary("/tfserving.WarmUp/Echo")(bytes(1 << 20), timeout=5)
    await server.stop(None)


_NO_SIZE_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

# The coroutine functions of grpc.aio that serve a request, by whether it is a stream and its response is one.
_SERVE = {
    (False, False): "_handle_unary_unary_rpc",
    (False, True): "_handle_unary_stream_rpc",
    (True, False): "_handle_stream_unary_rpc",
    (True, True): "_handle_stream_stream_rpc",
}
_SERVE_PARAMETERS = ("method_handler", "rpc_state", "loop")
_SCHEDULE_PARAMETERS = ("rpc_coro", "rpc_state", "loop", "method_name")


class _RegisteredMethodsServer(cygrpc.AioServer):  # type: ignore[misc]
    def __init__(self, request_timeout: RequestTimeout | None, *args: Any) -> None:
        super().__init__(*args)
        self._request_timeout = request_timeout
        self._handlers: dict[bytes, grpc.RpcMethodHandler] = {}
        self._has_own_loops = _has_parameters("_schedule_rpc_coro", _SCHEDULE_PARAMETERS) and all(
            _has_parameters(name, _SERVE_PARAMETERS) for name in _SERVE.values()
        )

    def add_registered_method_handlers(self, handlers: dict[str, Any]) -> None:
        """Add handlers with the timeout; they take precedence over those that are added otherwise."""
        if self._request_timeout is not None:
            handlers = {path: self._request_timeout.limit(each) for path, each in handlers.items()}
        super().add_registered_method_handlers(handlers)
        self._handlers.update({path.encode(): handler for path, handler in handlers.items()})

    # Older versions of grpcio do not register methods: their loop has to receive every request.
    if hasattr(cygrpc.AioServer, "_request_registered_call"):

        async def _request_registered_call(self, method: bytes) -> Any:
            """Serve the requests for a method until the server stops, which raises an error here.

            Return the next request, for the loop of grpc.aio, if that has other functions than expected.
            """
            if not self._has_own_loops:
                return await super()._request_registered_call(method)
            handler, name, loop = self._handlers[method], method.decode(), asyncio.get_running_loop()
            serve = getattr(cygrpc, _SERVE[handler.request_streaming, handler.response_streaming])
            while True:
                call = await super()._request_registered_call(method)
                _run(cygrpc._schedule_rpc_coro(serve(handler, call, loop), call, loop, name))
                del call  # it would keep what its error refers to until the next request

        async def _request_call(self) -> None:
            """Reject every request for a method that is not registered; never returns."""
            while True:
                call = await super()._request_call()
                _run(_reject(call))
                del call


def _has_parameters(function: str, expected: tuple[str, ...]) -> bool:
    code = getattr(getattr(cygrpc, function, None), "__code__", None)
    return code is not None and code.co_varnames[: code.co_argcount] == expected


# asyncio keeps only weak references to tasks
_tasks: set[asyncio.Task[None]] = set()


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _reject(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    rejection = context.abort(grpc.StatusCode.UNIMPLEMENTED, "the method does not exist")
    # abort() always raises: AbortError, or an error because the caller has disconnected
    await asyncio.gather(rejection, return_exceptions=True)


_CYGRPC_LOG = logging.getLogger("grpc._cython.cygrpc")


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a record is not the traceback that any header with invalid bytes causes."""
    return not str(record.msg).startswith("Invalid encoding on")
