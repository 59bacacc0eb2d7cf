"""Ports that are bound at startup and opened once every model is available."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from tfserving.errors import UnavailableError


@dataclass(frozen=True)
class BoundPort:
    """A port that is reserved by sockets that do not listen yet, one for each address of the host.

    Attributes:
        flag: the flag that names the port, for errors.
    """

    host: str
    port: int
    flag: str
    sockets: tuple[socket.socket, ...]

    @property
    def address(self) -> str:
        """HOST:PORT with the host as it was given, for messages."""
        return _join(self.host, self.port)

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT with the IP address of each socket."""
        return [_join(*bound.getsockname()[:2]) for bound in self.sockets]

    def listen(self) -> None:
        """Start to accept connections.

        Raises:
            UnavailableError: another server that bound the port as well listens on it by now.
        """
        try:
            for bound in self.sockets:
                bound.listen()
        except OSError as error:
            raise _bind_error(self.host, self.port, self.flag, error) from error

    def close(self) -> None:
        """Release the port."""
        for bound in self.sockets:
            bound.close()


@contextmanager
def bind(host: str, port: int, flag: str) -> Iterator[BoundPort | None]:
    """Reserve a port on every address of a host while the block runs; None for port 0.

    tensorflow_model_server shares a gRPC port that is in use with the process that uses it, and runs without
    REST if that port is in use. If two of our servers start at the same time, both can bind a port; the first
    to listen gets it.

    Raises:
        UnavailableError: no address of the host is available, or the port is in use on one of them.
    """
    if not port:
        yield None
        return
    try:
        bound = BoundPort(host, port, flag, _bind_sockets(host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be encoded
        raise _bind_error(host, port, flag, error) from error
    with closing(bound):
        yield bound


def _bind_sockets(host: str, port: int) -> tuple[socket.socket, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    # getaddrinfo can return an address twice
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        try:
            sockets.append(_bind_socket(family, address))
        except OSError as error:
            # "localhost" often has an IPv6 address on machines without IPv6
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for bound in sockets:
                    bound.close()
                raise
            unavailable = error
    if not sockets and unavailable:
        raise unavailable
    return tuple(sockets)


def _bind_socket(family: socket.AddressFamily, address: Any) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind_error(host: str, port: int, flag: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"cannot bind --{flag}={port} on {host}: {error}; stop the process that uses it, or choose another "
        "port"
    )
