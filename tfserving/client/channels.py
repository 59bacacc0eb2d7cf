"""gRPC channels: made on the first call, after a fork, and when the servers' addresses change."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import grpc

from tfserving.client.addresses import Address, Target, Targets, resolve_address, target_for
from tfserving.client.fork_safety import GATE, inherited
from tfserving.client.options import CONNECT_TIMEOUT, Keepalive, PathLike, Tls
from tfserving.client.proxies import Proxy
from tfserving.errors import FailedPreconditionError, InvalidInputError

# Seconds between attempts to reconnect, first and at most; gRPC's defaults are 1 and 120.
_RECONNECT_FIRST, _RECONNECT_LONGEST = 0.1, 1.0
# Seconds between two resolutions of a name, which gRPC starts when a connection breaks; its default is 30.
_RESOLVE_AGAIN = 1.0

Option = tuple[str, Any]


def options_for(
    targets: Targets, keepalive: Keepalive | None, tls: Tls | None, count: int, max_response_bytes: int | None
) -> list[Option]:
    """The channel's gRPC options.

    Raises:
        InvalidInputError: TLS to several hosts without `Tls.server_name`, or an invalid count.
    """
    if not isinstance(count, int) or count < 1:
        raise InvalidInputError(f"channels={count!r} is not valid; pass 1 or more")
    options: list[Option] = [
        ("grpc.max_receive_message_length", -1 if max_response_bytes is None else max_response_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.min_reconnect_backoff_ms", round(CONNECT_TIMEOUT * 1000)),  # gRPC's connection timeout
        ("grpc.initial_reconnect_backoff_ms", round(_RECONNECT_FIRST * 1000)),
        ("grpc.max_reconnect_backoff_ms", round(_RECONNECT_LONGEST * 1000)),
        ("grpc.dns_min_time_between_resolutions_ms", round(_RESOLVE_AGAIN * 1000)),
        # The client retries itself: large messages too, and only the RESOURCE_EXHAUSTED where it helps.
        ("grpc.enable_retries", 0),
    ]
    if keepalive is not None:
        options += [
            ("grpc.keepalive_time_ms", round(keepalive.interval * 1000)),
            ("grpc.keepalive_timeout_ms", round(keepalive.timeout * 1000)),
            # without this, gRPC waits ten times as long for the response to a ping
            ("grpc.http2.ping_timeout_ms", round(keepalive.timeout * 1000)),
        ]
    if count > 1:  # equal channels would share one connection
        options.append(("grpc.use_local_subchannel_pool", 1))
    if tls is not None:
        name = tls.server_name
        if name is None and len(targets.addresses) > 1:
            name = targets.host
            if name is None:
                raise InvalidInputError(
                    f"TLS to several hosts ({targets.text}) needs the name that their certificates share; "
                    "pass Tls(server_name=...)"
                )
        if name is not None:
            options += [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    return options


def through_proxy(target: str, addresses: Sequence[Address], proxy: Proxy | None) -> tuple[str, list[Option]]:
    """The target to connect to, and gRPC's options for the proxy.

    gRPC itself uses `http_proxy` for loopback addresses too, and puts all addresses of a target into a single
    CONNECT request.

    Raises:
        UnavailableError: the name of the proxy does not resolve.
    """
    options: list[Option] = [("grpc.enable_http_proxy", 0)]
    if proxy is None:
        return target, options
    if proxy.authorization is not None:
        options.append(("grpc.http_connect_headers", f"Proxy-Authorization:{proxy.authorization}"))
    if len(addresses) == 1:  # the proxy resolves the name
        server = addresses[0]
        options += [
            ("grpc.http_connect_server", str(server)),
            ("grpc.default_authority", str(server)),
            ("grpc.ssl_target_name_override", server.host),
        ]
        return target_for(proxy.address), options
    options += [
        ("grpc.address_http_proxy", resolve_address(proxy.address)),
        ("grpc.address_http_proxy_enabled_addresses", "0.0.0.0/0,::/0"),
    ]
    return target, options


def credentials_for(tls: Tls) -> Any:
    """gRPC channel credentials from PEM files."""
    return grpc.ssl_channel_credentials(*map(_read_optional, (tls.ca, tls.key, tls.certificate)))


def _read_optional(path: PathLike | None) -> bytes | None:
    # Not pathlib: importing it adds a tenth to the time that importing the client takes.
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


class MethodStubs(dict[str, Any]):
    """The callables of a channel by the path of their method, bytes to bytes; each is made once."""

    def __init__(self, channel: Any) -> None:
        super().__init__()
        self.channel = channel

    def __missing__(self, path: str) -> Any:
        stub = self[path] = self.channel.unary_unary(path)
        return stub


class Channels:
    """Equal channels that take calls in turn.

    Args:
        targets: the servers.
        connect: from a target to a channel.
        count: how many channels.
        owner: what asyncio channels belong to besides the target: the running event loop. Channels are
            replaced when it changes. None for blocking channels.

    A channel that is replaced is dropped, not closed: calls in flight hold it until they end.
    """

    def __init__(
        self,
        targets: Targets,
        connect: Callable[[str], Any],
        count: int,
        owner: Callable[[], Hashable] | None = None,
    ) -> None:
        self._targets = targets
        self._connect = connect
        self._count = count
        self._owner = owner
        self._lock = threading.Lock()
        self._turns = itertools.count()
        self._stubs: list[MethodStubs] = []
        self._made_for: tuple[Target, Hashable] | None = None
        self.is_closed = False
        self.cancellations = 0
        GATE.register(self)

    def next_stubs(self) -> MethodStubs:
        """The channel whose turn it is. Hold it until the response arrives: an unused channel closes.

        Raises:
            FailedPreconditionError: the client is closed.
            UnavailableError: there are several names, and none resolves.
        """
        key = (self._targets.current(), self._owner() if self._owner else None)
        stubs = self._stubs
        if not stubs or self._made_for != key:
            stubs = self._renew(key)
        return stubs[next(self._turns) % len(stubs)]

    def close(self) -> list[Any]:
        """Return the channels for closing; from now on there are none."""
        with self._lock:
            self.is_closed = True
            return self._take()

    def _renew(self, key: tuple[Target, Hashable]) -> list[MethodStubs]:
        with self._lock:
            if self.is_closed:
                raise FailedPreconditionError(
                    f"{self._targets.text}: this client is closed; create a new one",
                    address=self._targets.text,
                )
            if not self._stubs or self._made_for != key:
                self._stubs = [MethodStubs(self._connect(key[0].text)) for _ in range(self._count)]
                self._made_for = key
            return self._stubs

    def _take(self) -> list[Any]:
        stubs, self._stubs = self._stubs, []
        return [one.channel for one in stubs]

    def _cancel_calls(self) -> None:
        if self._owner is not None:
            return
        with self._lock:
            self.cancellations += 1
            channels = self._take()
        for channel in channels:
            channel.close()

    def _after_fork(self) -> None:
        inherited.extend(self._take())
        self._lock = threading.Lock()
        self._targets.after_fork()
