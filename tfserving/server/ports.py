"""Ports that are bound at startup and opened once every model is available."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tfserving.errors import UnavailableError


@dataclass(frozen=True)
class BoundPort:
    """A port that is reserved by a socket that does not listen yet.

    Attributes:
        flag: the flag that names the port, for errors.
    """

    host: str
    port: int
    flag: str
    socket: socket.socket

    @property
    def address(self) -> str:
        """HOST:PORT, with an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def listen(self) -> None:
        """Start to accept connections.

        Raises:
            UnavailableError: another server that bound the port as well listens on it by now.
        """
        try:
            self.socket.listen()
        except OSError as error:
            raise _bind_error(self.host, self.port, self.flag, error) from error


@contextmanager
def bind(host: str, port: int, flag: str) -> Iterator[BoundPort | None]:
    """Reserve a port while the block runs; None for port 0.

    tensorflow_model_server shares a gRPC port that is in use with the process that uses it, and runs without
    REST if that port is in use. If two of our servers start at the same time, both can bind a port; the first
    to listen gets it.

    Raises:
        UnavailableError: the address is not available, or the port is in use.
    """
    if not port:
        yield None
        return
    try:
        bound = _bound_socket(host, port)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be encoded
        raise _bind_error(host, port, flag, error) from error
    with bound:
        yield BoundPort(host, port, flag, bound)


def _bound_socket(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _bind_error(host: str, port: int, flag: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"cannot bind --{flag}={port} on {host}: {error}; stop the process that uses it, or choose another "
        "port"
    )
