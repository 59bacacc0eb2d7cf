"""One tree of errors for the client, the server and the tools, free of transport.

Every error has a canonical status `code`, the names that gRPC uses ("NOT_FOUND", "INVALID_ARGUMENT", ...).
The server raises these and its two APIs translate the code; the client catches what its transport raises and
raises the same classes again, so that code written against one API holds for the other.
"""

from __future__ import annotations

from typing import ClassVar


class TfServingError(Exception):
    """Anything that this toolkit refuses or fails to do.

    Attributes:
        code: canonical status name, e.g. "NOT_FOUND".
        address: "host:port" of the server that was called, or None where no server was involved.
        model: name of the model that the call was for, or None.
        server_message: the text that the server sent, unchanged, or None when the error arose on this side.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        address: str | None = None,
        model: str | None = None,
        server_message: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.address = address
        self.model = model
        self.server_message = server_message


class NotFoundError(TfServingError):
    """No such model, version, label or signature."""

    default_code = "NOT_FOUND"


class InvalidInputError(TfServingError, ValueError):
    """An argument, name, dtype or shape that cannot be right, whatever the server's state."""

    default_code = "INVALID_ARGUMENT"


class FailedPreconditionError(TfServingError):
    """Right in itself, but not in the state that the server or the files are in."""

    default_code = "FAILED_PRECONDITION"


class DeadlineError(TfServingError, TimeoutError):
    """The deadline passed before the answer came."""

    default_code = "DEADLINE_EXCEEDED"


class UnavailableError(TfServingError, ConnectionError):
    """No server answers at the address, or it went away during the call."""

    default_code = "UNAVAILABLE"


class ExhaustedError(TfServingError):
    """The server, or a limit of the protocol, has no room for this call."""

    default_code = "RESOURCE_EXHAUSTED"


class PermissionDeniedError(TfServingError, PermissionError):
    """The server refuses this caller (PERMISSION_DENIED or UNAUTHENTICATED)."""

    default_code = "PERMISSION_DENIED"


class UnsupportedError(TfServingError):
    """The other side does not know the call, or the value cannot be expressed in it."""

    default_code = "UNIMPLEMENTED"


class ProtocolError(TfServingError):
    """Bytes that are not the message they should be."""

    default_code = "DATA_LOSS"


class ConfigError(InvalidInputError):
    """A models.config (or another configuration file) that cannot be used."""


class RepositoryError(FailedPreconditionError):
    """The model repository on disk lacks something, or holds something that is in the way."""


class ExportError(TfServingError):
    """A model that cannot be exported as asked."""

    default_code = "FAILED_PRECONDITION"


# PERMISSION_DENIED and UNAUTHENTICATED share one class; codes that are not listed are a plain TfServingError.
_KINDS: tuple[type[TfServingError], ...] = (
    NotFoundError,
    InvalidInputError,
    FailedPreconditionError,
    DeadlineError,
    UnavailableError,
    ExhaustedError,
    PermissionDeniedError,
    UnsupportedError,
    ProtocolError,
)
_BY_CODE = {kind.default_code: kind for kind in _KINDS} | {"UNAUTHENTICATED": PermissionDeniedError}


def error_for(code: str) -> type[TfServingError]:
    """The class that stands for a canonical status name, `TfServingError` for one without its own."""
    return _BY_CODE.get(code, TfServingError)
