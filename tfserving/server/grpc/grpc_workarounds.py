"""A `grpc.aio.server` that no request can end.

The loop in which grpc.aio accepts calls breaks off at a method whose name is not UTF-8, and takes the server
with it (`_server_main_loop` in server.pyx.pxi, grpcio 1.85). Here it never sees one: every method is
registered with gRPC's core, which compares bytes, and a call of any other is refused before the loop.
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


def grpc_server(options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Server:
    """A `grpc.aio.server` for services whose methods are registered (`add_registered_method_handlers`)."""
    _KNOWN_BY_GARBAGE.addFilter(_is_no_garbage)
    plain = cygrpc.AioServer
    # where grpc.aio.Server takes its core from
    cygrpc.AioServer = _Core
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = plain


async def exercise() -> None:
    """Sends a message to itself, once, so that no caller pays for what gRPC does on first use.

    The first message of 600 kB took 4 to 5 ms longer than the next ones.
    """
    server = grpc.aio.server(options=_ANY_SIZE)

    async def answer(message: bytes, context: Any) -> bytes:
        return message

    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tfserving.Exercise", handlers),))
    # RuntimeError: a machine without this address goes without exercise
    with contextlib.suppress(grpc.RpcError, RuntimeError):
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        options = (*_ANY_SIZE, ("grpc.enable_http_proxy", 0))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            await channel.unary_unary("/tfserving.Exercise/Echo")(bytes(1 << 20), timeout=5)
    await server.stop(None)


_ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

_refusals: set[asyncio.Task[None]] = set()

_Core: type = cygrpc.AioServer
# Older versions register nothing, and their loop has to see every call.
if hasattr(cygrpc.AioServer, "_request_registered_call"):

    class _Core(cygrpc.AioServer):  # type: ignore[misc,no-redef]
        async def _request_call(self) -> None:
            """Waits for calls of methods that are not registered; gives none of them to the loop."""
            while True:
                call = await super()._request_call()
                refusal = asyncio.ensure_future(_refuse(call))
                _refusals.add(refusal)
                refusal.add_done_callback(_refusals.discard)


async def _refuse(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    refusal = context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
    # abort() raises in any case: that it aborted, or that the caller is gone
    await asyncio.gather(refusal, return_exceptions=True)


_KNOWN_BY_GARBAGE = logging.getLogger("grpc._cython.cygrpc")


def _is_no_garbage(record: logging.LogRecord) -> bool:
    """Keeps out of the log, with its traceback, what headers of any bytes bring about."""
    return not str(record.msg).startswith("Invalid encoding on")
