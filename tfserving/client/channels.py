"""gRPC channels: made when first needed, again after a fork, and when the servers' addresses change."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import grpc

from tfserving.client.addresses import Targets
from tfserving.client.fork_safety import GATE
from tfserving.client.options import CONNECT_TIMEOUT, Keepalive, PathLike, Tls
from tfserving.errors import FailedPreconditionError, InvalidInputError

# Seconds until a lost server is tried again, first and at most; gRPC's own are 1 and 120.
_RECONNECT_FIRST, _RECONNECT_LONGEST = 0.1, 1.0

Option = tuple[str, Any]


def options_for(targets: Targets, keepalive: Keepalive | None, tls: Tls | None, count: int) -> list[Option]:
    """What gRPC is told about a channel.

    Raises:
        InvalidInputError: TLS to several hosts, without the name that their certificates share.
    """
    options: list[Option] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.min_reconnect_backoff_ms", round(CONNECT_TIMEOUT * 1000)),  # so gRPC calls this
        ("grpc.initial_reconnect_backoff_ms", round(_RECONNECT_FIRST * 1000)),
        ("grpc.max_reconnect_backoff_ms", round(_RECONNECT_LONGEST * 1000)),
        # The client asks again itself, large messages too, and knows which exhaustion is worth it.
        ("grpc.enable_retries", 0),
    ]
    if keepalive is not None:
        options += [
            ("grpc.keepalive_time_ms", round(keepalive.interval * 1000)),
            ("grpc.keepalive_timeout_ms", round(keepalive.timeout * 1000)),
            # without this, an answer to the ping is waited for ten times as long
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
                    f"TLS to several hosts ({targets.text}): give Tls(server_name=...), the name that their "
                    "certificates share"
                )
        if name is not None:
            options += [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    return options


def credentials_for(tls: Tls) -> Any:
    """gRPC's credentials from PEM files."""

    def read(path: PathLike | None) -> bytes | None:
        if path is None:
            return None
        with open(path, "rb") as file:
            return file.read()

    return grpc.ssl_channel_credentials(read(tls.ca), read(tls.key), read(tls.certificate))


class Lane(dict[str, Any]):
    """A channel and, by the path of a method, its callables, bytes to bytes: made once and used often."""

    def __init__(self, channel: Any) -> None:
        super().__init__()
        self.channel = channel

    def __missing__(self, path: str) -> Any:
        made = self[path] = self.channel.unary_unary(path)
        return made


class Channels:
    """Equal channels that take calls in turn.

    Args:
        targets: where to.
        make: from a target to a channel.
        count: how many.
        owner: what channels belong to besides the target; when it answers differently, they are made anew
            (an asyncio channel lives in one event loop).

    A channel that is replaced is dropped, not closed: calls in flight hold it until they are done.
    """

    def __init__(
        self,
        targets: Targets,
        make: Callable[[str], Any],
        count: int,
        owner: Callable[[], Hashable] | None = None,
    ) -> None:
        if count < 1:
            raise InvalidInputError(f"channels={count}: at least 1")
        self._targets = targets
        self._make = make
        self._count = count
        self._owner = owner
        self._lock = threading.Lock()
        self._turns = itertools.count()
        self._lanes: list[Lane] | None = None
        self._made_for: tuple[str, Hashable] | None = None
        # the one lane, where there is but one and nothing can replace it
        self._only: Lane | None = None
        self.closed = False
        self.broken_off = 0
        GATE.tell(self)

    def lane(self) -> Lane:
        """The one whose turn it is.

        Raises:
            FailedPreconditionError: the client is closed.
            UnavailableError: several names, and none that can be resolved.
        """
        if self._only is not None:
            return self._only
        wanted = (self._targets.current(), self._owner() if self._owner else None)
        lanes = self._lanes
        if lanes is None or self._made_for != wanted:
            lanes = self._renew(wanted)
        return lanes[0] if self._count == 1 else lanes[next(self._turns) % self._count]

    def close(self) -> Sequence[Lane]:
        """Hand over the lanes for closing; from now on there are none."""
        with self._lock:
            self.closed = True
            return self._take()

    def _renew(self, wanted: tuple[str, Hashable]) -> list[Lane]:
        with self._lock:
            if self.closed:
                raise FailedPreconditionError(
                    "this client is closed: make a new one", address=self._targets.text
                )
            if self._lanes is None or self._made_for != wanted:
                self._lanes = [Lane(self._make(wanted[0])) for _ in range(self._count)]
                self._made_for = wanted
                if self._count == 1 and self._owner is None and self._targets.fixed:
                    self._only = self._lanes[0]
            return self._lanes

    def _take(self) -> list[Lane]:
        lanes, self._lanes, self._only = self._lanes or [], None, None
        return lanes

    def break_off(self) -> None:
        """Before a fork: fail the calls under way; new channels are made after it."""
        with self._lock:
            self.broken_off += 1
            lanes = self._take()
        for lane in lanes:
            lane.channel.close()

    def after_fork(self) -> None:
        """In the child: gRPC's threads stayed with the parent, so the inherited channels are of no use."""
        _inherited.append(self._take())
        self._lock = threading.Lock()
        self._targets.after_fork()


# Destroying an inherited channel can wait for a thread that is not there: keep them.
_inherited: list[list[Lane]] = []
