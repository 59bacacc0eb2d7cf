"""Quantiles of latencies, and how exact they are.

Latencies that follow each other are alike: a slow phase of the machine or a full queue affects many of them.
An interval that treats them as independent is too narrow. So the samples are divided into sections in the
order of time, and the interval follows from how much the quantiles of the sections differ
(docs/decisions/0027).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tfserving.wire.dtypes import Array

SECTIONS = 10
# Student's t for 95 % with SECTIONS - 1 degrees of freedom.
_T = 2.2622
# Samples beyond the quantile, in all sections together, without which there is no interval.
_FEWEST_BEYOND = 20


class Interval(NamedTuple):
    """The 95 % confidence interval of a value."""

    low: float
    high: float

    def half_width(self, value: float) -> float:
        """Half of the width, as a share of the value."""
        return (self.high - self.low) / 2 / value if value else float("inf")


def quantile(values: Array, q: float) -> float:
    """The smallest value that is at least as large as a share `q` of all values."""
    return float(np.quantile(values, q, method="inverted_cdf"))


def quantile_interval(values: Array, q: float) -> Interval | None:
    """The interval of a quantile; None for too few values.

    Args:
        values: float64 of shape (n,), in the order of time.
        q: from 0 to 1.
    """
    if len(values) * min(q, 1 - q) < _FEWEST_BEYOND:
        return None
    return _interval(quantile(values, q), [quantile(one, q) for one in np.array_split(values, SECTIONS)])


def rate_interval(times: Array, start: float, end: float) -> Interval | None:
    """The interval of the number of events per second; None for fewer events than sections.

    Args:
        times: of the events, float64 of shape (n,).
        start, end: the period, in the same unit.
    """
    if len(times) < SECTIONS or end <= start:
        return None
    counts, _ = np.histogram(times, SECTIONS, (start, end))
    rates: Any = counts * (SECTIONS / (end - start))
    return _interval(float(rates.mean()), rates.tolist())


def _interval(value: float, of_sections: list[float]) -> Interval:
    # around the value of all samples: a quantile of a short section is biased, which widens the interval
    deviations = np.asarray(of_sections) - value
    half = _T * float(np.sqrt((deviations**2).sum() / (SECTIONS - 1) / SECTIONS))
    return Interval(max(0.0, value - half), value + half)
