"""A non-blocking connection of the load generator, which carries one request at a time."""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

_READ_SIZE = 65536


@dataclass(frozen=True)
class LoadTarget:
    """A server.

    Attributes:
        family, socket_address: of its socket, with an IP address.
        authority: the host and port that requests name.
        prefix: what the paths of requests begin with.
        tls_name: the name in the server's certificate; None for a connection without TLS.
        ca: PEM file with the certificate authorities to trust; None for the system's.
        certificate, key: PEM files with the client certificate and its private key; None without one.
        headers: pairs to send with each request.
    """

    family: int
    socket_address: tuple[Any, ...]
    authority: str
    prefix: str = ""
    tls_name: str | None = None
    ca: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    certificate: str | None = None
    key: str | None = None


class ConnectionLostError(Exception):
    """The connection cannot be opened or has ended; the message says why."""


class LoadConnection(abc.ABC):
    """A connection; the loop calls `handle` when the selector reports it.

    Args:
        target: the server.
        context: for TLS; None without it.
        selector: watches the socket; the data of its key is the connection.
        on_open: called when the connection can take the first request.

    Attributes:
        is_busy: a request is in flight.
        is_reusable: whether the connection can take another request.
        due, noticed: for the loop: when the request was due, and when the loop noticed that it was.
    """

    def __init__(
        self,
        target: LoadTarget,
        context: ssl.SSLContext | None,
        selector: BaseSelector,
        on_open: Callable[[LoadConnection], None],
    ) -> None:
        self.is_busy = False
        self.is_reusable = True
        self.due = self.noticed = 0.0
        self.target = target
        self._context = context
        self._selector = selector
        self._on_open = on_open
        self._is_connected = self._is_open = False
        self._unsent: bytes | memoryview = b""
        self._events = EVENT_WRITE
        self._socket: socket.socket | ssl.SSLSocket = socket.socket(target.family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # a unix socket has no such option
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self._socket.connect_ex(target.socket_address)
        if code not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise ConnectionLostError(os.strerror(code))
        selector.register(self._socket, EVENT_WRITE, self)

    @abc.abstractmethod
    def start(self, request: Any) -> None:
        """Send a request, in the form that `prepare` returned."""

    @abc.abstractmethod
    def _read(self, data: bytes) -> str | None:
        """Read what arrived; return the outcome when the response is complete: "" or an error."""

    @abc.abstractmethod
    def _next_bytes(self) -> bytes | memoryview:
        """What to send next; empty if there is nothing that can be sent now."""

    def handle(self, events: int) -> str | None:
        """Continue after events; return the outcome of the request if it is complete: "" or an error.

        Raises:
            ConnectionLostError: the connection has ended; `close` it.
        """
        if not self._is_open:
            self._continue_opening()
            return None
        if events & EVENT_WRITE:
            self._flush()
        return self._receive() if events & EVENT_READ else None

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()
        self.is_reusable = False

    def _continue_opening(self) -> None:
        if not self._is_connected:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise ConnectionLostError(os.strerror(code))
            self._is_connected = True
            if self._context is not None:
                self._selector.unregister(self._socket)
                self._socket = self._context.wrap_socket(
                    self._socket, server_hostname=self.target.tls_name, do_handshake_on_connect=False
                )
                self._selector.register(self._socket, self._events, self)
        if isinstance(self._socket, ssl.SSLSocket):
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                self._watch(EVENT_READ)
                return
            except ssl.SSLWantWriteError:
                self._watch(EVENT_READ | EVENT_WRITE)
                return
            except OSError as error:
                raise ConnectionLostError(f"TLS handshake failed: {error}") from error
        self._watch(EVENT_READ)
        self._is_open = True
        self._flush()
        self._on_open(self)

    def _receive(self) -> str | None:
        is_tls = self._context is not None
        while True:
            try:
                data = self._socket.recv(_READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except OSError as error:
                raise ConnectionLostError(error.strerror or str(error)) from error
            if not data:
                raise ConnectionLostError("the server closed the connection")
            outcome = self._read(data)
            # TLS can hold bytes that the selector does not see
            if outcome is not None or not is_tls:
                return outcome

    def _flush(self) -> None:
        """Send as much as the socket takes."""
        while True:
            if not self._unsent:
                self._unsent = self._next_bytes()
                if not self._unsent:
                    self._watch(EVENT_READ)
                    return
            try:
                count = self._socket.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._watch(EVENT_READ | EVENT_WRITE)
                return
            except OSError as error:
                raise ConnectionLostError(error.strerror or str(error)) from error
            if count == len(self._unsent):
                self._unsent = b""
            else:
                self._unsent = memoryview(self._unsent)[count:]

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._selector.modify(self._socket, events, self)
