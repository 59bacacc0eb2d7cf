"""HTTP connections of which every operation ends at the deadline of the call.

The timeouts of requests and urllib3 apply to each operation of a socket, so a server that sends a byte now
and then can hold a call forever. Here a socket waits until the deadline of the call that the thread makes.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

_CALL = threading.local()


@contextmanager
def call_deadline(timeout: float | None) -> Iterator[None]:
    """Limit the operations of this thread's connections to `timeout` seconds in total; None for no limit."""
    _CALL.deadline = None if timeout is None else time.monotonic() + timeout
    try:
        yield
    finally:
        _CALL.deadline = None


def is_deadline_over() -> bool:
    """Whether the deadline of this thread's call has passed."""
    deadline = getattr(_CALL, "deadline", None)
    return deadline is not None and time.monotonic() >= deadline


def _time_left(limit: float | None = None) -> float | None:
    """Seconds until the deadline, at most `limit`; None for no limit.

    Raises:
        TimeoutError: the deadline has passed.
    """
    deadline = getattr(_CALL, "deadline", None)
    if deadline is None:
        return limit
    left: float = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left if limit is None else min(left, limit)


class _Reads:
    """Ends reads at the deadline of this thread's call.

    A mixin: Python does not let a TLS connection have a class derived from `_Socket` (TypeError: object
    layout differs). So it must have no slots either.
    """

    __slots__ = ()

    def recv(self: Any, *args: Any) -> bytes:
        self.settimeout(_time_left())
        return super().recv(*args)  # type: ignore[misc,no-any-return]

    def recv_into(self: Any, *args: Any) -> int:
        self.settimeout(_time_left())
        return super().recv_into(*args)  # type: ignore[misc,no-any-return]


class _Socket(_Reads, socket.socket):
    __slots__ = ()

    def sendall(self, *args: Any) -> None:
        self.settimeout(_time_left())
        super().sendall(*args)


class _TlsSocket(_Reads, ssl.SSLSocket):
    def send(self, *args: Any) -> int:  # sendall calls it
        self.settimeout(_time_left())
        return super().send(*args)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)

    def _tunnel(self) -> None:
        _apply_deadline(self.sock)  # the connection to a proxy can use TLS itself
        super()._tunnel()

    def connect(self) -> None:
        super().connect()
        _apply_deadline(self.sock)


class HttpPool(HTTPConnectionPool):
    """A pool of connections with deadlines."""

    ConnectionCls = _Connection


class HttpsPool(HTTPSConnectionPool):
    """A pool of TLS connections with deadlines."""

    ConnectionCls = _TlsConnection


POOL_CLASSES = {"http": HttpPool, "https": HttpsPool}


def _apply_deadline(sock: Any) -> None:
    # urllib3 creates the SSLContext, which determines the class, separately for proxies and for servers
    if isinstance(sock, ssl.SSLSocket):
        sock.__class__ = _TlsSocket


def _connect(connection: Any) -> socket.socket:
    """Connect to the first address of the host that accepts, in the connection's timeout for each."""
    reason: OSError = OSError("the name has no addresses")
    try:
        found = socket.getaddrinfo(connection._dns_host, connection.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            sock = _Socket(family, kind, protocol)
            try:
                sock.settimeout(_time_left(connection.timeout))
                for option in connection.socket_options or ():
                    sock.setsockopt(*option)
                sock.connect(address)
                sock.settimeout(_time_left(connection.timeout))  # for the handshake of TLS
            except OSError as error:
                sock.close()
                reason = error
            else:
                return sock
        raise reason
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, f"{error}") from error
    except OSError as error:
        raise NewConnectionError(connection, f"{error}") from error
