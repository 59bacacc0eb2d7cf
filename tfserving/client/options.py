"""How a client behaves on the way to the server: one small dataclass per concern, every default in here."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

from tfserving.errors import InvalidInputError

DEFAULT_TIMEOUT = 60.0
DEFAULT_RPC_PORT = 8500
DEFAULT_REST_PORT = 8501
# Seconds for making a connection, of a call's deadline: a frozen host must leave time to try another.
CONNECT_TIMEOUT = 5.0

_KEY = re.compile(r"[a-z0-9_.-]+")
_VALUE = re.compile(r"[ -~]*")


class Unset(enum.Enum):
    """The type of UNSET."""

    UNSET = "the client's default"


# `timeout=None` means no deadline, and not "take the default": this stands for the latter.
UNSET = Unset.UNSET
Timeout = Union[float, None, Unset]  # noqa: UP007 - an alias is evaluated, and the message reads better

PathLike = Union[str, "os.PathLike[str]"]
Pairs = Sequence[tuple[str, str]]
# A callable is asked before every call, so that a token can be renewed.
Metadata = Union[Mapping[str, str], Pairs, Callable[[], Union[Mapping[str, str], Pairs]]]  # noqa: UP007


@dataclass(frozen=True)
class Retry:
    """When to ask again: after UNAVAILABLE, and after "Server Threadpool Exhausted".

    Both say that the call was not answered, not that it was wrong. TensorFlow Serving's calls have no side
    effects, so asking twice does no harm. The deadline covers all attempts together.

    Attributes:
        attempts: how often to ask at most; 1 for never again.
        first_pause: seconds before the second attempt, of which a random half is taken off, so that clients
            which failed together do not return together.
        factor: how much longer each further pause is.
        longest_pause: seconds, the limit of that growth.
    """

    attempts: int = 6
    first_pause: float = 0.02
    factor: float = 3.0
    longest_pause: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidInputError(f"Retry(attempts={self.attempts}): at least 1, the call itself")

    def pause(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures; `chance` in [0, 1) decides how much is taken off."""
        longest = self.first_pause * self.factor ** (failures - 1)
        return min(longest, self.longest_pause) * (1 - chance / 2)


@dataclass(frozen=True)
class Keepalive:
    """How a peer that froze, or a connection that a firewall forgot, is noticed while calls wait on it.

    Attributes:
        interval: seconds of silence after which the server is asked whether it is there.
        timeout: seconds it has for the answer before its calls fail with UNAVAILABLE (and are retried).

    A gRPC server with default settings (tensorflow_model_server has them) takes so much asking for abuse and
    ends a call that has gone on for 200 s (measured; 240 s with interval=30). For longer calls take an
    interval of 300 s or more, or start the server with
    `--grpc_channel_arguments=grpc.http2.max_ping_strikes=0`.
    """

    interval: float = 10.0
    timeout: float = 5.0


@dataclass(frozen=True)
class Tls:
    """An encrypted connection, and with `certificate` and `key` one where the client proves who it is too.

    Attributes:
        ca: PEM file with the authorities to trust; None for the system's.
        certificate: PEM file with this client's certificate chain.
        key: PEM file with its private key.
        server_name: the name that the server's certificate must carry, where it is not the address's.
    """

    ca: PathLike | None = None
    certificate: PathLike | None = None
    key: PathLike | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            raise InvalidInputError("Tls: certificate and key belong together, give both or neither")
        for path in (self.ca, self.certificate, self.key):
            if path is not None and not os.path.isfile(path):
                raise InvalidInputError(f"Tls: there is no file {path}")


def pairs_of(metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Call metadata as gRPC wants it: (key, value) pairs with keys in lower case.

    Raises:
        InvalidInputError: a key or value that cannot stand in a header. Values are not shown, being secrets.
    """
    given = metadata() if callable(metadata) else metadata
    items = given.items() if isinstance(given, Mapping) else given
    pairs = tuple((key.lower(), value) for key, value in items)
    for key, value in pairs:
        if not _KEY.fullmatch(key):
            raise InvalidInputError(f"metadata {key!r}: a key has only letters, digits, '_', '.' and '-'")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidInputError(f"metadata {key!r}: the value must be text of printable ASCII characters")
    return pairs
