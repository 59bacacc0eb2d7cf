"""Options of the clients: one dataclass per concern, and their defaults."""

from __future__ import annotations

import enum
import math
import numbers
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from tfserving.errors import InvalidInputError

# Seconds for a call including its retries, and for wait_until_available.
DEFAULT_TIMEOUT = 60.0
DEFAULT_RPC_PORT = 8500
DEFAULT_REST_PORT = 8501
# Seconds to open a connection: less than the default timeout, to leave time for another server.
CONNECT_TIMEOUT = 5.0
# The longest timeout in seconds: the operating system's limit for a socket is 24 days.
MAX_TIMEOUT = 1_000_000.0
DEFAULT_MAX_RESPONSE_BYTES = 256 * 1024 * 1024


class Unset(enum.Enum):
    """The type of UNSET."""

    UNSET = "the client's default"


# `timeout=None` means no deadline, so a separate value stands for the client's default.
UNSET = Unset.UNSET
Timeout = Union[float, None, Unset]  # noqa: UP007 - an alias is evaluated, and the message reads better

# None for a direct connection, UNSET to follow the environment.
ProxyOption = Union[str, None, Unset]  # noqa: UP007

PathLike = Union[str, "os.PathLike[str]"]
# None for a random choice.
SplitKey = Union[str, bytes, int, None]  # noqa: UP007
Pairs = Sequence[tuple[str, str]]
# A callable is called before every call, so that it can renew a token.
Metadata = Union[Mapping[str, str], Pairs, Callable[[], Union[Mapping[str, str], Pairs]]]  # noqa: UP007


@dataclass(frozen=True)
class Retry:
    """Retries of calls for which a second attempt can help.

    These are calls that failed with UNAVAILABLE, with CANCELLED by a server that shut down, with DATA_LOSS
    because the response broke off, or with "Server Threadpool Exhausted". The server may have processed a
    call whose connection broke. Calls have no side effects, so a second attempt does no harm. The deadline
    covers all attempts together.

    Attributes:
        attempts: the maximum number of attempts; 1 disables retries.
        first_pause: seconds before the second attempt. Jitter shortens each pause by up to a half, so that
            clients that failed together do not retry together.
        factor: by how much each further pause is longer.
        longest_pause: the maximum pause in seconds.
    """

    attempts: int = 6
    first_pause: float = 0.02
    factor: float = 3.0
    longest_pause: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise InvalidInputError(
                f"Retry(attempts={self.attempts!r}) is not valid; pass 1 or more, 1 for no retries"
            )
        check_seconds(self.first_pause, "first_pause")
        check_seconds(self.longest_pause, "longest_pause")
        if not is_number(self.factor) or not 1 <= self.factor <= MAX_TIMEOUT:
            raise InvalidInputError(f"Retry(factor={self.factor!r}) is not valid; pass 1 or more")

    def pause(self, failures: int, jitter: float) -> float:
        """Seconds to wait after this many failures; `jitter` in [0, 1) shortens the pause by up to a half."""
        try:
            pause = self.first_pause * self.factor ** (failures - 1)
        except OverflowError:
            pause = math.inf
        return min(pause, self.longest_pause) * (1 - jitter / 2)


@dataclass(frozen=True)
class Keepalive:
    """Pings that detect a frozen server, or a connection dropped by a firewall, during calls.

    Attributes:
        interval: seconds without traffic before a ping.
        timeout: seconds for the response to the ping, before the calls fail with UNAVAILABLE (and are
            retried).

    A gRPC server with default settings, such as tensorflow_model_server, rejects frequent pings: it closes
    the connection of a call that has lasted 200 s (measured; 240 s with interval=30). For longer calls pass
    an interval of 300 s or more, or start the server with
    `--grpc_channel_arguments=grpc.http2.max_ping_strikes=0`.
    """

    interval: float = 10.0
    timeout: float = 5.0

    def __post_init__(self) -> None:
        check_seconds(self.interval, "interval")
        check_seconds(self.timeout, "timeout")


@dataclass(frozen=True)
class Tls:
    """An encrypted connection; with `certificate` and `key`, mutual TLS.

    Attributes:
        ca: PEM file with the certificate authorities to trust; None for the system's.
        certificate: PEM file with this client's certificate chain.
        key: PEM file with its private key.
        server_name: the name in the server's certificate, if it is not the host of the address.
    """

    ca: PathLike | None = None
    certificate: PathLike | None = None
    key: PathLike | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            raise InvalidInputError("Tls has only one of certificate and key; pass both or neither")
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if path is not None:
                _check_readable(path, name)


def _check_readable(path: PathLike, name: str) -> None:
    """Raise InvalidInputError unless the path is a file that can be opened; a pipe would block."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InvalidInputError(f"TLS {name}: {path} is not a file")
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidInputError(f"TLS {name}: cannot read {path}: {error.strerror}") from error


def is_number(value: object) -> bool:
    """Whether a value is a real number; a bool is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_seconds(value: object, name: str) -> None:
    """Raise InvalidInputError for anything but a number of seconds from 0 to MAX_TIMEOUT."""
    if not is_number(value) or not 0 <= value <= MAX_TIMEOUT:  # type: ignore[operator]
        raise InvalidInputError(f"{name}={value!r} is not a number of seconds from 0 to {MAX_TIMEOUT:.0f}")


def check_timeout(value: object) -> None:
    """As `check_seconds`, for a timeout, which can also be None."""
    if value is None:
        return
    try:
        check_seconds(value, "timeout")
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}; pass None for no limit") from None


def check_max_bytes(value: object) -> None:
    """Raise InvalidInputError unless the value is a valid `max_response_bytes`."""
    if value is not None and not (is_number(value) and isinstance(value, int) and 0 < value < 2**31):
        raise InvalidInputError(
            f"max_response_bytes={value!r} is not a number of bytes from 1 to {2**31 - 1}; "
            "pass None for no limit"
        )


def names_of(value: Any, name: str) -> tuple[str, ...]:
    """The names in the argument `name` of a call: a str, or several as a sequence.

    Raises:
        InvalidInputError: the value is neither.
    """
    try:
        names: tuple[Any, ...] = (value,) if isinstance(value, str) else tuple(value)
    except TypeError:
        names = (value,)
    if not all(isinstance(one, str) for one in names):
        raise InvalidInputError(f"{name}={value!r:.60} is not valid; pass a str or a sequence of str")
    return names


def pairs_of(metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Call metadata as (key, value) pairs with keys in lower case, as gRPC requires.

    Raises:
        InvalidInputError: a key or value that a header cannot hold. The message has no values: they may be
            secrets.
    """
    given = metadata() if callable(metadata) else metadata
    items = given.items() if isinstance(given, Mapping) else given
    try:
        pairs = tuple((key.lower(), value) for key, value in items)
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidInputError("metadata is not valid; pass a mapping, or pairs of key and value") from error
    for key, value in pairs:
        if not isinstance(key, str) or not re.fullmatch(r"[a-z0-9_.-]+", key):
            raise InvalidInputError(
                f"metadata key {key!r} is not valid; use letters, digits, '_', '.' and '-'"
            )
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise InvalidInputError(
                f"the value of metadata key {key!r} is not valid; pass printable ASCII text"
            )
    return pairs


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can represent a text: lone surrogates, for example in file names, have no encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
