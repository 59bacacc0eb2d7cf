"""Counters, gauges and histograms with labels, and the text in which Prometheus scrapes them.

Of our own because prometheus_client cannot say the names of tensorflow_model_server: it ends the names of
counters in `_total`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]


class Number:
    """A series of a counter or a gauge. Any thread may change it."""

    __slots__ = ("_lock", "value")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        """Adds to the value; under the lock, who wants to spare the locking adds to `value` itself."""
        with self._lock:
            self.value += amount

    def set(self, value: float) -> None:
        """Replaces the value."""
        with self._lock:
            self.value = value

    def copy(self) -> float:
        """The value. Called under the lock."""
        return self.value

    @staticmethod
    def lines(name: str, labels: str, value: float) -> Iterator[str]:
        """The line of the series; `value` is from `copy`."""
        yield f"{name}{{{labels}}} {_number(value)}"


class Distribution:
    """A series of a histogram. Any thread may change it."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, lock: threading.Lock, bounds: Sequence[float]) -> None:
        self._lock = lock
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0

    def observe(self, value: float) -> None:
        """Counts a value in the first bucket whose bound is not below it."""
        with self._lock:
            self.count(value)

    def count(self, value: float) -> None:
        """The same for who holds the lock."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def copy(self) -> tuple[Sequence[float], list[int], float]:
        """Bounds, counts and sum. Called under the lock."""
        return self._bounds, self._counts.copy(), self._sum

    @staticmethod
    def lines(name: str, labels: str, value: tuple[Sequence[float], list[int], float]) -> Iterator[str]:
        """The lines of the series; `value` is from `copy`."""
        bounds, counts, total = value
        before = f"{labels}," if labels else ""
        count = 0
        for bound, added in zip(bounds, counts, strict=False):
            count += added
            # six digits, as tensorflow_model_server writes bounds: dashboards name them
            yield f'{name}_bucket{{{before}le="{bound:g}"}} {count}'
        count += counts[-1]
        yield f'{name}_bucket{{{before}le="+Inf"}} {count}'
        yield f"{name}_sum{{{labels}}} {_number(total)}"
        yield f"{name}_count{{{labels}}} {count}"


S = TypeVar("S", Number, Distribution)


class Family(Generic[S]):
    """A metric: its name, its kind ("counter", "gauge" or "histogram"), and a series for each set of labels.

    `limit` bounds the number of series: with one more, the one goes that was asked for longest ago. 0 is for
    labels that are bounded themselves.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        description: str,
        labels: Labels,
        make: Callable[[], S],
        lock: threading.Lock,
        limit: int = 0,
    ) -> None:
        self.name = name
        self.kind = kind
        self.description = description
        self.labels = labels
        self._make: Callable[[], S] = make
        self._lock = lock
        self._limit = limit
        self._series: dict[Labels, S] = {}

    def series(self, *labels: str) -> S:
        """The series with these label values, in the order of `labels`; made when it is new."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {labels}")
        with self._lock:
            found = self._series.get(labels)
            if found is None:
                if self._limit and len(self._series) >= self._limit:
                    del self._series[next(iter(self._series))]
                found = self._series[labels] = self._make()
            elif self._limit:
                self._series[labels] = self._series.pop(labels)
            return found

    def forget(self, gone: Callable[[Labels], bool]) -> None:
        """Drops every series of whose label values `gone` says so."""
        with self._lock:
            for labels in [labels for labels in self._series if gone(labels)]:
                del self._series[labels]

    def snapshot(self) -> Callable[[], Iterator[str]]:
        """Copies the values, and gives what writes them down: the lock is held for the copy alone."""
        with self._lock:
            copied = [(labels, series.copy()) for labels, series in self._series.items()]
        return lambda: self._lines(copied)

    def _lines(self, copied: Iterable[tuple[Labels, object]]) -> Iterator[str]:
        yield f"# HELP {self.name} {_escaped(self.description)}"
        yield f"# TYPE {self.name} {self.kind}"
        write = Distribution.lines if self.kind == "histogram" else Number.lines
        for labels, value in copied:
            pairs = zip(self.labels, labels, strict=True)
            text = ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs)
            yield from write(self.name, text, value)  # type: ignore[arg-type]


class Registry:
    """Metrics in the order in which they were made, and their text. One lock is on all of their values."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.families: list[Family[Number] | Family[Distribution]] = []

    def counter(self, name: str, description: str, *labels: str, limit: int = 0) -> Family[Number]:
        """A metric that only grows."""
        return self._number("counter", name, description, labels, limit)

    def gauge(self, name: str, description: str, *labels: str, limit: int = 0) -> Family[Number]:
        """A metric that goes up and down."""
        return self._number("gauge", name, description, labels, limit)

    def histogram(
        self, name: str, description: str, *labels: str, bounds: Sequence[float], limit: int = 0
    ) -> Family[Distribution]:
        """A metric that counts values by size; `bounds` are the rising upper bounds of its buckets."""
        make = partial(Distribution, self.lock, bounds)
        family = Family(name, "histogram", description, labels, make, self.lock, limit)
        self.families.append(family)
        return family

    def text(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4."""
        copies = [family.snapshot() for family in self.families]
        lines = [line for copy in copies for line in copy()]
        return "\n".join([*lines, ""]).encode()

    def _number(self, kind: str, name: str, description: str, labels: Labels, limit: int) -> Family[Number]:
        family = Family(name, kind, description, labels, partial(Number, self.lock), self.lock, limit)
        self.families.append(family)
        return family


def exponential(first: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds as TensorFlow's monitoring::Buckets::Exponential makes them (core/lib/monitoring/sampler.cc)."""
    bounds = []
    for _ in range(count):
        bounds.append(first)
        first *= factor
    return tuple(bounds)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
