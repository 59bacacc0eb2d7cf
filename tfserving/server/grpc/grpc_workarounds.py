"""Workarounds for grpc.aio: malformed requests must not stop the server, and the first one must not be slow.

The accept loop of grpc.aio terminates when the name of a method is not valid UTF-8, and the server with it
(`_server_main_loop` in server.pyx.pxi, grpcio 1.85). Therefore every method is registered with gRPC's core,
which compares bytes, and requests for other methods are rejected before they reach that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
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
        server = _RegisteredMethodsServer(*args)
        server.request_timeout = request_timeout
        return server

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

# asyncio keeps only weak references to tasks
_rejections: set[asyncio.Task[None]] = set()


class _RegisteredMethodsServer(cygrpc.AioServer):  # type: ignore[misc]
    request_timeout: RequestTimeout | None = None

    def add_registered_method_handlers(self, handlers: dict[str, Any]) -> None:
        """Add handlers with the timeout; they take precedence over those that are added otherwise."""
        if self.request_timeout is not None:
            handlers = {path: self.request_timeout.limit(each) for path, each in handlers.items()}
        super().add_registered_method_handlers(handlers)

    # Older versions of grpcio do not register methods: their loop has to receive every request.
    if hasattr(cygrpc.AioServer, "_request_registered_call"):

        async def _request_call(self) -> None:
            """Reject every request for a method that is not registered; never returns."""
            while True:
                call = await super()._request_call()
                rejection = asyncio.ensure_future(_reject(call))
                _rejections.add(rejection)
                rejection.add_done_callback(_rejections.discard)


async def _reject(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    rejection = context.abort(grpc.StatusCode.UNIMPLEMENTED, "the method does not exist")
    # abort() always raises: AbortError, or an error because the caller has disconnected
    await asyncio.gather(rejection, return_exceptions=True)


_CYGRPC_LOG = logging.getLogger("grpc._cython.cygrpc")


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a record is not the traceback that any header with invalid bytes causes."""
    return not str(record.msg).startswith("Invalid encoding on")
