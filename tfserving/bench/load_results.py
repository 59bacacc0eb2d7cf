"""The results of a benchmark as a table and as JSON."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfserving import __version__
from tfserving.bench.measurement import QUANTILES, LevelResult, MeasurementOptions
from tfserving.bench.quantiles import Interval

_HEADS = ("", "calls/s", "p50", "p90", "p99", "p99, 95 % interval", "errors", "generator")
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


@dataclass(frozen=True)
class LoadResults:
    """The results of all levels.

    Attributes:
        address, api, model: of the server; the model with its version or label, if one is requested.
        workload: what was sent.
        options: how it was measured.
    """

    address: str
    api: str
    model: str
    workload: str
    options: MeasurementOptions
    levels: Sequence[LevelResult]

    @property
    def title(self) -> str:
        """What was measured."""
        return f"{self.model} at {self.address} ({self.api})"


def as_table(results: LoadResults) -> str:
    """The results as aligned text; refused levels have the reason in place of figures."""
    rows = [list(_HEADS)]
    remarks = []
    for level in results.levels:
        rows.append([level.level.label, *(["refused"] if level.refused else _cells(level))])
        remarks += [f"{level.level.label}: {text}" for text in (level.refused, *level.notes) if text]
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(_HEADS))]
    lines = [results.title, results.workload, ""]
    for row in rows:
        cells = [cell.rjust(widths[column]) for column, cell in enumerate(row[1:], 1)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join([*lines, *([""] if remarks else []), *remarks])


def describe_run() -> dict[str, Any]:
    """Version, time and machine of a run, for a report as JSON."""
    return {
        "version": __version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }


def as_json(results: LoadResults) -> dict[str, Any]:
    """The results as JSON values; times are in seconds. A refused level has no figures of the server."""
    return {
        **describe_run(),
        "address": results.address,
        "api": results.api,
        "model": results.model,
        "workload": results.workload,
        "options": asdict(results.options),
        "levels": [_level_json(level) for level in results.levels],
    }


def format_seconds(seconds: float) -> str:
    """A time with three digits and a unit."""
    if not math.isfinite(seconds):
        return "–"
    unit, size = next((each for each in _UNITS if seconds >= each[1]), _UNITS[-1])
    return f"{_three_digits(seconds / size)} {unit}"


def format_rate(rate: float) -> str:
    """A number of calls per second with at least three digits."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _cells(level: LevelResult) -> list[str]:
    interval = level.p99_interval
    exactness = ""
    if level.rate_interval is not None:
        exactness = f" ±{level.rate_interval.half_width(level.rate):.0%}"
    limits = "–" if interval is None else f"{format_seconds(interval.low)} to {format_seconds(interval.high)}"
    errors = sum(level.errors.values())
    return [
        format_rate(level.rate) + exactness,
        *(format_seconds(level.quantile(q)) for q in (0.5, 0.9, 0.99)),
        limits,
        f"{errors:,} ({level.error_share:.1%})" if errors else "0",
        f"{level.usage.busy:.0%} busy",
    ]


def _level_json(level: LevelResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "concurrency": level.level.concurrency,
        "offered_rate": level.level.rate,
        "seconds": level.seconds,
        "refused": level.refused or None,
        "notes": list(level.notes),
        "generator": asdict(level.usage),
    }
    if level.refused:
        return found
    return found | {
        "requests": level.requests,
        "errors": dict(level.errors),
        "rate": level.rate,
        "rate_interval": _interval_json(level.rate_interval),
        "latency": {f"p{q * 100:g}": _finite(level.quantile(q)) for q in QUANTILES}
        | {
            "mean": _finite(float(level.latencies.mean())) if len(level.latencies) else None,
            "max": _finite(float(np.max(level.latencies, initial=0.0))),
            "p99_interval": _interval_json(level.p99_interval),
        },
    }


def _interval_json(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
