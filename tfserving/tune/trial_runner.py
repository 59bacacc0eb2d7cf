"""Measures settings: starts a server, warms it up, sends the load, and stops it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from tfserving.bench.measurement import LevelResult, LoadLevel, MeasurementOptions, measure
from tfserving.bench.targets import resolve_targets
from tfserving.bench.workload import Workload, WorkloadRequest
from tfserving.client.options import Retry
from tfserving.client.rest_client import TfRestClient
from tfserving.client.rpc_client import TfRpcClient
from tfserving.errors import DeadlineError, FailedPreconditionError, TfServingError
from tfserving.tune.engines import RunningServer, TuningEngine, wait_for
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trials import Trial
from tfserving.wire.dtypes import Arrays

# Seconds for a request.
_TIMEOUT = 60.0
# Load before a measurement, as a share of its length, and in seconds at least.
WARMUP_SHARE, _WARMUP_LEAST = 0.25, 0.5


class TrialRunner:
    """Measures settings of a model with always the same load.

    Args:
        engine: starts the servers.
        model, version: the model, and the version that the servers must serve.
        workload: the requests.
        is_grpc: whether they are for gRPC instead of REST.
        concurrency: callers.
        start_timeout: seconds until the model must be available.
    """

    def __init__(
        self,
        engine: TuningEngine,
        model: str,
        version: int,
        workload: Workload,
        *,
        is_grpc: bool,
        concurrency: int,
        start_timeout: float,
    ) -> None:
        self._engine = engine
        self._model = model
        self._version = version
        self._workload = workload
        self._is_grpc = is_grpc
        self._level = LoadLevel(concurrency=concurrency)
        self._start_timeout = start_timeout

    def run(
        self,
        settings: ServerSettings,
        phase: str,
        number: int,
        seconds: float,
        on_phase: Callable[[str], None] = lambda text: None,
    ) -> Trial:
        """Measure settings for some seconds; a server that does not start or respond is a failed trial.

        Args:
            settings, phase, number, seconds: see `Trial`.
            on_phase: called with what is being done.

        Raises:
            VersionChangedError: another version has appeared.
        """
        began = time.monotonic()
        on_phase("starting")
        try:
            with self._engine.start(settings) as server:
                self._wait(server, settings)
                on_phase("measuring")
                result = self._measure(server, seconds)
        except VersionChangedError:
            raise
        except TfServingError as error:
            return Trial(settings, phase, number, seconds, time.monotonic() - began, failure=str(error))
        took = time.monotonic() - began
        if result.refused or not len(result.latencies):
            failure = result.refused or "no request succeeded"
            return Trial(settings, phase, number, seconds, took, failure=failure)
        interval = result.p99_interval
        return Trial(
            settings,
            phase,
            number,
            seconds,
            took,
            errors=dict(result.errors),
            requests=result.requests,
            rate=result.rate,
            p50=result.quantile(0.5),
            p99=result.quantile(0.99),
            p99_interval=None if interval is None else (interval.low, interval.high),
        )

    def _wait(self, server: RunningServer, settings: ServerSettings) -> None:
        """Wait until the model is available, and send a request of each batch size."""
        client_class = TfRpcClient if self._is_grpc else TfRestClient
        address = server.grpc if self._is_grpc else server.rest
        with client_class(
            address, self._model, timeout=_TIMEOUT, retry=Retry(attempts=1), proxy=None
        ) as client:
            for left in wait_for(server, self._start_timeout):
                try:
                    client.wait_until_available(min(1.0, left))
                    break
                except DeadlineError:
                    continue
            if (version := client.resolve_version()) != self._version:
                raise VersionChangedError(
                    f"version {version} of {self._model} has appeared since the tuning of version "
                    f"{self._version} began; pass another --out directory to tune it"
                )
            request = self._workload.requests[0]
            batches = [request.inputs]
            if settings.batching is not None:
                batches = [repeat_rows(request.inputs, n) for n in settings.batching.allowed_batch_sizes]
            for inputs in batches:
                client.infer(inputs, signature=request.signature or None)

    def _measure(self, server: RunningServer, seconds: float) -> LevelResult:
        options = MeasurementOptions(
            warmup=max(_WARMUP_LEAST, WARMUP_SHARE * seconds),
            duration=seconds,
            # for all of its time: a short measurement of a fast server would be less exact
            precision=1e-9,
            timeout=_TIMEOUT,
        )
        address = server.grpc if self._is_grpc else server.rest
        targets = resolve_targets(address, is_grpc=self._is_grpc, tls=None, headers=())
        requests = [(request.path, request.body) for request in self._workload.requests]
        result = measure(targets, self._is_grpc, requests, self._level, options)
        if result.refused:
            # Another program may have been busy for a moment.
            result = measure(targets, self._is_grpc, requests, self._level, options)
        return result


class VersionChangedError(FailedPreconditionError):
    """The servers serve another version than the one that is tuned."""


def repeat_rows(inputs: Arrays, rows: int) -> Arrays:
    """Arrays with so many rows, which are those of the inputs in turn."""
    return {name: array[np.arange(rows) % len(array)] for name, array in inputs.items()}


def warmup_inputs(request: WorkloadRequest, sizes: tuple[int, ...]) -> list[Arrays]:
    """The inputs of warmup records: one for each batch size; those of the request without sizes."""
    return [repeat_rows(request.inputs, size) for size in sizes] or [dict(request.inputs)]
