"""Distributes calls to REST servers in turn, and skips servers that failed recently."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from tfserving.client.addresses import is_grpc_name, mask_credentials, parse_address, split_addresses
from tfserving.client.options import DEFAULT_REST_PORT, UNSET, ProxyOption
from tfserving.client.proxies import Proxy, basic_authorization, find_proxy
from tfserving.errors import InvalidInputError

# Seconds for which a server that failed gets no calls while there are others.
_SKIP_SECONDS = 5.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """A server.

    Attributes:
        url: base URL without credentials, such as "http://127.0.0.1:8501".
        authorization: the value of the header for the credentials in the address; None without any.
        proxy: what connections go through; None for direct connections.
    """

    url: str
    proxy: Proxy | None = None
    authorization: str | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The URL without its scheme, for messages."""
        return self.url.partition("://")[2]


class RestEndpoints:
    """The servers behind an address.

    Args:
        address: "host:port" or a URL (which may have a path, behind a proxy, and a user and password);
            several as a comma list or a sequence.
        tls: whether connections must be encrypted: "host:port" means https, and http:// is rejected.
        proxy: see `find_proxy`.
        clock: monotonic time in seconds.

    Raises:
        InvalidInputError: an address is not valid.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        tls: bool,
        proxy: ProxyOption = UNSET,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = [_endpoint(part, tls, proxy) for part in split_addresses(address)]
        self._clock = clock
        self._turns = itertools.count()
        self._failed_at: dict[str, float] = {}
        self.text = ",".join(one.text for one in self._endpoints)

    def pick(self) -> Endpoint:
        """The server for the next call."""
        count = len(self._endpoints)
        turn = next(self._turns)
        if count == 1:
            return self._endpoints[0]
        for step in range(count):
            endpoint = self._endpoints[(turn + step) % count]
            since = self._failed_at.get(endpoint.url)
            if since is None or self._clock() - since > _SKIP_SECONDS:
                return endpoint
        return self._endpoints[turn % count]

    def mark_down(self, endpoint: Endpoint) -> None:
        """The server did not respond."""
        self._failed_at[endpoint.url] = self._clock()

    def mark_up(self, endpoint: Endpoint) -> None:
        """The server responded."""
        if self._failed_at:
            self._failed_at.pop(endpoint.url, None)


def _endpoint(text: str, tls: bool, proxy: ProxyOption) -> Endpoint:
    if "://" not in text or is_grpc_name(text):
        scheme, address = "https" if tls else "http", parse_address(text, DEFAULT_REST_PORT)
        return Endpoint(f"{scheme}://{address}", find_proxy(proxy, scheme, address))
    try:
        url = urlsplit(text)
        credentials, at, server = url.netloc.rpartition("@")
        is_valid = url.scheme in _DEFAULT_PORTS and bool(server) and not url.query and not url.fragment
        path = quote(url.path.rstrip("/"), safe="/%:;,@~!$&'()*+=")
        authorization = basic_authorization(credentials) if at else None
    except ValueError:
        is_valid = False
    if not is_valid or "@" in path:
        shown = mask_credentials(text)
        raise InvalidInputError(f"{shown!r} is not a valid address; pass host:port or http://host:port")
    if tls and url.scheme == "http":
        shown = mask_credentials(text)
        raise InvalidInputError(
            f"{shown!r} is not encrypted, but tls= requires encryption; pass https:// or omit tls="
        )
    address = parse_address(server, _DEFAULT_PORTS[url.scheme])
    netloc = str(address) if address.port != _DEFAULT_PORTS[url.scheme] else str(address).rpartition(":")[0]
    found = find_proxy(proxy, url.scheme, address)
    return Endpoint(f"{url.scheme}://{netloc}{path}", found, authorization)
