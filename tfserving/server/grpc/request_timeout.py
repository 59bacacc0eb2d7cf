"""Ends RPCs whose request does not arrive.

gRPC has no timeout for a stream that was opened and never sends its message, and such a stream keeps its
connection from being idle. Nor has it one for a stream of requests, such as that of reflection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio


class RequestTimeout:
    """Limits how long RPCs wait for their requests; belongs to one event loop.

    Args:
        seconds: for the message of an RPC with one request, and for the whole of an RPC with many.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # When each RPC began to wait, oldest first.
        self._waiting: dict[Any, float] = {}
        self._is_check_due = False
        self._aborts: set[asyncio.Task[Any]] = set()

    def limit(self, handler: Any) -> grpc.RpcMethodHandler:
        """A handler that does the same as `handler`, but with the timeout.

        To gRPC, it is one for a stream of requests: only these are called before the message has arrived.
        """
        codec = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(self._read_first(handler.unary_unary), *codec)
        if handler.unary_stream:
            return grpc.stream_stream_rpc_method_handler(self._read_first(handler.unary_stream), *codec)

        async def stream(requests: Any, context: Any) -> Any:
            self._start(context)
            try:
                async for response in handler.stream_stream(requests, context):
                    yield response
            finally:
                del self._waiting[context]

        return grpc.stream_stream_rpc_method_handler(stream, *codec)

    def _read_first(self, function: Callable[[Any, Any], Awaitable[Any]]) -> Callable[..., Any]:
        async def read_and_run(_: Any, context: Any) -> Any:
            self._start(context)
            try:
                request = await context.read()
            finally:
                del self._waiting[context]
            if request is grpc.aio.EOF:
                await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the request has no message")
                return None
            running = function(request, context)
            del request  # an error refers to this frame, and gRPC to the error
            return await running

        return read_and_run

    def _start(self, context: Any) -> None:
        loop = asyncio.get_running_loop()
        self._waiting[context] = loop.time()
        if not self._is_check_due:
            self._is_check_due = True
            loop.call_later(self._seconds, self._check)

    def _check(self) -> None:
        """Abort the RPCs that have waited too long; check again when the next one may have."""
        loop = asyncio.get_running_loop()
        self._is_check_due = False
        for context, began in self._waiting.items():
            left = began + self._seconds - loop.time()
            if left > 0:
                self._is_check_due = True
                loop.call_later(left, self._check)
                return
            abort = loop.create_task(
                _abort(
                    context,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"the request has not arrived within {self._seconds * 1e3:.0f} ms (--idle_timeout_in_ms)",
                )
            )
            self._aborts.add(abort)
            abort.add_done_callback(self._aborts.discard)


async def _abort(context: Any, code: grpc.StatusCode, details: str) -> None:
    # abort() always raises: AbortError, or an error because the caller has disconnected
    await asyncio.gather(context.abort(code, details), return_exceptions=True)
