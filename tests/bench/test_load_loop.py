"""Closed and open loops."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from tests.bench.loops import TIMEOUT, count_is, plan_for, run_loop
from tests.bench.test_grpc_connection import request_for
from tfserving.bench.load_loop import _arrivals


def meet(service, number: int):
    """Let each request of the service wait until there are `number` of them; return what ends that."""
    gate = threading.Barrier(number)

    def wait(method: str) -> None:
        gate.wait(TIMEOUT)

    service.before = wait
    return gate.abort


def test_a_closed_loop_has_one_request_in_flight_for_each_caller(rpc_server, service):
    abort = meet(service, 4)
    plan = plan_for(rpc_server.port, [request_for()], is_grpc=True, connections=4)
    reports = run_loop(plan, lambda reports: len(reports.samples) >= 20 and abort() is None)
    assert {report.connections for report in reports} == {4}
    assert reports.outcomes[""] >= 20
    due, noticed, end, _ = reports.samples.T
    assert (due == noticed).all()
    assert (end > due).all()


def test_an_open_loop_counts_latency_from_the_intended_time(rpc_server, service):
    """While the server stalls, requests are due and wait."""
    stalled = threading.Event()
    released = threading.Event()
    numbers = itertools.count()

    def stall(method: str) -> None:
        if next(numbers) >= 20:
            stalled.set()
            released.wait(10)

    service.before = stall
    threading.Thread(target=lambda: stalled.wait(10) and (released.wait(0.5), released.set())).start()
    plan = plan_for(rpc_server.port, [request_for()], is_grpc=True, rate=100.0, connections=2)
    due, _, end, _ = run_loop(plan, count_is(60)).samples.T
    assert ((end - due) > 0.1).sum() >= 30  # of the 50 requests that were due in half a second
    due.sort()
    assert np.diff(due) == pytest.approx(0.01)


def test_an_open_loop_opens_connections_when_none_is_idle(rpc_server, service):
    abort = meet(service, 3)
    plan = plan_for(rpc_server.port, [request_for()], is_grpc=True, rate=200.0, connections=3)
    reports = run_loop(plan, lambda reports: len(reports.samples) >= 9 and abort() is None)
    assert max(report.connections for report in reports) == 3


@pytest.mark.parametrize("is_poisson", [True, False])
def test_arrivals_have_the_given_rate(is_poisson):
    times = np.array(list(itertools.islice(_arrivals(5.0, 100.0, is_poisson, seed=1), 20_000)))
    pauses = np.diff(times, prepend=5.0)
    assert pauses.mean() == pytest.approx(0.01, rel=0.03)
    assert pauses.std() == pytest.approx(0.01 if is_poisson else 0.0, rel=0.03, abs=1e-9)
