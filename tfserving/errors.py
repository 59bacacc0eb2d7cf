"""One exception hierarchy for the client, the server and the tools, independent of the transport.

Every error has a canonical status `code`, by the names of gRPC ("NOT_FOUND", "INVALID_ARGUMENT", ...). The
server raises these errors, and its two APIs translate the code. The client catches the errors of its
transport and raises these instead, so that callers handle both APIs alike.
"""

from __future__ import annotations

from typing import ClassVar


class TfServingError(Exception):
    """Base class of all errors of this toolkit.

    Attributes:
        code: canonical status name, e.g. "NOT_FOUND".
        address: "host:port" of the server that was called, or None if there was none.
        model: name of the model of the call, or None.
        server_message: the message that the server sent, unchanged, or None if the error arose elsewhere.
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
    """An argument, name, dtype or shape that is not valid, whatever the state of the server."""

    default_code = "INVALID_ARGUMENT"


class FailedPreconditionError(TfServingError):
    """A valid call that the state of the server or of the files does not allow."""

    default_code = "FAILED_PRECONDITION"


class DeadlineError(TfServingError):
    """The deadline passed before the response arrived."""

    default_code = "DEADLINE_EXCEEDED"


class UnavailableError(TfServingError):
    """No server responds at the address, or the connection broke during the call."""

    default_code = "UNAVAILABLE"


class ExhaustedError(TfServingError):
    """The server has no capacity for the call, or the call exceeds a limit of the protocol."""

    default_code = "RESOURCE_EXHAUSTED"


class PermissionDeniedError(TfServingError):
    """The server rejects the caller's credentials (PERMISSION_DENIED or UNAUTHENTICATED)."""

    default_code = "PERMISSION_DENIED"


class UnsupportedError(TfServingError):
    """The server does not implement the call, or the API cannot represent the value."""

    default_code = "UNIMPLEMENTED"


class ProtocolError(TfServingError):
    """Bytes that are not the expected message."""

    default_code = "DATA_LOSS"


class ConfigError(InvalidInputError):
    """A models.config, or another configuration file, that is not valid."""


class RepositoryError(FailedPreconditionError):
    """The model repository on disk lacks files, or has files that conflict with the operation."""


class ExportError(TfServingError):
    """A model that cannot be exported as requested."""

    default_code = "FAILED_PRECONDITION"


def release_frames(error: BaseException) -> None:
    """Let go of the stack frames of an error that has been handled, and of its causes.

    An error that a variable in one of its frames refers to, such as a future, keeps these frames in
    memory until the garbage collector runs, with all that they refer to: the bodies of failed requests.
    """
    errors: list[BaseException | None] = [error]
    while errors:
        current = errors.pop()
        if current is not None and current.__traceback__ is not None:
            current.__traceback__ = None
            errors += (current.__cause__, current.__context__)


_BY_CODE: dict[str, type[TfServingError]] = {
    "NOT_FOUND": NotFoundError,
    "INVALID_ARGUMENT": InvalidInputError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "UNAVAILABLE": UnavailableError,
    "RESOURCE_EXHAUSTED": ExhaustedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "UNAUTHENTICATED": PermissionDeniedError,
    "UNIMPLEMENTED": UnsupportedError,
    "DATA_LOSS": ProtocolError,
}


def error_class_for(code: str) -> type[TfServingError]:
    """The class for a canonical status name; `TfServingError` if there is none."""
    return _BY_CODE.get(code, TfServingError)
