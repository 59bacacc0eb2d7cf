"""Counters, gauges and histograms with labels, and the text format that Prometheus scrapes.

prometheus_client cannot be used: it appends `_total` to the names of counters, and those of
tensorflow_model_server have no such suffix.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]


class NumberSeries:
    """A series of a counter or a gauge. Thread-safe."""

    __slots__ = ("_lock", "value")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        """Add to the value. A caller that holds the lock of the registry adds to `value` instead."""
        with self._lock:
            self.value += amount

    def set(self, value: float) -> None:
        """Replace the value."""
        with self._lock:
            self.value = value

    def copy(self) -> float:
        """The value. The caller holds the lock."""
        return self.value

    @staticmethod
    def lines(name: str, labels: str, value: float) -> Iterator[str]:
        """The line of the series; `value` is the result of `copy`."""
        yield f"{name}{{{labels}}} {_format_number(value)}"


class HistogramSeries:
    """A series of a histogram. Thread-safe."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, lock: threading.Lock, bounds: Sequence[float]) -> None:
        self._lock = lock
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0

    def observe(self, value: float) -> None:
        """Count a value in the first bucket whose upper bound is not below it."""
        with self._lock:
            self.count(value)

    def count(self, value: float) -> None:
        """The same as `observe`, for a caller that holds the lock of the registry."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def copy(self) -> tuple[Sequence[float], list[int], float]:
        """Bounds, counts and sum. The caller holds the lock."""
        return self._bounds, self._counts.copy(), self._sum

    @staticmethod
    def lines(name: str, labels: str, value: tuple[Sequence[float], list[int], float]) -> Iterator[str]:
        """The lines of the series; `value` is the result of `copy`."""
        bounds, counts, total = value
        prefix = f"{labels}," if labels else ""
        count = 0
        for bound, added in zip(bounds, counts, strict=False):
            count += added
            # six digits, as in tensorflow_model_server: dashboards select buckets by this text
            yield f'{name}_bucket{{{prefix}le="{bound:g}"}} {count}'
        count += counts[-1]
        yield f'{name}_bucket{{{prefix}le="+Inf"}} {count}'
        yield f"{name}_sum{{{labels}}} {_format_number(total)}"
        yield f"{name}_count{{{labels}}} {count}"


S = TypeVar("S", NumberSeries, HistogramSeries)


@dataclass(eq=False)
class MetricFamily(Generic[S]):
    """A metric: a name, a kind ("counter", "gauge" or "histogram"), and one series for each set of labels.

    `limit` bounds the number of series: one more replaces the least recently used. 0 means no limit, for
    labels with a bounded number of values.
    """

    name: str
    kind: str
    description: str
    labels: Labels
    _make_series: Callable[[], S]
    _lock: threading.Lock
    _limit: int
    _series: dict[Labels, S] = field(default_factory=dict)

    def series(self, *labels: str) -> S:
        """The series with these label values, in the order of `labels`; created on first use."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {labels}")
        with self._lock:
            found = self._series.get(labels)
            if found is None:
                if self._limit and len(self._series) >= self._limit:
                    del self._series[next(iter(self._series))]
                found = self._series[labels] = self._make_series()
            elif self._limit:
                self._series[labels] = self._series.pop(labels)
            return found

    def remove(self, is_stale: Callable[[Labels], bool]) -> None:
        """Remove every series whose label values are stale."""
        with self._lock:
            for labels in [labels for labels in self._series if is_stale(labels)]:
                del self._series[labels]

    def snapshot(self) -> Callable[[], Iterator[str]]:
        """Copy the values, and return a function that formats them: formatting does not need the lock."""
        with self._lock:
            copied = [(labels, series.copy()) for labels, series in self._series.items()]
        return lambda: self._lines(copied)

    def _lines(self, copied: Iterable[tuple[Labels, object]]) -> Iterator[str]:
        yield f"# HELP {self.name} {_escape(self.description)}"
        yield f"# TYPE {self.name} {self.kind}"
        lines = HistogramSeries.lines if self.kind == "histogram" else NumberSeries.lines
        for labels, value in copied:
            pairs = zip(self.labels, labels, strict=True)
            text = ",".join(f'{name}="{_escape_label(value)}"' for name, value in pairs)
            yield from lines(self.name, text, value)  # type: ignore[arg-type]


class Registry:
    """Metrics in the order of their creation. One lock guards the values of all of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.families: list[MetricFamily[NumberSeries] | MetricFamily[HistogramSeries]] = []

    def counter(
        self, name: str, description: str, *labels: str, limit: int = 0
    ) -> MetricFamily[NumberSeries]:
        """Create a metric that only increases."""
        return self._number("counter", name, description, labels, limit)

    def gauge(self, name: str, description: str, *labels: str) -> MetricFamily[NumberSeries]:
        """Create a metric that increases and decreases."""
        return self._number("gauge", name, description, labels, limit=0)

    def histogram(
        self, name: str, description: str, *labels: str, bounds: Sequence[float], limit: int = 0
    ) -> MetricFamily[HistogramSeries]:
        """Create a metric that counts values by size; `bounds` are the ascending upper bounds of buckets."""
        make_series = partial(HistogramSeries, self.lock, bounds)
        family = MetricFamily(name, "histogram", description, labels, make_series, self.lock, limit)
        self.families.append(family)
        return family

    def text(self) -> bytes:
        """All metrics in the Prometheus text format 0.0.4."""
        snapshots = [family.snapshot() for family in self.families]
        lines = [line for format_lines in snapshots for line in format_lines()]
        return "\n".join([*lines, ""]).encode()

    def _number(
        self, kind: str, name: str, description: str, labels: Labels, limit: int
    ) -> MetricFamily[NumberSeries]:
        make_series = partial(NumberSeries, self.lock)
        family = MetricFamily(name, kind, description, labels, make_series, self.lock, limit)
        self.families.append(family)
        return family


def exponential_bounds(first: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds of monitoring::Buckets::Exponential (tensorflow/core/lib/monitoring/sampler.cc)."""
    bounds = []
    for _ in range(count):
        bounds.append(first)
        first *= factor
    return tuple(bounds)


def _format_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return _escape(text).replace('"', r"\"")
