"""What the blocking and the asyncio REST client have in common."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfserving.client.client_base import ClientBase
from tfserving.client.fork_safety import GATE, inherited
from tfserving.client.options import (
    DEFAULT_MAX_RESPONSE_BYTES,
    DEFAULT_TIMEOUT,
    UNSET,
    Metadata,
    ProxyOption,
    Retry,
    Tls,
    check_max_bytes,
    pairs_of,
)
from tfserving.client.rest_body import ACCEPT_ENCODING, BodyReader
from tfserving.client.rest_endpoints import Endpoint, RestEndpoints
from tfserving.client.rest_json import decode_json
from tfserving.client.status_errors import make_error
from tfserving.errors import FailedPreconditionError, ProtocolError
from tfserving.wire.http_status import code_of

if TYPE_CHECKING:
    from tfserving.client.rest_codec import RestCodec

# Idle connections kept for each server; as many can be busy at the same time.
POOL_SIZE = 64
# Bytes of a body that are read at a time.
READ_SIZE = 256 * 1024


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
        proxy: ProxyOption = UNSET,
        row_format: bool = False,
        max_response_bytes: int | None = DEFAULT_MAX_RESPONSE_BYTES,
        split: Mapping[str, float] | None = None,
    ) -> None:
        check_max_bytes(max_response_bytes)
        self._endpoints = RestEndpoints(address, tls=tls is not None, proxy=proxy)
        arguments = {
            "address": address,
            "model_name": model_name,
            "timeout": timeout,
            "retry": retry,
            "tls": tls,
            "metadata": metadata,
            "proxy": proxy,
            "row_format": row_format,
            "max_response_bytes": max_response_bytes,
            "split": dict(split) if isinstance(split, Mapping) else split,
        }
        super().__init__(self._endpoints.text, model_name, timeout, retry, split, arguments)
        self._metadata = metadata if callable(metadata) else pairs_of(metadata)
        self._tls = tls
        self._row_format = row_format
        self._max_response_bytes = max_response_bytes
        self._is_closed = False
        self._lock = threading.Lock()
        GATE.register(self)

    def _make_codec(self) -> RestCodec:
        from tfserving.client.rest_codec import RestCodec

        return RestCodec(row_format=self._row_format)

    def _headers(self, body: bytes | None, endpoint: Endpoint) -> dict[str, str]:
        headers = dict(pairs_of(self._metadata) if callable(self._metadata) else self._metadata)
        if endpoint.authorization is not None:
            headers.setdefault("authorization", endpoint.authorization)
        headers["accept-encoding"] = ACCEPT_ENCODING
        if body is not None:
            headers["content-type"] = "application/json"
        return headers

    def _make_body_reader(self, encoding: str | None, length: str | None) -> BodyReader:
        reader = BodyReader(self._max_response_bytes, encoding)
        reader.check_length(length)
        return reader

    def _check_response(self, status: int, body: bytes, endpoint: Endpoint, model: str | None) -> bytes:
        """Return the body of a response with status 200; raise for any other status."""
        self._endpoints.mark_up(endpoint)
        proxy = endpoint.proxy
        if status == 200 and (proxy is None or body.lstrip().startswith(b"{")):
            return body
        text = _server_message(body)
        is_json = text is not None
        if text is None:
            text = f"HTTP {status} {body[:200].decode(errors='replace')}".strip()
        # a proxy may respond with a page and status 200, for example to ask for a login
        code = code_of(status) if status != 200 else "DATA_LOSS"
        raise make_error(
            code,
            text,
            address=endpoint.text,
            model=model,
            from_server=status != 200,
            proxy=None if is_json else proxy,
        )

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


def _server_message(body: bytes) -> str | None:
    """The server's error message; None for another response, such as the page of a proxy."""
    try:
        response = decode_json(body)
    except ProtocolError:
        response = None
    if isinstance(response, dict) and isinstance(response.get("error"), str):
        # it can quote bytes of the request that are not UTF-8
        return str(response["error"]).encode("utf-8", "backslashreplace").decode()
    return None
