"""Counts of what the workers did, and the failures that they found."""

from __future__ import annotations

import threading
from collections import Counter

# Later failures are counted, but not kept or printed.
_KEPT_FAILURES = 50


class Results:
    """Counts and failures; safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def count(self, event: str) -> None:
        """Count one event."""
        with self._lock:
            self._counts[event] += 1

    def fail(self, message: str) -> None:
        """Record a failure and print it."""
        with self._lock:
            self._counts["failures"] += 1
            if len(self.failures) < _KEPT_FAILURES:
                self.failures.append(message)
                print(f"FAILURE: {message}", flush=True)

    def counts(self) -> dict[str, int]:
        """Return the number of events by name."""
        with self._lock:
            return dict(self._counts)
