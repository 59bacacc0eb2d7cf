"""What happened: how often, and what was wrong."""

from __future__ import annotations

import threading
from collections import Counter

# Further faults are counted only.
_KEPT = 50


class Record:
    """Written by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def count(self, what: str) -> None:
        """One more of a kind."""
        with self._lock:
            self._counts[what] += 1

    def wrong(self, text: str) -> None:
        """Something that must not be; shown at once."""
        with self._lock:
            self._counts["faults"] += 1
            if len(self.faults) < _KEPT:
                self.faults.append(text)
                print(f"WRONG: {text}", flush=True)

    def counts(self) -> dict[str, int]:
        """How often everything happened."""
        with self._lock:
            return dict(self._counts)
