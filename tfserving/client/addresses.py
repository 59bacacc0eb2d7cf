"""Where the servers are: "host:port", several of them, names that stand for several."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfserving.errors import InvalidInputError, UnavailableError

# Seconds after which the names of a list of addresses are looked up again.
_REFRESH = 30.0


@dataclass(frozen=True)
class Address:
    """A host (name, IPv4 or IPv6 address) and a port."""

    host: str
    port: int

    @property
    def ip_version(self) -> int | None:
        """4 or 6 where the host is a number, None where it is a name."""
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            try:
                socket.inet_pton(family, self.host.partition("%")[0])
            except OSError:
                continue
            return version
        return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split(address: str | Sequence[str]) -> list[str]:
    """The addresses in a comma list, or in a sequence.

    Raises:
        InvalidInputError: there is none.
    """
    given = address.split(",") if isinstance(address, str) else list(address)
    parts = [part.strip() for part in given if part.strip()]
    if not parts:
        raise InvalidInputError(f"no address in {address!r}: give host:port")
    return parts


def parse(text: str, default_port: int) -> Address:
    """An address from "host:port", "host", "[::1]:port" or "::1".

    Raises:
        InvalidInputError: it is none of these, or the port is no port.
    """
    if "://" in text:
        raise InvalidInputError(f"{text!r}: gRPC takes host:port, without a scheme (REST is TfRestClient)")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else "?" if rest or not bracket else ""
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not host or any(character.isspace() or character in "/,@?#" for character in text):
        raise InvalidInputError(f"{text!r} is no address: give host:port")
    if not port:
        return Address(host, default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidInputError(f"{text!r}: {port!r} is no port (1 to 65535)")
    return Address(host, int(port))


class Targets:
    """The addresses as a target that gRPC's name syntax can express.

    One name is left to gRPC, which resolves it, again when a connection breaks, and finds all of its servers.
    Several addresses can be one target only as numbers, so names among them are resolved here, when first
    used and then every 30 s in a thread of their own, so that a server that moved is found again.

    Args:
        address: "host:port", several as a comma list or a sequence, or one "unix:PATH".
        default_port: for addresses that give none.
        resolve: from an Address to the IP addresses behind it.
        clock: seconds.

    Raises:
        InvalidInputError: an address that is none.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        default_port: int,
        *,
        resolve: Callable[[Address], list[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = split(address)
        self.text = ",".join(parts)
        self._resolve = resolve or _resolve
        self._clock = clock
        self._current: str | None = None
        self._names = False
        self._looked_up = clock()
        self._looking = threading.Lock()
        self.addresses: list[Address] = []
        if any(part.startswith("unix:") for part in parts):
            if len(parts) > 1:
                raise InvalidInputError(f"{self.text!r}: a unix socket cannot be one of several addresses")
            self._current = parts[0]
            return
        self.addresses = [parse(part, default_port) for part in parts]
        self.text = ",".join(map(str, self.addresses))
        self._names = len(parts) > 1 and any(one.ip_version is None for one in self.addresses)
        if len(parts) == 1:
            one = self.addresses[0]
            scheme = "dns:///" if one.ip_version is None else f"ipv{one.ip_version}:"
            self._current = f"{scheme}{one}"
        elif not self._names:
            self._current = _numbers([(one.host, one.port) for one in self.addresses])

    @property
    def host(self) -> str | None:
        """The host that all addresses share, or None."""
        hosts = {one.host for one in self.addresses}
        return hosts.pop() if len(hosts) == 1 else None

    @property
    def fixed(self) -> bool:
        """Whether `current` will never answer anything else."""
        return not self._names

    def current(self) -> str:
        """The target to connect to now. Quick, but for the first time where names must be looked up.

        Raises:
            UnavailableError: not one of several names can be resolved.
        """
        if not self._names:
            return self._current or ""
        if self._current is None:
            self._current = self._look_up()
        elif self._clock() - self._looked_up > _REFRESH and self._looking.acquire(blocking=False):
            self._looked_up = self._clock()
            threading.Thread(target=self._refresh, name="tfserving-resolve", daemon=True).start()
        return self._current

    def after_fork(self) -> None:
        """In the child: a lookup that was under way is no more."""
        self._looking = threading.Lock()

    def _refresh(self) -> None:
        try:
            self._current = self._look_up()
        except UnavailableError:
            pass  # what was known is still the best guess
        finally:
            self._looking.release()

    def _look_up(self) -> str:
        found: list[tuple[str, int]] = []
        failed = ""
        for one in self.addresses:
            try:
                found += [(ip, one.port) for ip in ([one.host] if one.ip_version else self._resolve(one))]
            except OSError as error:
                failed = f"{one.host}: {error.strerror or error}"
        self._looked_up = self._clock()
        if not found:
            raise UnavailableError(
                f"{self.text}: none of the names can be resolved ({failed})", address=self.text
            )
        return _numbers(sorted(set(found)))


def _resolve(address: Address) -> list[str]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _numbers(pairs: list[tuple[str, int]]) -> str:
    """A gRPC target for a list of numeric addresses; its schemes do not mix, so IPv4 is mapped if it must
    be."""
    if all(":" not in ip for ip, _ in pairs):
        return "ipv4:" + ",".join(f"{ip}:{port}" for ip, port in pairs)
    return "ipv6:" + ",".join(f"[{ip if ':' in ip else f'::ffff:{ip}'}]:{port}" for ip, port in pairs)
