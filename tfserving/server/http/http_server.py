"""The HTTP server: its ports, its open connections, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from tfserving.server.http.http_connection import LINGERING_SECONDS, HttpConnection, Wait
from tfserving.server.http.http_messages import HttpRequest, HttpResponse
from tfserving.server.server_options import LimitOptions

log = logging.getLogger(__name__)

# Seconds that cancelled requests have to end.
_CANCEL_SECONDS = 1.0


class HttpServer:
    """Serves HTTP/1.1 in the running event loop.

    The open connections are in the order of their last requests. When there are too many, a new one takes the
    place of the one that has waited longest for its client: for a request, or else for the rest of a body, or
    else that it reads a response.

    Args:
        handle: responds to a request. It begins outside of a task, with other context variables than later.
            What needs a task, such as asyncio.timeout(), fails until it has waited for something.
        make_error: the response for a status and a message.
        limits: the number of connections, and the timeouts for clients.

    Attributes:
        is_stopping: whether connections close after their current request.
    """

    def __init__(
        self,
        handle: Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]],
        make_error: Callable[[int, str], HttpResponse],
        limits: LimitOptions,
    ) -> None:
        self.limits = limits
        self.is_stopping = False
        self._handle = handle
        self._make_error = make_error
        self._connections: dict[HttpConnection, None] = {}
        self._listeners: list[asyncio.Server] = []
        # Of requests that wait for something; they may run longer than their connections.
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_done = asyncio.Event()
        self._check: asyncio.TimerHandle | None = None
        timeouts = (limits.head_timeout_in_ms, limits.idle_timeout_in_ms, limits.body_timeout_in_ms)
        shortest = min([LINGERING_SECONDS, *[timeout / 1e3 for timeout in timeouts if timeout > 0]])
        # Seconds between looks for clients that are too late: a timer for each request would cost more.
        self._check_interval = shortest / 4

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections at bound sockets."""
        loop = asyncio.get_running_loop()
        backlog = self.limits.max_connections  # all of them may connect while the event loop is busy
        for bound in sockets:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # its connections inherit it
            listener = await loop.create_server(
                lambda: HttpConnection(self, loop), sock=bound, backlog=backlog
            )
            self._listeners.append(listener)

    async def stop(self, grace: float) -> None:
        """Close when the requests that run are done; cancel those that are not done after `grace` seconds."""
        self.is_stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.stop()
        await self._wait_until_done(grace)
        for connection in list(self._connections):
            connection.abort()
        # A task that is cancelled before it begins would not run the handler to its end.
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await self._wait_until_done(_CANCEL_SECONDS)
        if self._check is not None:
            self._check.cancel()

    async def _wait_until_done(self, timeout: float) -> None:
        if self._connections or self._tasks:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_done.wait(), timeout)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The response to a request; raises nothing but CancelledError."""
        try:
            return await self._handle(request)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.target)
            return self._make_error(500, f"internal error: {type(error).__name__}: {error}")

    def reject(self, reason: str) -> HttpResponse:
        """The response to what is not valid HTTP."""
        log.debug("invalid HTTP: %s", reason)
        return self._make_error(400, f"the request is not valid HTTP/1.1: {reason}")

    def add(self, connection: HttpConnection) -> None:
        """Add a connection, and close one if there are too many."""
        surplus: HttpConnection | None = None
        if self.is_stopping:
            surplus = connection
        elif len(self._connections) >= self.limits.max_connections:
            surplus = min(self._connections, key=lambda other: other.wait)
            if surplus.wait is Wait.SERVER:
                surplus = connection
        self._connections[connection] = None
        if surplus is not None:
            del self._connections[surplus]
            # Not now: the new connection is not complete yet.
            asyncio.get_running_loop().call_soon(surplus.abort)
        if self._check is None:
            self._check_later()

    def remove(self, connection: HttpConnection) -> None:
        """Forget a connection that was lost."""
        self._connections.pop(connection, None)
        self._note_done()

    def start_task(self, running: Coroutine[Any, Any, None]) -> None:
        """Continue a request in a task; it may run longer than its connection."""
        task = asyncio.get_running_loop().create_task(running)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._note_done()

    def _note_done(self) -> None:
        if self.is_stopping and not (self._connections or self._tasks):
            self._all_done.set()

    def note_request(self, connection: HttpConnection) -> None:
        """Move a connection to the end of the order."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def _check_later(self) -> None:
        self._check = asyncio.get_running_loop().call_later(self._check_interval, self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._check = None
        if self._connections:
            self._check_later()
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            connection.check_deadline(now)
