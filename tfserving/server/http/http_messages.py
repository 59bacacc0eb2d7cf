"""HTTP requests, their bodies, and responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.client import responses as reasons

# The largest body that usually arrives with the head of its request, or right after it.
SMALL_BYTES = 1 << 15


class RequestBody:
    """The body of a request, while it arrives. All methods belong to the event loop.

    Attributes:
        length: bytes that the client has announced; 0 if it has not.
        is_complete: whether all of it has arrived.
    """

    __slots__ = ("_before_wait", "_error", "_pieces", "_waiter", "is_complete", "length")

    def __init__(self, length: int = 0, before_wait: Callable[[], None] | None = None) -> None:
        self.length = length
        self.is_complete = False
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        # Asks the client to send the body; called at most once.
        self._before_wait = before_wait

    @property
    def follows_soon(self) -> bool:
        """Whether it is incomplete, but small, and does not have to be asked for."""
        is_waited_for = not (self.is_complete or self._error or self._before_wait)
        return is_waited_for and 0 < self.length <= SMALL_BYTES

    def take(self) -> bytes:
        """What has arrived since the last time: chunks, which may be tiny, are joined."""
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def wait(self) -> None:
        """Wait until more has arrived, or the end.

        Raises:
            Exception: the one that `fail` was called with.
        """
        if not (self._pieces or self.is_complete or self._error):
            if self._before_wait is not None:
                self._before_wait()
                self._before_wait = None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error

    def feed(self, piece: bytes) -> None:
        """Add what has arrived."""
        self._pieces.append(piece)
        self._wake()

    def end(self) -> None:
        """Note that the body is complete."""
        self.is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Raise an error where the rest is waited for; do nothing if the body is complete or has failed."""
        if not (self.is_complete or self._error):
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None


@dataclass(slots=True, eq=False)
class HttpRequest:
    """A request whose head is complete.

    Attributes:
        method: such as "POST".
        target: of the request line as sent, usually the path, percent-encoded.
        headers: by name in lower case; of equal names the first.
        body: may be incomplete.
        peer: the address of the client.
        keep_alive: whether the client wants to use the connection again.
        version: of HTTP, "1.1" or "1.0".
    """

    method: str
    target: str
    headers: dict[bytes, bytes]
    body: RequestBody
    peer: str = ""
    keep_alive: bool = True
    version: str = "1.1"

    def header(self, name: bytes) -> str:
        """The value of a header, "" if there is none; `name` is in lower case."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value else ""


@dataclass(slots=True, eq=False)
class HttpResponse:
    """A response.

    Attributes:
        headers: those beside the usual ones, which are set by `head`.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def head(self, request: HttpRequest | None, *, keep_alive: bool) -> bytes:
        """The status line and the headers.

        Args:
            request: None if it was not valid.
            keep_alive: whether the connection stays open.
        """
        version = "1.1" if request is None else request.version
        further = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if not keep_alive:
            further += "Connection: close\r\n"
        elif version == "1.0":  # whose connections close if not told so
            further += "Connection: keep-alive\r\n"
        usual = _usual_lines(version, self.status, self.content_type, int(time.time()))
        return f"{usual}Content-Length: {len(self.body)}\r\n{further}\r\n".encode()


@lru_cache(64)
def _usual_lines(version: str, status: int, content_type: str, second: int) -> str:
    """The lines that are the same for all responses of a second."""
    return (
        f"HTTP/{version} {status} {reasons.get(status, '')}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Date: {formatdate(second, usegmt=True)}\r\n"
        "Server: tfserving\r\n"
    )
