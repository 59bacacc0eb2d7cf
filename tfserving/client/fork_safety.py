"""Forking while calls are under way.

gRPC's threads do not follow into the child. Its library restarts them there, but only if no thread was inside
the library at the moment of the fork; else it says "skipping fork() handlers", and calls of the child can
hang for ever (grpcio 1.85: with four calling threads, every sixth child). So a fork waits for a moment
without calls, which it makes: new calls wait, those under way finish, and what lasts longer is broken off
and, in the parent, sent again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

# Seconds that calls under way have to finish before they are broken off, and that they have for breaking off.
_FINISH, _BREAK_OFF = 1.0, 5.0
_LOOK = 0.001


class ForkAware(Protocol):
    """What has something in hand that a fork breaks."""

    def break_off(self) -> None:
        """Before the fork: end the calls that are under way."""

    def after_fork(self) -> None:
        """In the child: forget what belongs to the parent."""


class Gate:
    """Lets calls through, but for the time of a fork."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        # thread identifiers; adding to a set and discarding are atomic
        self._calling: set[int] = set()
        self._forking: set[int] = set()
        self._aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()

    def tell(self, aware: ForkAware) -> None:
        """From now on let this one know of forks."""
        self._aware.add(aware)

    def enter(self) -> int:
        """Begin a call, after the fork if there is one; `leave` with what this returns."""
        me = threading.get_ident()
        self._calling.add(me)
        while self._forking:
            self._calling.discard(me)
            self._open.wait()
            self._calling.add(me)
        return me

    def leave(self, me: int) -> None:
        """End a call."""
        self._calling.discard(me)

    def before_fork(self) -> None:
        me = threading.get_ident()
        self._forking.add(me)
        self._open.clear()
        if not self._wait(me, _FINISH):
            for aware in list(self._aware):
                aware.break_off()
            self._wait(me, _BREAK_OFF)

    def after_fork_in_parent(self) -> None:
        self._forking.discard(threading.get_ident())
        if not self._forking:
            self._open.set()

    def after_fork_in_child(self) -> None:
        # another thread may have held the event's lock
        self._open = threading.Event()
        self._open.set()
        self._calling.clear()
        self._forking.clear()
        for aware in list(self._aware):
            aware.after_fork()

    def _wait(self, me: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._calling - {me}:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK)
        return True


GATE = Gate()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=GATE.before_fork,
        after_in_parent=GATE.after_fork_in_parent,
        after_in_child=GATE.after_fork_in_child,
    )
