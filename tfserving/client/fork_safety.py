"""Makes forks safe while RPCs are in flight.

gRPC's threads do not exist in a forked child. The library restarts them there, but only if no thread was
inside it at the moment of the fork; otherwise it logs "skipping fork() handlers", and calls of the child can
hang forever (grpcio 1.85: with four calling threads, one child in six). So a fork waits until no blocking
call is in flight: new calls wait for the fork, and calls that take longer than a second are cancelled, and
retried in the parent. A program that does not fork while it calls never waits.

Asyncio clients are different: their calls neither delay a fork nor are they cancelled by one. In the child
they open new connections in its event loop, but a child that was forked while the parent's asyncio calls
were in flight can hang; start such processes with the multiprocessing method "spawn".
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol

# Seconds that a fork waits for calls in flight before it cancels them, and then for them to end.
FINISH_SECONDS, CANCEL_SECONDS = 1.0, 5.0


class ForkAware(Protocol):
    """A client, or a part of one, that holds connections."""

    def _cancel_calls(self) -> None:
        """Before the fork: end the calls that are in flight."""

    def _after_fork(self) -> None:
        """In the child: drop what belongs to the parent."""


class ForkGate:
    """Blocks calls during a fork, and a fork during calls."""

    def __init__(self) -> None:
        # Identifiers of threads. Adding to a set and discarding from it are atomic, so a call takes no lock
        # unless there is a fork.
        self._calling: set[int] = set()
        self._forking: set[int] = set()
        self._changed = threading.Condition()
        self._registered: weakref.WeakSet[ForkAware] = weakref.WeakSet()

    def register(self, client: ForkAware) -> None:
        """Inform this object of forks for as long as it lives."""
        self._registered.add(client)

    def enter(self) -> int:
        """Begin a call, after the fork if there is one. Returns what `leave` takes."""
        thread = threading.get_ident()
        self._calling.add(thread)
        if self._forking:
            with self._changed:
                self._calling.discard(thread)
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._forking)
                self._calling.add(thread)
        return thread

    def leave(self, thread: int) -> None:
        """End a call."""
        self._calling.discard(thread)
        if self._forking:
            with self._changed:
                self._changed.notify_all()

    def before_fork(self) -> None:
        thread = threading.get_ident()
        with self._changed:
            self._forking.add(thread)
            is_idle = self._wait_until_idle(thread, FINISH_SECONDS)
        if not is_idle:
            for client in list(self._registered):
                client._cancel_calls()
            with self._changed:
                self._wait_until_idle(thread, CANCEL_SECONDS)

    def after_fork_in_parent(self) -> None:
        with self._changed:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        self._changed = threading.Condition()  # another thread may have held the lock of the old one
        self._calling.clear()
        self._forking.clear()
        for client in list(self._registered):
            client._after_fork()

    def _wait_until_idle(self, thread: int, seconds: float) -> bool:
        return self._changed.wait_for(lambda: not self._calling - {thread}, seconds)


GATE = ForkGate()

# Connections inherited by a child. Destroying them can wait for threads that do not exist there, or disturb
# the parent, which still uses them; so they are kept.
inherited: list[Any] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=GATE.before_fork,
        after_in_parent=GATE.after_fork_in_parent,
        after_in_child=GATE.after_fork_in_child,
    )
