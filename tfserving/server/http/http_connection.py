"""One HTTP/1.1 connection: its requests, one after the other, and how long the client may take for what."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, cast

from tfserving.server.coroutines import resume
from tfserving.server.http.http_messages import HttpRequest, HttpResponse
from tfserving.server.http.request_parser import RequestParser

if TYPE_CHECKING:
    from tfserving.server.http.http_server import HttpServer

# Bytes of a response that a client must read in the time for them.
PORTION_BYTES = 1 << 18

# Seconds that a connection stays open after the response to a body that was not read to its end, and after
# each further part of that body: the client may read the response only when it has sent all of it.
LINGERING_SECONDS = 1.0
# At most, in all.
_LONGEST_LINGERING = 30.0

# A longer body is written after the head instead of together with it, which would copy it.
_JOINED_BYTES = 1 << 16
# uvloop does not accept 2 GiB in one call.
_WRITTEN_BYTES = 1 << 30


class Wait(enum.IntEnum):
    """What a connection waits for, the most dispensable first."""

    REQUEST = 0
    BODY = 1
    READING = 2
    SERVER = 3


class HttpConnection(asyncio.Protocol):
    """Parses what arrives, and has the server respond to one request at a time.

    A handler begins outside of a task, and gets one when it waits for something: small requests never do. It
    runs to its end also if the client has gone.

    Attributes:
        deadline: when the client is too late, in seconds of the event loop's time; infinite while it has
            nothing to send or to read.
    """

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.deadline = math.inf
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        # Has the requests that follow the current one.
        self._parser = RequestParser(self._send_continue)
        self._current: HttpRequest | None = None
        self._is_serving_due = False
        self._is_reading_paused = False
        self._is_writing_paused = False
        self._has_client_ended = False
        self._is_closing = False
        # Until when it may stay open although it is closing, while more of a body arrives.
        self._lingers_until = 0.0
        # Bytes of responses that the client had not read at the last check.
        self._unread = 0

    @property
    def wait(self) -> Wait:
        """What it waits for."""
        if self._current is not None:
            return Wait.BODY if self._current is self._parser.receiving else Wait.SERVER
        if self._is_writing_paused:
            return Wait.READING
        if self._is_serving_due:
            return Wait.SERVER
        return Wait.BODY if self._parser.requests else Wait.REQUEST

    def abort(self) -> None:
        """Close without a response."""
        if self._transport is not None:
            self._transport.abort()

    def stop(self) -> None:
        """Close if no request is served; after one, `HttpServer.is_stopping` has the same effect."""
        if self._is_closing:
            self._lingers_until = min(self._lingers_until, self._loop.time() + LINGERING_SECONDS)
        elif self.wait is Wait.REQUEST:
            self._close()

    def check_deadline(self, now: float) -> None:
        """Close if the client is too late; begin a request whose small body is late."""
        if now < self.deadline or self._transport is None or self._is_serving_due:
            return
        if self._parser.requests and self._can_begin and not self._is_closing:
            self._serve()
            return
        unread = self._transport.get_write_buffer_size()
        if unread and unread <= self._unread - PORTION_BYTES:
            self._expect_reading()
        else:
            self._transport.abort()

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout for the first head: it includes the time before its first byte."""
        self._transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        self._parser.peer = str(address[0] if isinstance(address, tuple) else address or "")
        self._set_timeout(self._server.limits.head_timeout_in_ms)
        self._server.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Fail the body that is waited for; the current request runs to its end."""
        self._transport = None
        self._parser.close()
        self._server.remove(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and begin the first request later, when all connections have been read."""
        if self._is_closing:
            if self._lingers_until:
                self.deadline = min(self._lingers_until, self._loop.time() + LINGERING_SECONDS)
            return
        self._parse(data)
        if not self._can_begin:
            return
        if self._parser.requests or self._parser.invalid:
            self._serve_soon()
            return
        timeout = self._server.limits.head_timeout_in_ms
        if timeout > 0:  # not later than before, if a part of the head had arrived
            self.deadline = min(self.deadline, self._loop.time() + timeout / 1e3)

    def eof_received(self) -> bool:
        """Close after the responses to the requests that have arrived; True: the transport does not close."""
        self._has_client_ended = True
        self._parser.fail_body("the connection was closed")
        if self._is_closing or self.wait is Wait.REQUEST:
            self._close()
        elif self._parser.requests and self._can_begin:
            self._serve_soon()
        return True

    def pause_writing(self) -> None:
        """Start the timeout for reading a response."""
        self._is_writing_paused = True
        self._expect_reading()

    def resume_writing(self) -> None:
        """Continue with the next request."""
        self._is_writing_paused = False
        if self._current is not None:
            self.deadline = math.inf
        elif not self._is_closing:
            self._continue()

    @property
    def _can_begin(self) -> bool:
        """Whether the next request can begin."""
        return self._current is None and not self._is_writing_paused

    def _parse(self, data: bytes = b"") -> None:
        """Parse what has arrived, unless a request has to wait: then read no more."""
        self._parser.parse(data, most=1 if self._can_begin else 0)
        if self._parser.has_rest and not self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _send_continue(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _serve_soon(self) -> None:
        """Begin the next request in the next turn; if its body is small and missing, when it has arrived.

        Most bodies follow in a moment, and a handler that has to wait for one takes longer.
        """
        requests = self._parser.requests
        if requests and requests[0].body.follows_soon and not self._is_reading_paused:
            self.deadline = self._loop.time()
        elif not self._is_serving_due:
            self._is_serving_due = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Begin the next request."""
        self._is_serving_due = False
        transport, requests = self._transport, self._parser.requests
        if transport is None or transport.is_closing() or self._is_closing or not self._can_begin:
            return
        if not requests:
            self._write(self._server.reject(self._parser.invalid), None, keep_alive=False)
            return
        request = self._current = requests.popleft()
        self.deadline = math.inf
        if self._is_reading_paused and not requests:
            self._parse()
            if not requests:
                self._is_reading_paused = False
                transport.resume_reading()
        self._server.note_request(self)
        running = self._server.handle(request)
        try:
            future = running.send(None)
        except StopIteration as done:
            self._respond(request, done.value)
        except asyncio.CancelledError:
            self.abort()
        else:
            self._server.start_task(self._respond_later(request, resume(running, future)))

    async def _respond_later(self, request: HttpRequest, running: Awaitable[HttpResponse]) -> None:
        try:
            response = await running
        except asyncio.CancelledError:
            self.abort()
            raise
        self._respond(request, response)

    def _respond(self, request: HttpRequest, response: HttpResponse) -> None:
        self._current = None
        can_follow = not self._has_client_ended or self._parser.requests or self._parser.invalid
        keep_alive = bool(
            can_follow and request.keep_alive and request.body.is_complete and not self._server.is_stopping
        )
        self._write(response, request, keep_alive=keep_alive)

    def _write(self, response: HttpResponse, request: HttpRequest | None, *, keep_alive: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        head = response.head(request, keep_alive=keep_alive)
        body = b"" if request is not None and request.method == "HEAD" else response.body
        if len(body) > _JOINED_BYTES:
            transport.write(head)
            view = memoryview(body)
            for start in range(0, len(body), _WRITTEN_BYTES):
                transport.write(view[start : start + _WRITTEN_BYTES])
        else:
            transport.write(head + body)
        if keep_alive:
            self._continue()
            return
        self._is_closing = True
        is_read = request is not None and request.body.is_complete and not self._is_reading_paused
        if self._has_client_ended or is_read:
            self._close()
        else:
            is_short = request is None or self._server.is_stopping
            self._linger(transport, LINGERING_SECONDS if is_short else _LONGEST_LINGERING)

    def _continue(self) -> None:
        """Serve the next request, or wait for one."""
        if self._is_writing_paused:
            self._expect_reading()
            return
        if self._parser.requests or self._parser.invalid:
            self._serve_soon()
        elif self._has_client_ended or self._server.is_stopping:
            self._close()
        else:
            limits, is_head = self._server.limits, self._parser.has_head_begun
            self._set_timeout(limits.head_timeout_in_ms if is_head else limits.idle_timeout_in_ms)

    def _close(self) -> None:
        """Close when the client has read what was written."""
        self._is_closing = True
        if self._transport is not None:
            self._expect_reading()
            # Not now: resume_writing() of asyncio's transport must not close it.
            self._loop.call_soon(self._transport.close)

    def _linger(self, transport: asyncio.Transport, seconds: float) -> None:
        """Close when the client has had time to read the response; what it still sends is ignored.

        Args:
            seconds: at most.
        """
        if transport.get_write_buffer_size() > _JOINED_BYTES:
            self._expect_reading()
        else:
            now = self._loop.time()
            self.deadline, self._lingers_until = now + LINGERING_SECONDS, now + seconds
        if self._is_reading_paused:
            self._is_reading_paused = False
            transport.resume_reading()
        with contextlib.suppress(OSError):  # from asyncio's transport, if the client has gone
            transport.write_eof()

    def _expect_reading(self) -> None:
        """Start the timeout for the next portion of what was written."""
        if self._transport is not None:
            self._unread = self._transport.get_write_buffer_size()
            self._set_timeout(self._server.limits.body_timeout_in_ms)

    def _set_timeout(self, milliseconds: int) -> None:
        self.deadline = self._loop.time() + milliseconds / 1e3 if milliseconds > 0 else math.inf
