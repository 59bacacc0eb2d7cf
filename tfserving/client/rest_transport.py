"""What the blocking and the asyncio REST client have in common."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfserving.client.client_base import ClientBase
from tfserving.client.fork_safety import GATE, inherited
from tfserving.client.options import CONNECT_TIMEOUT, DEFAULT_TIMEOUT, Metadata, Retry, Tls, pairs_of
from tfserving.client.rest_endpoints import RestEndpoints
from tfserving.client.rest_json import decode_json
from tfserving.client.status_errors import make_error
from tfserving.errors import FailedPreconditionError, ProtocolError
from tfserving.wire.http_status import code_of

if TYPE_CHECKING:
    from tfserving.client.rest_codec import RestCodec

# Idle connections kept for each server; as many can be busy at the same time.
POOL_SIZE = 64


class RestTransport(ClientBase):
    """Endpoints and options; `TfRestClient` describes the arguments."""

    _session: Any = None

    def __init__(
        self,
        address: str | Sequence[str],
        model_name: str | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        tls: Tls | None = None,
        metadata: Metadata = (),
        row_format: bool = False,
    ) -> None:
        self._endpoints = RestEndpoints(address, tls=tls is not None)
        super().__init__(self._endpoints.text, model_name, timeout, retry)
        self._metadata = metadata
        self._tls = tls
        self._row_format = row_format
        self._is_closed = False
        self._lock = threading.Lock()
        GATE.register(self)

    def _make_codec(self) -> RestCodec:
        from tfserving.client.rest_codec import RestCodec

        return RestCodec(row_format=self._row_format)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = dict(pairs_of(self._metadata))
        if body is not None:
            headers["content-type"] = "application/json"
        return headers

    def _connect_timeout(self, timeout: float | None) -> float:
        return CONNECT_TIMEOUT if timeout is None else min(timeout, CONNECT_TIMEOUT)

    def _check_response(self, status: int, body: bytes, base: str, model: str | None) -> bytes:
        """Return the body of a response with status 200; raise for any other status."""
        self._endpoints.mark_up(base)
        if status != 200:
            text = _server_message(status, body)
            raise make_error(code_of(status), text, address=host_of(base), model=model)
        return body

    def _check_open(self) -> None:
        if self._is_closed:
            raise FailedPreconditionError(
                f"{self.address}: this client is closed; create a new one", address=self.address
            )

    def _cancel_calls(self) -> None:
        """HTTP calls do not disturb a fork."""

    def _after_fork(self) -> None:
        inherited.append(self._session)
        self._session = None
        self._lock = threading.Lock()


def reason_of(error: BaseException) -> str:
    """The innermost error as text, such as "Connection refused"; the outer ones repeat the address."""
    # urllib3 before 2 leaves an unrelated TypeError as the innermost
    while (inner := error.__cause__ or error.__context__) is not None and not isinstance(inner, TypeError):
        error = inner
    return f"{type(error).__name__}: {error}"


def host_of(base: str) -> str:
    """The base URL without its scheme, for messages."""
    return base.partition("://")[2]


def _server_message(status: int, body: bytes) -> str:
    """The server's error message; of a proxy, the beginning of its page."""
    try:
        response = decode_json(body)
    except ProtocolError:
        response = None
    if isinstance(response, dict) and isinstance(response.get("error"), str):
        # it can quote bytes of the request that are not UTF-8
        return str(response["error"]).encode("utf-8", "backslashreplace").decode()
    return f"HTTP {status} {body[:200].decode(errors='replace')}".strip()
