"""Quantiles and intervals, on distributions whose quantiles are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfserving.bench.quantiles import Interval, quantile, quantile_interval, rate_interval


def waiting_times(rng: np.random.Generator, count: int, load: float) -> np.ndarray:
    """Times in a queue with one server (M/M/1), with services of mean 1, in the order of arrival.

    They are exponentially distributed with mean 1 / (1 - load), and depend on each other.
    """
    pauses = rng.exponential(1 / load, count).tolist()
    services = rng.exponential(1.0, count).tolist()
    current = rng.exponential(1 / (1 - load))
    times = []
    for pause, service in zip(pauses, services, strict=True):
        current = service + max(0.0, current - pause)
        times.append(current)
    return np.array(times)


def covered(draw, true: float, trials: int) -> float:
    """The share of intervals of p99 that contain the true value."""
    intervals = [quantile_interval(draw(), 0.99) for _ in range(trials)]
    return sum(low <= true <= high for low, high in intervals) / trials


@pytest.mark.parametrize(("q", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (0.0, 1), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(q, expected):
    assert quantile(np.random.default_rng(0).permutation(np.arange(1.0, 101.0)), q) == expected


@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (lambda rng: rng.exponential(1.0, 4000), -math.log(0.01)),
        (lambda rng: rng.lognormal(0.0, 1.0, 4000), math.exp(2.3263479)),
        (lambda rng: rng.uniform(0.0, 1.0, 4000), 0.99),
    ],
)
def test_intervals_of_independent_values_contain_the_true_quantile(draw, true):
    rng = np.random.default_rng(2)
    assert covered(lambda: draw(rng), true, 200) >= 0.9


def test_intervals_of_dependent_values_contain_the_true_quantile():
    rng = np.random.default_rng(3)
    assert covered(lambda: waiting_times(rng, 10_000, 0.5), -math.log(0.01) / 0.5, 60) >= 0.85


def test_intervals_of_dependent_values_are_wider_than_of_independent_ones():
    rng = np.random.default_rng(4)
    values = waiting_times(rng, 20_000, 0.8)
    dependent, independent = (quantile_interval(each, 0.99) for each in (values, rng.permutation(values)))
    assert dependent.half_width(1.0) > 2 * independent.half_width(1.0)


def test_the_half_width_is_a_share_of_the_value():
    assert Interval(9.0, 12.0).half_width(10.0) == pytest.approx(0.15)
    assert Interval(0.0, 1.0).half_width(0.0) == math.inf


@pytest.mark.parametrize(("count", "has_interval"), [(1999, False), (2001, True)])
def test_few_values_have_no_interval(count, has_interval):
    values = np.random.default_rng(5).random(count)
    assert (quantile_interval(values, 0.99) is not None) is has_interval


def test_the_interval_of_a_rate_contains_the_true_rate():
    rng = np.random.default_rng(6)
    intervals = [rate_interval(rng.uniform(0.0, 10.0, rng.poisson(1000)), 0.0, 10.0) for _ in range(200)]
    assert sum(low <= 100 <= high for low, high in intervals) >= 180
    assert rate_interval(np.array([1.0]), 0.0, 10.0) is None
