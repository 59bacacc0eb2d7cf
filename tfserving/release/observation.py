"""Watching the calls of a model after a promotion, by the metrics of its servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tfserving.errors import FailedPreconditionError, TfServingError, UnavailableError
from tfserving.release.server_metrics import CallRates, MetricsReading, compare_readings, read_metrics
from tfserving.release.servers import ServerConnections, ServerProcess
from tfserving.repository.model_names import quote

_POLL_SECONDS = 1.0
# Before so many calls, only the end of the observation judges.
_FEW_CALLS = 20


@dataclass(frozen=True)
class Observation:
    """How long to watch, and what is too bad.

    Attributes:
        seconds: how long.
        max_error_rate: the share of calls that may fail, from 0 to 1; None for any.
        max_p99: the longest 99th percentile of the latency in seconds; None for any.
    """

    seconds: float
    max_error_rate: float | None = None
    max_p99: float | None = None


def check_metrics(connections: ServerConnections) -> None:
    """Check that every server has metrics, before anything is changed.

    Raises:
        FailedPreconditionError: one has none.
    """
    for server in connections.servers:
        try:
            read_metrics(server.rest or "")
        except TfServingError as error:
            raise FailedPreconditionError(
                f"--observe needs the metrics of server {server}: {error}; start it with "
                "MONITORING_CONFIG_FILE=deploy/monitoring/monitoring.config"
            ) from error


def observe(
    connections: ServerConnections,
    model: str,
    version: int,
    observation: Observation,
    report: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Watch the calls of a version on every server; returns at the end if they were good enough.

    A server without metrics by version (tensorflow_model_server) is judged by all calls of the model.

    Raises:
        FailedPreconditionError: on a server, too many calls failed or they took too long.
        UnavailableError: a server does not respond.
    """
    first = {server.address: _read(server) for server in connections.servers}
    end = clock() + observation.seconds
    while True:
        last = clock() >= end
        total = 0.0
        for server in connections.servers:
            rates = _find_rates(compare_readings(first[server.address], _read(server)), model, version)
            if rates is None:
                continue
            calls = rates.calls + rates.rejections
            total += calls
            if last or calls >= _FEW_CALLS:
                _judge(server, model, version, rates, observation)
        if last:
            report(
                f"observed {total:g} calls of {model}" if total else f"note: no call of {model} was observed"
            )
            return
        sleep(min(_POLL_SECONDS, max(0.0, end - clock())))


def _read(server: ServerProcess) -> MetricsReading:
    try:
        return read_metrics(server.rest or "")
    except TfServingError as error:
        raise UnavailableError(f"server {server} does not report metrics any more: {error}") from error


def _find_rates(rates: dict[tuple[str, str], CallRates], model: str, version: int) -> CallRates | None:
    return rates.get((model, str(version))) or rates.get((model, ""))


def _judge(
    server: ServerProcess, model: str, version: int, rates: CallRates, observation: Observation
) -> None:
    limit, longest = observation.max_error_rate, observation.max_p99
    # A version that rejects what callers send is as bad for them as one that fails.
    calls = rates.calls + rates.rejections
    failures = (rates.error_rate or 0.0) * rates.calls + rates.rejections
    what = ""
    if limit is not None and calls and failures / calls > limit:
        what = f"{failures / calls:.2%} of {calls:g} calls failed (limit {limit:.2%})"
    elif longest is not None and rates.p99 is not None and rates.p99 > longest:
        what = (
            f"the p99 of {rates.calls:g} calls was {1000 * rates.p99:.0f} ms (limit {1000 * longest:.0f} ms)"
        )
    if what:
        raise FailedPreconditionError(
            f"server {server}: version {version} of model {quote(model)}: {what}", model=model
        )
