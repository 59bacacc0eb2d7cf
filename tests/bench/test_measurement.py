"""Measurements against fake servers, and when a result is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.bench.loops import plan_for, target_for
from tests.bench.test_grpc_connection import request_for
from tests.client.fakes import FakeRpcServer, FakeService
from tfserving.bench import measurement
from tfserving.bench.measurement import (
    BUSY_LIMIT,
    GeneratorUsage,
    LevelResult,
    LoadLevel,
    MeasurementOptions,
    measure,
    refusal,
    split_plan,
)
from tfserving.bench.quantiles import Interval
from tfserving.errors import InvalidInputError, NotFoundError, UnavailableError

USAGE = GeneratorUsage(processes=1, connections=1, busy=0.1, cpu=0.1, delay=0.0, lag=0.0)
OPTIONS = MeasurementOptions(warmup=0.1, duration=0.5, timeout=10.0)


def result_with(usage: GeneratorUsage = USAGE, **options) -> LevelResult:
    """A result of 1000 requests that took 10 ms each."""
    due = np.arange(0.0, 10.0, 0.01)
    given = {
        "level": LoadLevel(concurrency=1),
        "start": 0.0,
        "seconds": 10.0,
        "requests": 1000,
        "errors": {},
        "rate": 100.0,
        "rate_interval": Interval(99.0, 101.0),
        "p99_interval": Interval(0.0099, 0.0101),
        "latencies": np.full(1000, 0.01),
        "due": due,
        "failed": np.empty(0),
        "usage": usage,
    }
    return LevelResult(**(given | options))


def test_measures_successes_and_errors(rpc_server):
    seen = []
    level = LoadLevel(concurrency=2)
    requests = [request_for(), request_for(model="other")]
    result = measure([target_for(rpc_server.port)], True, requests, level, OPTIONS, seen.append)
    (text,) = result.errors
    assert text == "NOT_FOUND: Servable not found for request: other 0"
    assert result.requests == len(result.latencies) + len(result.failed)
    assert result.errors[text] == len(result.failed)
    assert result.error_share == pytest.approx(0.5, abs=0.1)
    assert result.rate * result.seconds == pytest.approx(len(result.latencies), abs=2)
    assert (result.latencies > 0).all()
    assert ((result.due >= 0) & (result.due <= result.seconds)).all()
    assert result.usage.connections == 2
    assert {each.phase for each in seen} == {"warm-up", "measuring", "finishing"}


def test_an_open_loop_counts_requests_that_complete_after_its_end(rpc_server):
    level = LoadLevel(rate=50.0)
    options = replace(OPTIONS, is_poisson=False)
    result = measure([target_for(rpc_server.port)], True, [request_for()], level, options)
    assert result.requests == pytest.approx(50 * result.seconds, abs=2)
    assert len(result.latencies) == result.requests


def test_uses_the_given_number_of_processes(rpc_server):
    level = LoadLevel(concurrency=3)
    options = replace(OPTIONS, processes=2)
    result = measure([target_for(rpc_server.port)], True, [request_for()], level, options)
    assert (result.usage.processes, result.usage.connections) == (2, 3)


def test_fails_if_every_request_of_the_warmup_fails(rpc_server):
    requests = [request_for(model="other")]
    with pytest.raises(NotFoundError, match=r"requests of the warm-up failed, .* with NOT_FOUND: Servable"):
        measure([target_for(rpc_server.port)], True, requests, LoadLevel(concurrency=1), OPTIONS)


def test_fails_if_the_server_has_gone():
    with FakeRpcServer(FakeService()) as server:
        port = server.port
    with pytest.raises(UnavailableError, match="with UNAVAILABLE: Connection refused"):
        measure([target_for(port)], True, [request_for()], LoadLevel(concurrency=1), OPTIONS)


def test_accepts_a_result_of_an_idle_generator():
    assert refusal(result_with()) == ""
    assert refusal(result_with(latencies=np.empty(0))) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"busy": BUSY_LIMIT + 0.05}, "the load generator was busy 85% of the time (limit 80%)"),
        ({"delay": 0.0012}, "the load generator waited 1.2 ms for a CPU each time"),
        ({"lag": 0.0012}, "the load generator sent 1 % of the requests 1.2 ms late or more (limit 1 ms)"),
    ],
)
def test_refuses_a_result_of_a_generator_that_was_the_limit(change, reason):
    message = refusal(result_with(replace(USAGE, **change)))
    assert message.startswith(reason)
    assert "another machine for the load" in message


@pytest.mark.parametrize("change", [{"busy": 0.75}, {"delay": 0.0009}, {"lag": 0.0009}])
def test_allows_a_tenth_of_the_latency(change):
    assert refusal(result_with(replace(USAGE, **change))) == ""


@pytest.mark.parametrize(("connections", "count"), [(1, 1), (7, 3), (8, 4)])
def test_processes_share_the_callers_and_the_rate(connections, count):
    plan = plan_for(1, [], is_grpc=True, connections=connections, rate=100.0)
    parts = split_plan(plan, count)
    assert sum(part.connections for part in parts) == connections
    assert sum(part.rate for part in parts) == pytest.approx(100.0)
    assert len({part.seed for part in parts}) == count


def test_rejects_more_connections_than_open_files(monkeypatch):
    monkeypatch.setattr(measurement.resource, "getrlimit", lambda kind: (100, 1000))
    with pytest.raises(InvalidInputError, match="2000 connections in a process exceed its limit of 1000"):
        measure([target_for(1)], True, [], LoadLevel(concurrency=2000), OPTIONS)
