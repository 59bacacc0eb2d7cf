"""Canonical status names and the HTTP statuses of TensorFlow Serving's REST API."""

from __future__ import annotations

# ToHTTPStatusCode in tensorflow_serving/model_servers/http_server.cc; FAILED_PRECONDITION is 400 there.
_STATUS_BY_CODE: dict[str, int] = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}

# In reverse: where several names share a status, the most likely one; also the statuses of proxies.
_CODE_BY_STATUS: dict[int, str] = {
    **{status: code for code, status in reversed(_STATUS_BY_CODE.items())},
    409: "ABORTED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
}


def status_of(code: str) -> int:
    """The HTTP status for a canonical status name; 500 for an unknown name."""
    return _STATUS_BY_CODE.get(code, 500)


def code_of(status: int) -> str:
    """The most likely canonical status name for an HTTP status."""
    found = _CODE_BY_STATUS.get(status)
    if found is not None:
        return found
    if 200 <= status < 300:
        return "OK"
    return "INVALID_ARGUMENT" if 400 <= status < 500 else "UNKNOWN"
