"""Server addresses: parses them, and resolves host names to a gRPC target."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfserving.client.options import is_encodable
from tfserving.errors import InvalidInputError, UnavailableError

# Seconds after which names are resolved again.
_REFRESH_SECONDS = 10.0

# Of gRPC's name syntax.
_SCHEMES = frozenset(
    ("ipv4", "ipv6", "dns", "unix", "unix-abstract", "vsock", "xds", "passthrough", "google-c2p")
)
_SOCKETS = ("unix:", "unix-abstract:")


@dataclass(frozen=True)
class Address:
    """A host (name, IPv4 or IPv6 address) and a port."""

    host: str
    port: int

    @property
    def ip_version(self) -> int | None:
        """4 or 6 where the host is an IP address, None where it is a name."""
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            try:
                socket.inet_pton(family, self.host.partition("%")[0])
            except OSError:
                continue
            return version
        return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split_addresses(address: str | Sequence[str]) -> list[str]:
    """The addresses in a comma-separated list or a sequence.

    Raises:
        InvalidInputError: there are none, or one of them is not a str.
    """
    given: Any = address.split(",") if isinstance(address, str) else address
    given = [given] if given is None or isinstance(given, (int, bytes)) else list(given)
    for part in given:
        if not isinstance(part, str):
            what = "None" if part is None else f"of type {type(part).__name__}"
            raise InvalidInputError(f"an address is {what}, expected a str; pass host:port")
        # a comma in a password splits the address, and the second part would show the rest of the password
        if "@" in part and "://" not in part:
            raise InvalidInputError(
                f"{mask_credentials(','.join(map(str, given)))!r} has credentials in an address without a "
                "scheme; pass https://USER:PASSWORD@HOST:PORT, with other characters than letters and "
                "digits percent-encoded"
            )
    parts = [part.strip() for part in given if part.strip()]
    if not parts:
        raise InvalidInputError(f"{address!r} has no address; pass host:port")
    return parts


def mask_credentials(text: str) -> str:
    """An address or URL without its user name and password, for messages."""
    before, at, host = text.rpartition("@")
    scheme, separator, _ = before.partition("://")
    return f"{scheme}://***@{host}" if separator else f"***@{host}" if at else text


def parse_address(text: str, default_port: int) -> Address:
    """Parse "host:port", "host", "[::1]:port" or "::1", also after "ipv4:", "ipv6:" or "dns:".

    Raises:
        InvalidInputError: the text is none of these, or the port is not valid.
    """
    shown = repr(mask_credentials(text))
    scheme, name = _split_scheme(text)
    if scheme.startswith("unix"):
        raise InvalidInputError(
            f"{shown} is a unix socket, which only the gRPC clients support; pass host:port"
        )
    if scheme not in ("", "ipv4", "ipv6", "dns"):
        raise InvalidInputError(f"{shown} has the scheme {scheme!r}, which is not supported; pass host:port")
    if scheme == "dns" and name.startswith("//") and not name.startswith("///"):
        raise InvalidInputError(f"{shown} names a DNS server, which is not supported; pass dns:///host:port")
    if scheme == "dns":
        name = name.lstrip("/")
    if "://" in name:
        raise InvalidInputError(
            f"{shown} is a URL, but gRPC takes host:port without a scheme; for REST use TfRestClient"
        )
    host, port = split_host(name)
    if not host or not host.isprintable() or any(character in " /,@?#[" for character in host):
        raise InvalidInputError(f"{shown} is not a valid address; pass host:port")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidInputError(f"{shown}: {port!r} is not a valid port (1-65535)")
    address = Address(_ascii_host(host, shown), int(port) if port else default_port)
    version = address.ip_version
    if (":" in host and version != 6) or (scheme.startswith("ipv") and version != int(scheme[-1])):
        expected = "an IPv4" if scheme == "ipv4" else "an IPv6"
        raise InvalidInputError(f"{shown}: {host!r} is not {expected} address; pass host:port")
    return address


def is_grpc_name(text: str) -> bool:
    """Whether the text has a scheme of gRPC's name syntax, such as "dns:///host:port"."""
    return bool(_split_scheme(text)[0])


def _split_scheme(text: str) -> tuple[str, str]:
    """The scheme, "" if there is none, and the rest. "dns:8500" is a host with a port."""
    scheme, _, name = text.partition(":")
    return (scheme, name) if scheme in _SCHEMES and name and not name.isdecimal() else ("", text)


def split_host(text: str) -> tuple[str, str]:
    """Host and port; the port is "" if there is none, the host if the text is not valid."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if ":" not in host or not bracket or (rest and not rest.startswith(":")):
            return "", ""
        return host, rest[1:]
    if text.count(":") > 1:
        return text, ""
    host, _, port = text.partition(":")
    return host, port


def _ascii_host(host: str, shown: str) -> str:
    """The host as it appears in DNS: international names in their ASCII form."""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise InvalidInputError(f"{shown} is not a valid address: {error}; pass host:port") from error


class Target(NamedTuple):
    """What a channel connects to; when it changes, the channel is replaced.

    Attributes:
        text: the target in gRPC's name syntax.
        found: the IP addresses of its name when the client last resolved it; empty before that.
    """

    text: str
    found: tuple[str, ...] = ()


class Targets:
    """The addresses as one target in gRPC's name syntax.

    gRPC resolves a single name itself, and again only when a connection breaks: a server that is added would
    get no calls. Several addresses can be one target only as IP addresses. So names are resolved here too,
    every 10 s in a background thread, while there are calls; several names also on the first call. The first
    result for a single name counts as a change, because gRPC does not report which addresses it has found.

    Args:
        address: "host:port", several as a comma-separated list or a sequence, or one "unix:PATH" or
            "unix-abstract:NAME".
        default_port: for addresses without a port.
        resolve: from an Address to its IP addresses; raises OSError.
        clock: monotonic time in seconds.

    Raises:
        InvalidInputError: an address is not valid.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        default_port: int,
        *,
        resolve: Callable[[Address], list[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = split_addresses(address)
        self.text = ",".join(parts)
        self._resolve = resolve or _resolve
        self._clock = clock
        self._current: Target | None = None
        self._has_names = False
        self._resolved_at: float | None = None
        self._resolving = threading.Lock()
        self.addresses: list[Address] = []
        if any(part.startswith(_SOCKETS) for part in parts):
            if self.text in _SOCKETS or "\0" in self.text or not is_encodable(self.text):
                raise InvalidInputError(f"{self.text!r} is not a valid unix socket; pass unix:PATH")
            if len(parts) > 1:
                raise InvalidInputError(
                    f"{self.text!r} has a unix socket among several addresses; pass the socket alone"
                )
            self._current = Target(parts[0])
            return
        self.addresses = [parse_address(part, default_port) for part in parts]
        self.text = ",".join(map(str, self.addresses))
        self._has_names = any(one.ip_version is None for one in self.addresses)
        if len(parts) == 1:
            self._current = Target(target_for(self.addresses[0]))
        elif not self._has_names:
            self._current = Target(_ip_target([(one.host, one.port) for one in self.addresses]))

    @property
    def host(self) -> str | None:
        """The host that all addresses share, or None."""
        hosts = {one.host for one in self.addresses}
        return hosts.pop() if len(hosts) == 1 else None

    def leave_to_proxy(self) -> None:
        """Stop resolving a single name: a proxy does it."""
        self._has_names = self._has_names and len(self.addresses) > 1

    def current(self) -> Target:
        """The target to connect to now. Blocks only in the first call, to resolve names among several.

        Raises:
            UnavailableError: none of several names resolves.
        """
        current = self._current
        if current is None:
            current = self._current = self._resolve_all()
        if not self._has_names:
            return current
        now = self._clock()
        if self._resolved_at is None:
            self._resolved_at = now
        elif now - self._resolved_at > _REFRESH_SECONDS and self._resolving.acquire(blocking=False):
            self._resolved_at = now
            threading.Thread(target=self._refresh, name="tfserving-resolve", daemon=True).start()
        return current

    def after_fork(self) -> None:
        """In a forked child: the background thread does not exist there."""
        self._resolving = threading.Lock()

    def _refresh(self) -> None:
        try:
            self._current = self._resolve_all()
        except UnavailableError:
            pass  # the last result stands
        finally:
            self._resolving.release()

    def _resolve_all(self) -> Target:
        found: list[tuple[str, int]] = []
        reason = ""
        for one in self.addresses:
            try:
                found += [(ip, one.port) for ip in ([one.host] if one.ip_version else self._resolve(one))]
            except OSError as error:
                reason = f"{one.host}: {error.strerror or error}"
        self._resolved_at = self._clock()
        if not found:
            raise UnavailableError(f"{self.text}: none of the names resolves ({reason})", address=self.text)
        pairs = sorted(set(found))
        if len(self.addresses) == 1:
            return Target(target_for(self.addresses[0]), tuple(ip for ip, _ in pairs))
        return Target(_ip_target(pairs))


def target_for(address: Address) -> str:
    """The gRPC target of one address."""
    version = address.ip_version
    return f"dns:///{address}" if version is None else f"ipv{version}:{address}"


def resolve_address(address: Address) -> str:
    """The address with an IP address as its host, as text.

    Raises:
        UnavailableError: the name does not resolve.
    """
    try:
        ip = address.host if address.ip_version is not None else _resolve(address)[0]
    except OSError as error:
        raise UnavailableError(
            f"{address} does not resolve ({error.strerror or error}); check the name", address=str(address)
        ) from error
    return str(Address(ip, address.port))


def _resolve(address: Address) -> list[str]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _ip_target(pairs: list[tuple[str, int]]) -> str:
    """A gRPC target for IP addresses. A target has one scheme, so beside IPv6 addresses IPv4 ones are
    mapped."""
    if all(":" not in ip for ip, _ in pairs):
        return "ipv4:" + ",".join(f"{ip}:{port}" for ip, port in pairs)
    return "ipv6:" + ",".join(f"[{ip if ':' in ip else f'::ffff:{ip}'}]:{port}" for ip, port in pairs)
