"""The HTTP server of the REST API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from aiohttp import http_exceptions, web
from aiohttp.http_parser import RawRequestMessage

from tfserving.server.observability.observability import Page
from tfserving.server.ports import BoundPort
from tfserving.server.request_context import Observer
from tfserving.server.rest import responses
from tfserving.server.rest.arriving_bodies import PORTION_BYTES
from tfserving.server.rest.instrumentation import instrument
from tfserving.server.rest.json_response import JsonResponse
from tfserving.server.rest.rest_api import RestApi
from tfserving.server.server_options import LimitOptions, RestOptions
from tfserving.server.service import Service

log = logging.getLogger(__name__)

# Bytes of a body that are buffered before the sender is paused. The whole body is kept in memory anyway, and
# pausing costs time: 3 MB arrive in 1.5 ms with this buffer, in 4 to 10 ms with one of 1 MB.
READ_BUFFER_BYTES = 1 << 25

# tensorflow_model_server has no limits; these bound the memory that the head of a request takes.
MAX_LINE_BYTES = 1 << 16
MAX_HEADERS = 512

# Seconds that a connection stays open after the response to a body that was not read to its end: the client
# may read the response only after it has sent more.
LINGERING_SECONDS = 1.0

# aiohttp takes 0 as no keep-alive at all.
_FOREVER = 10 * 365 * 86400.0


def make_rest_runner(
    service: Service,
    options: RestOptions,
    *,
    shutdown_timeout: float,
    limits: LimitOptions,
    observers: Sequence[Observer] = (),
    page: Page | None = None,
) -> web.BaseRunner:
    """The REST API as a runner of aiohttp: call `setup()`, then open a port.

    Args:
        shutdown_timeout: seconds that `cleanup()` waits for requests in flight.
        limits: bound connections, and what requests can occupy.
        observers: are notified of every request.
        page: is served beside the API, and not observed.
    """
    handle = RestApi(service, options, limits).handle
    return web.ServerRunner(
        _Server(instrument(handle, observers, page), limits),
        shutdown_timeout=shutdown_timeout,
    )


async def open_port(runner: web.BaseRunner, port: BoundPort) -> None:
    """Accept requests at a port.

    Raises:
        UnavailableError: another process listens on the port.
    """
    port.listen()  # uvloop does not report that listening failed
    for bound in port.sockets:
        await web.SockSite(runner, bound).start()
    log.info("REST API listening at http://%s", port.address)


class _Server(web.Server):
    """The open connections, in the order of their last requests.

    When there are too many, a new one takes the place of the one that has waited longest for its client: for
    a request, or else for the rest of a body.
    """

    _connections: dict[_RestConnection, asyncio.Transport]  # type: ignore[assignment]

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: LimitOptions
    ):
        super().__init__(handler, request_factory=self._start_request)
        self._limits = limits

    def __call__(self) -> web.RequestHandler:
        limits = self._limits
        return _RestConnection(
            self,
            limits,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=max(0, limits.idle_timeout_in_ms) / 1e3 or _FOREVER,
            lingering_time=LINGERING_SECONDS,
            # RestApi decompresses bodies: in a worker, and up to a limit
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Add a connection, and close one if there are too many."""
        super().connection_made(handler, transport)
        if len(self._connections) <= self._limits.max_connections:
            return
        others = [connection for connection in self._connections if connection is not handler]
        idle = next((connection for connection in others if connection.is_idle), None)
        receiving = next((connection for connection in others if connection.is_receiving), None)
        surplus = self._connections.pop(idle or receiving or cast(_RestConnection, handler))
        # Not now: the new connection is not complete yet.
        asyncio.get_running_loop().call_soon(surplus.abort)

    def _start_request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        transport = self._connections.pop(protocol, None)
        if transport is not None:
            self._connections[protocol] = transport
        # client_max_size=0: no limit on the size of a body
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=0)


def _end_task(*_: Any) -> web.BaseRequest:
    raise asyncio.CancelledError("the connection is lost")


class _RestConnection(web.RequestHandler):
    """Responds to invalid HTTP as the API responds to any invalid request, without a traceback in the log.

    Closes if the client is slow to send the head of a request, or to read a response.
    """

    __slots__ = ("_head_timer", "_limits", "_unread", "_write_timer")

    def __init__(self, server: web.Server, limits: LimitOptions, **options: Any) -> None:
        super().__init__(server, **options)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unread = 0

    @property
    def is_idle(self) -> bool:
        """Whether it waits for the head of a request, or for the rest of one."""
        if self._waiter is None:
            return not self._request_count  # its task has not started
        return not self._waiter.done()

    @property
    def is_receiving(self) -> bool:
        """Whether the body of the current request is incomplete."""
        request = self._current_request
        return request is not None and not request.content.is_eof() and not self._force_close

    async def start(self) -> None:
        """Serve requests, unless the connection is lost before: aiohttp would fail."""
        if self.transport is not None:
            await super().start()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout for the first head: it includes the time before its first byte."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the timeouts, and the task if a request has just arrived: aiohttp would fail to serve it."""
        super().connection_lost(exc)
        self._request_factory = _end_task
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Fail the bodies that handlers wait for when invalid HTTP arrives; aiohttp does not."""
        super().data_received(data)
        if not self._messages:
            if data and self._head_timer is None and self.is_idle:
                self._start_head_timer()
            return
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if isinstance(self._messages[-1][0], RawRequestMessage):
            return
        bodies = [body for _, body in self._messages]
        if self._current_request is not None:
            bodies.append(self._current_request.content)
        for body in bodies:
            if not body.is_eof():
                self.fail_body(body, web.RequestPayloadError(self._messages[-1][0].message))

    def fail_body(self, body: Any, error: Exception) -> None:
        """Raise an error where a body is read; the connection closes after the response."""
        body.set_exception(error)
        self._lingering_time = 0  # nothing readable follows
        self.close()

    def pause_writing(self) -> None:
        """Start the timeout for reading a response when the client does not read it."""
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        """End the timeout for reading a response."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def force_close(self) -> None:
        """Close without a response; a client that does not read cannot keep the connection open."""
        transport = self.transport
        super().force_close()
        if transport is not None and transport.get_write_buffer_size():
            self._loop.call_later(LINGERING_SECONDS, transport.abort)

    def _start_head_timer(self) -> None:
        timeout = self._limits.head_timeout_in_ms
        if timeout > 0:
            self._head_timer = self._loop.call_later(timeout / 1e3, self._end_slow_head)

    def _end_slow_head(self) -> None:
        self._head_timer = None
        if self.is_idle:
            self.force_close()

    def _start_write_timer(self) -> None:
        timeout = self._limits.body_timeout_in_ms
        if timeout > 0 and self.transport is not None:
            self._unread = self.transport.get_write_buffer_size()
            self._write_timer = self._loop.call_later(timeout / 1e3, self._end_slow_reader)

    def _end_slow_reader(self) -> None:
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size() > self._unread - PORTION_BYTES:
            self.transport.abort()
        else:
            self._start_write_timer()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a request that could not be parsed."""
        super().handle_error(request, status, exc, message)
        what = "the request is not valid HTTP/1.1" if status < 500 else "internal error"
        text = (message or str(exc)).partition("\n")[0]
        response = JsonResponse(responses.encode_error(f"{what}: {text}"), status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log invalid HTTP at level DEBUG: any client can cause it."""
        error = kw.get("exc_info")
        if isinstance(error, http_exceptions.HttpProcessingError):
            log.debug("%s: %s", args[0] % args[1:], error.message.partition("\n")[0])
        else:
            super().log_exception(*args, **kw)
