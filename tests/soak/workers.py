"""Threads that repeat one step until they are stopped."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.soak.results import Results

# Seconds that a worker may take to finish its current step.
_JOIN_TIMEOUT = 120.0


class Worker:
    """Repeats `step` in a thread. An exception is recorded as a failure, and the worker continues.

    A worker that has stopped can be started again.

    Attributes:
        kind: the first word of the name, for counting.
        rng: seeded with the name and the seed of the run, so that a run with the same seed makes the same
            choices, though not in the same order across workers.
    """

    def __init__(self, name: str, results: Results, seed: int) -> None:
        self.name = name
        self.kind = name.partition(" ")[0]
        self.results = results
        self.rng = random.Random(f"{name} {seed}")
        self._stop = threading.Event()
        self._thread = threading.Thread()

    def open(self) -> None:
        """Open connections; runs in the worker's thread."""

    def step(self) -> None:
        """Do one thing."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what `open` opened; runs in the worker's thread."""

    def pause(self, seconds: float) -> None:
        """Sleep, but return immediately when the worker is stopped."""
        self._stop.wait(seconds)

    def start(self) -> None:
        """Start the thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to stop after its current step."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the thread; a step that does not finish is a failure."""
        self._thread.join(_JOIN_TIMEOUT)
        if self._thread.is_alive():
            self.results.fail(f"{self.name}: one step did not finish within {_JOIN_TIMEOUT:g} s")

    def _run(self) -> None:
        self.open()
        while not self._stop.is_set():
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 - any exception is a failure of the server under test
                self.results.fail(f"{self.name}: {type(error).__name__}: {error}")
                self.pause(0.5)
        self.close()


@contextmanager
def running(workers: Iterable[Worker]) -> Iterator[None]:
    """Run the workers for the duration of the context."""
    workers = list(workers)
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()
