"""Splits what a client sends into requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from tfserving.server.http.http_messages import HttpRequest, RequestBody

# tensorflow_model_server has no limit; this bounds the memory that the head of a request takes.
MAX_HEAD_BYTES = 1 << 17
# What a header takes beside its bytes, about.
_HEADER_BYTES = 64

# Bytes that are parsed at a time: requests can be so small that this is more than a thousand.
_SLICE_BYTES = 1 << 15

_TOO_LARGE = f"its head has more than {MAX_HEAD_BYTES} bytes, with {_HEADER_BYTES} more for each header"
_NOTHING = memoryview(b"")


class _InvalidHeadError(Exception):
    """A head that httptools accepts, and the server does not."""


class RequestParser:
    """Parses the requests of one connection.

    Args:
        send_continue: asks the client to send a body.

    Attributes:
        peer: the address of the client.
        requests: those that have arrived, the oldest first; the body of the last one may be incomplete.
        receiving: the request whose body is incomplete, also if it is no longer in `requests`.
        has_head_begun: whether a part of a head has arrived.
        invalid: why nothing more can be parsed; "" if it can.
    """

    def __init__(self, send_continue: Callable[[], None]) -> None:
        self.peer = ""
        self.requests: deque[HttpRequest] = deque()
        self.receiving: HttpRequest | None = None
        self.has_head_begun = False
        self.invalid = ""
        self._send_continue = send_continue
        self._parser: Any = httptools.HttpRequestParser(self)
        self._rest = _NOTHING
        # Bytes since something of a request was complete.
        self._unparsed = 0
        # The head that is arriving.
        self._head_size = 0
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        # A head for the body of a request that offers another protocol: httptools takes it to have none.
        self._body_head = b""

    @property
    def has_rest(self) -> bool:
        """Whether something was received that is not parsed."""
        return bool(self._rest)

    def parse(self, data: bytes, most: int) -> None:
        """Parse what has arrived, until there are more than `most` requests.

        What is not parsed then is kept for the next call. What is not valid ends the body that it belongs to.
        """
        if self.invalid:
            return
        self._unparsed += len(data)
        self._rest = memoryview(bytes(self._rest) + data if self._rest else data)
        try:
            while self._rest and len(self.requests) <= most:
                self._parse_slice()
            if not self._rest:
                self._rest = _NOTHING  # an empty slice would keep the data
            if self._unparsed - len(self._rest) > MAX_HEAD_BYTES:
                self._reject(_TOO_LARGE)
        except httptools.HttpParserCallbackError as error:
            self._reject(str(error.__context__))  # what the callback has raised
        except httptools.HttpParserError as error:
            self._reject(str(error))

    def fail_body(self, reason: str) -> None:
        """Raise an error where the body that is incomplete is waited for."""
        if self.receiving is not None:
            self.receiving.body.fail(ConnectionError(reason))

    def close(self) -> None:
        """Forget what has arrived; nothing more will be parsed."""
        self.invalid = "the connection was closed"
        self.fail_body(self.invalid)
        self.requests.clear()
        del self._parser, self._send_continue  # they refer to this object, and to the one that has it

    # httptools calls these.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.has_head_begun = True
        self._head_size = 0
        self._target = b""

    def on_url(self, part: bytes) -> None:
        """A part of the target has arrived."""
        self._target += part
        self._head_size += len(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is complete; trailers are ignored.

        Raises:
            _InvalidHeadError: it is a second Host.
        """
        if self.receiving is None:
            self._head_size += len(name) + len(value) + _HEADER_BYTES
            name = name.lower()
            if name == b"host" and name in self._headers:
                raise _InvalidHeadError("it has several Host headers")
            self._headers.setdefault(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """The head is complete.

        Raises:
            _InvalidHeadError: it is not one of HTTP/1.1 or 1.0, or is too large.
        """
        self.has_head_begun = False
        self._unparsed = 0
        if self.receiving is not None:
            return  # it was the head from _begin_body
        parser = self._parser
        headers, self._headers = self._headers, {}
        version = parser.get_http_version()
        if version == "1.1":
            if b"host" not in headers:
                raise _InvalidHeadError("it has no Host header")
        elif version != "1.0":
            raise _InvalidHeadError(f"its version is {version}")
        elif b"transfer-encoding" in headers:
            raise _InvalidHeadError("HTTP/1.0 has no Transfer-Encoding")
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise _InvalidHeadError("its Transfer-Encoding is not chunked")
        if self._head_size > MAX_HEAD_BYTES:
            raise _InvalidHeadError(_TOO_LARGE)
        if parser.should_upgrade():
            lengths = (b"content-length", b"transfer-encoding")
            self._body_head = b"".join([b"%b: %b\r\n" % (n, headers[n]) for n in lengths if n in headers])
        expects = version == "1.1" and headers.get(b"expect", b"").lower() == b"100-continue"
        self.receiving = HttpRequest(
            parser.get_method().decode(),
            self._target.decode("latin-1"),
            headers,
            RequestBody(int(headers.get(b"content-length", 0)), self._send_continue if expects else None),
            peer=self.peer,
            keep_alive=parser.should_keep_alive(),
            version=version,
        )
        self.requests.append(self.receiving)

    def on_body(self, piece: bytes) -> None:
        """A part of the body has arrived."""
        self._unparsed = 0
        if self.receiving is not None:
            self.receiving.body.feed(piece)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._unparsed = 0
        if self.receiving is not None and not self._body_head:
            self.receiving.body.end()
            self.receiving = None

    def _parse_slice(self) -> None:
        data = self._rest[:_SLICE_BYTES]
        try:
            self._parser.feed_data(data)
            self._rest = self._rest[len(data) :]
        except httptools.HttpParserUpgrade as offer:
            # An offer of another protocol is ignored, so HTTP/1.1 follows.
            self._rest = self._rest[offer.args[0] :]
        if self._body_head:
            self._begin_body()

    def _begin_body(self) -> None:
        """Parse the body of a request that offers another protocol: httptools expects none."""
        head = b"POST / HTTP/1.1\r\nHost: x\r\n" + self._body_head + b"\r\n"
        self._body_head = b""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(head)

    def _reject(self, reason: str) -> None:
        self.invalid = reason
        self._rest = _NOTHING
        self.fail_body(reason)
