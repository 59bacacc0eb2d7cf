"""What the blocking and the asyncio REST client have in common, which is all but the waiting."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tfserving.client.call_flows import Calls
from tfserving.client.options import CONNECT_TIMEOUT, DEFAULT_TIMEOUT, Metadata, Retry, Tls, pairs_of
from tfserving.client.rest_codec import RestCodec
from tfserving.client.rest_endpoints import Endpoints
from tfserving.client.rest_json import loads
from tfserving.client.status_errors import failure
from tfserving.errors import FailedPreconditionError, ProtocolError
from tfserving.wire.http_status import code_of

# Idle connections that are kept for each server, as many as may be busy at once.
POOL = 64


class RestTransport:
    """Endpoints and options; arguments as `TfRestClient` describes them."""

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
        self._endpoints = Endpoints(address, tls=tls is not None)
        self.address = self._endpoints.text
        self.model_name = model_name
        self._metadata = metadata
        self._tls = tls
        self._closed = False
        self._timeout = timeout
        self._retry = retry
        self._row_format = row_format

    @cached_property
    def _calls(self) -> Calls:
        codec = RestCodec(row_format=self._row_format)
        return Calls(codec, self.address, self.model_name, timeout=self._timeout, retry=self._retry)

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = dict(pairs_of(self._metadata))
        if body is not None:
            headers["content-type"] = "application/json"
        return headers

    def _connect_timeout(self, timeout: float | None) -> float:
        return CONNECT_TIMEOUT if timeout is None else min(timeout, CONNECT_TIMEOUT)

    def _body(self, status: int, body: bytes, base: str, model: str | None) -> bytes:
        """The body of a good reply; raises for another."""
        self._endpoints.answered(base)
        if status != 200:
            text = _reason(status, body)
            raise failure(code_of(status), text, address=host_of(base), model=model)
        return body

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPreconditionError("this client is closed: make a new one", address=self.address)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, {self.model_name!r})"


def reason_of(error: BaseException) -> str:
    """The words of the error at the bottom, such as "Connection refused"; those above repeat the address."""
    # urllib3 before 2 leaves a TypeError of its own below
    while (below := error.__cause__ or error.__context__) is not None and not isinstance(below, TypeError):
        error = below
    return f"{type(error).__name__}: {error}"


def method_of(body: bytes | None) -> str:
    """GET asks, POST brings a body."""
    return "GET" if body is None else "POST"


def host_of(base: str) -> str:
    """The base URL without its scheme, for messages."""
    return base.partition("://")[2]


def _reason(status: int, body: bytes) -> str:
    """The server's own words; of a proxy, the beginning of its page."""
    try:
        reply = loads(body)
    except ProtocolError:
        reply = None
    if isinstance(reply, dict) and isinstance(reply.get("error"), str):
        return str(reply["error"])
    return f"HTTP {status} {body[:200].decode(errors='replace')}".strip()
