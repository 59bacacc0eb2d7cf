"""Threads that do one thing after the other until told to stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.soak.record import Record

# Seconds that an actor may take to finish what it is at.
_PATIENCE = 120.0


class Actor:
    """Does `act` again and again. What it raises is a fault, and does not end it. Can be started anew.

    Attributes:
        random: its own; runs with one seed do the same things, if not in the same order.
    """

    def __init__(self, name: str, record: Record, seed: int) -> None:
        self.name = name
        self.record = record
        self.random = random.Random(f"{name} {seed}")
        self._stop = threading.Event()
        self._thread = threading.Thread()

    def open(self) -> None:
        """Gets ready, in the actor's thread."""

    def act(self) -> None:
        """Does one thing."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes what `open` opened, in the actor's thread."""

    def rest(self, seconds: float) -> None:
        """Waits, but not beyond the end."""
        self._stop.wait(seconds)

    @property
    def stopped(self) -> bool:
        """Whether it shall come to an end."""
        return self._stop.is_set()

    def start(self) -> None:
        """Starts its thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tells it to stop."""
        self._stop.set()

    def join(self) -> None:
        """Waits until it has."""
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self.record.wrong(f"{self.name} has been at one thing for {_PATIENCE:g} s")

    def _run(self) -> None:
        self.open()
        while not self.stopped:
            try:
                self.act()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is not as it should be
                self.record.wrong(f"{self.name}: {type(error).__name__}: {error}")
                self.rest(0.5)
        self.close()


@contextmanager
def at_work(actors: Iterable[Actor]) -> Iterator[None]:
    """Lets actors act as long as the context lasts."""
    actors = list(actors)
    for actor in actors:
        actor.start()
    try:
        yield
    finally:
        for actor in actors:
            actor.stop()
        for actor in actors:
            actor.join()
