"""HTTP proxies: which one a connection goes through, by option or by environment.

Functions import what only connections through a proxy need, so that a gRPC client is created quickly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tfserving.client.addresses import Address, mask_credentials, parse_address, split_host
from tfserving.client.options import ProxyOption, Unset
from tfserving.errors import InvalidInputError

if TYPE_CHECKING:
    import ipaddress

_DEFAULT_PORTS = {"http": 80, "https": 443}
# The variables with the proxy, and those with the hosts to connect to directly, by the scheme of the
# connection; of each, the first that is set. For gRPC they are those of its library.
_PROXY_VARIABLES = {
    "grpc": ("grpc_proxy", "https_proxy", "http_proxy"),
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
_EXCEPTION_VARIABLES = {
    "grpc": ("no_grpc_proxy", "no_proxy"),
    "http": ("no_proxy", "NO_PROXY"),
    "https": ("no_proxy", "NO_PROXY"),
}


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        scheme: "http", or "https" for TLS to the proxy itself.
        credentials: "user:password", percent-encoded; None without any.
    """

    scheme: str
    address: Address
    credentials: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The URL without credentials."""
        return f"{self.scheme}://{self.address}"

    @property
    def url_with_credentials(self) -> str:
        at = "" if self.credentials is None else f"{self.credentials}@"
        return f"{self.scheme}://{at}{self.address}"

    @property
    def authorization(self) -> str | None:
        """The value of the header Proxy-Authorization."""
        return None if self.credentials is None else basic_authorization(self.credentials)

    def __str__(self) -> str:
        return str(self.address)


def find_proxy(option: ProxyOption, scheme: str, address: Address) -> Proxy | None:
    """The proxy for connections to an address; None for direct connections.

    Args:
        option: a URL; None for no proxy; UNSET to follow the environment, where loopback addresses and
            those in `no_proxy` need no proxy.
        scheme: of the connection: "grpc", "http" or "https".
        address: of the server.

    Raises:
        InvalidInputError: the URL of the proxy is not valid or not supported.
    """
    if option is None:
        return None
    if not isinstance(option, Unset):
        return _parse(option, "proxy", scheme)
    variable = _first_set(_PROXY_VARIABLES[scheme])
    if variable is None or not os.environ[variable].strip():
        return None
    exceptions = _first_set(_EXCEPTION_VARIABLES[scheme])
    if _is_loopback(address.host) or (exceptions and _is_excepted(address, os.environ[exceptions])):
        return None
    return _parse(os.environ[variable].strip(), variable, scheme)


def find_shared_proxy(option: ProxyOption, addresses: Sequence[Address]) -> Proxy | None:
    """As `find_proxy`, for a gRPC channel to several addresses; none are a unix socket.

    Raises:
        InvalidInputError: the addresses differ in their proxy; also as in `find_proxy`.
    """
    if not addresses and isinstance(option, str):
        raise InvalidInputError("a unix socket is not reachable through a proxy; omit proxy=")
    found = {find_proxy(option, "grpc", address) for address in addresses}
    if len(found) > 1:
        raise InvalidInputError(
            f"{','.join(map(str, addresses))}: some of these addresses need a proxy and others do not; "
            "list all of them in no_proxy, pass proxy=, or create a client for each"
        )
    return found.pop() if found else None


def _first_set(names: Sequence[str]) -> str | None:
    # in a CGI script HTTP_PROXY comes from a header of the request
    ignored = "HTTP_PROXY" if "REQUEST_METHOD" in os.environ else None
    return next((name for name in names if name in os.environ and name != ignored), None)


def _parse(text: str, source: str, scheme: str) -> Proxy:
    from urllib.parse import urlsplit

    if not isinstance(text, str):
        raise InvalidInputError(
            f"proxy is of type {type(text).__name__}, expected a URL; pass 'http://HOST:PORT'"
        )
    shown = f"{source}={mask_credentials(text)!r}"
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        credentials, at, server = url.netloc.rpartition("@")
        is_valid = bool(server) and url.path in ("", "/") and not url.query and not url.fragment
        basic_authorization(credentials)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidInputError(f"{shown} is not a valid proxy; pass http://HOST:PORT")
    if url.scheme not in (("http",) if scheme == "grpc" else ("http", "https")):
        raise InvalidInputError(
            f"{shown}: {url.scheme} proxies are not supported; pass proxy='http://HOST:PORT', "
            "or proxy=None to connect directly"
        )
    try:
        address = parse_address(server, _DEFAULT_PORTS[url.scheme])
    except InvalidInputError as error:
        raise InvalidInputError(f"{shown} is not a valid proxy: {error}") from error
    return Proxy(url.scheme, address, credentials if at else None)


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    ip = _ip(host)
    if ip is not None:
        return ip.is_loopback or ip.is_unspecified
    return name == "localhost" or name.endswith(".localhost")


def _is_excepted(address: Address, no_proxy: str) -> bool:
    """Whether `no_proxy` lists the host: by name, parent domain, IP address or network, or "*"."""
    host = address.host.lower().rstrip(".")
    ip = _ip(host)
    for entry in filter(None, re.split(r"[,\s]+", no_proxy.lower())):
        if entry == "*" or (ip is not None and "/" in entry and _has_network(entry, ip)):
            return True
        name, port = split_host(entry)
        name = name.removeprefix("*").strip(".")
        if not name or (port and port != str(address.port)):
            continue
        if ip == _ip(name) if ip is not None else f".{host}".endswith(f".{name}"):
            return True
    return False


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    import ipaddress

    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _has_network(network: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    import ipaddress

    try:
        return ip in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def basic_authorization(credentials: str) -> str:
    """The value of an authorization header for the percent-encoded "user:password" of a URL."""
    import base64
    from urllib.parse import unquote_to_bytes

    return "Basic " + base64.b64encode(unquote_to_bytes(credentials)).decode()
