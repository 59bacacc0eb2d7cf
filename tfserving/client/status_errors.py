"""Errors from the statuses that transports report."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tfserving.client.printable import escape_unprintable
from tfserving.errors import TfServingError, error_class_for

if TYPE_CHECKING:
    from tfserving.client.proxies import Proxy

# The message of tensorflow_model_server's gRPC library when all of its threads are busy.
_NO_THREAD = "threadpool exhausted"
# A gRPC server with default settings closes a connection on which a client sends too many keepalive pings:
# with one every 10 s, after 200 s without a response to the call (grpcio 1.85).
_TOO_MANY_PINGS = "too many pings"

# The REST transports' message for a response that is not HTTP.
NOT_HTTP = "not an http response"

# Codes of errors whose cause can be one row of a request, or the size of the request.
_ROW_CODES = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN"})

# What gRPC, requests and this package write for status 407, Proxy Authentication Required.
_PROXY_AUTHENTICATION = r"(response code|failed:|http) 407\b"

_HINTS_BY_TEXT = {
    _NO_THREAD: "start the server with a higher --grpc_max_threads",
    _TOO_MANY_PINGS: "for calls longer than three minutes, pass keepalive=Keepalive(interval=300)",
    "client: received message larger": "pass a larger max_response_bytes=, or None for no limit",
    "decompressed message larger": "for a larger response, pass max_response_bytes=",
    "connect an http1.x server": "this is a port for HTTP; the default port for gRPC is 8500",
    "socket closed": "if the server uses TLS on this port, pass tls=Tls(), or --tls to a "
    "command; else check that it is running",
    NOT_HTTP: "this is not a port for HTTP; the default port for REST is 8501",
}
_PROXY_HINTS = {
    "UNAVAILABLE": "check that the proxy can reach the server; to connect directly, pass proxy=None "
    "or list the host in no_proxy",
    "UNAUTHENTICATED": "pass proxy='http://USER:PASSWORD@HOST:PORT'",
}
_HINTS = {
    "UNAVAILABLE": "check that the server is running; the default ports are 8500 (gRPC) and 8501 (REST)",
    "DEADLINE_EXCEEDED": "increase timeout=, or add warmup records if this was the first call of the model",
    "UNAUTHENTICATED": 'pass a token: metadata={"authorization": "Bearer ..."}, or --token-file to a command',
}


def make_error(
    code: str,
    text: str,
    *,
    address: str,
    model: str | None,
    from_server: bool = True,
    proxy: Proxy | None = None,
) -> TfServingError:
    """The error for a canonical status name and the text that came with it.

    Args:
        code: e.g. "NOT_FOUND".
        text: the message of the server, or of the transport. The error shows it with control characters
            escaped; its `server_message` is unchanged.
        address: of the server.
        model: of the call.
        from_server: whether the server sent the text.
        proxy: of the connection, if the error may come from it.
    """
    about = f", model {model!r}" if model else ""
    lower = text.lower()
    via, hints = "", _HINTS
    if proxy is not None:
        via, hints = f" through the proxy {proxy}", _HINTS | _PROXY_HINTS
        if re.search(_PROXY_AUTHENTICATION, lower):
            code = "UNAUTHENTICATED"
    hint = next((hint for part, hint in _HINTS_BY_TEXT.items() if part in lower), hints.get(code))
    shown = escape_unprintable(text) or "no message"
    message = f"{address}{via}{about}: {code}: {shown}{f' ({hint})' if hint else ''}"
    return error_class_for(code)(
        message, code=code, address=address, model=model, server_message=text if from_server else None
    )


def is_retryable(error: TfServingError) -> bool:
    """Whether a retry can help: no response, part of a response, a server that cancelled the call because it
    shut down, or all of its threads busy.

    Other kinds of exhaustion (memory, message size) would only recur.
    """
    text = (error.server_message or str(error)).lower()
    if error.code == "DATA_LOSS":
        return error.server_message is None  # the response broke off; the server's own DATA_LOSS would recur
    if error.code == "CANCELLED":
        return True  # by the server or a proxy; a call that this side cancels raises no TfServingError
    if error.code == "UNAVAILABLE":
        return _TOO_MANY_PINGS not in text
    return error.code == "RESOURCE_EXHAUSTED" and _NO_THREAD in text


def is_row_error(error: TfServingError) -> bool:
    """Whether a request with a part of the rows can succeed where the whole request failed."""
    return error.code in _ROW_CODES and not is_retryable(error)
