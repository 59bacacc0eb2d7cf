"""The metrics of tensorflow_model_server, and our own by version and signature.

Names, types, labels and buckets of the former are those of TensorFlow Serving 2.20 (servables/tensorflow/
util.cc). Callers cannot create labels: the label of a model that is not configured is "", and so are those of
versions and signatures that do not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tfserving.errors import NotFoundError
from tfserving.server.core.servable_state import ServableStatus, State
from tfserving.server.observability.prometheus_text import (
    HistogramSeries,
    NumberSeries,
    Registry,
    exponential_bounds,
)
from tfserving.server.observability.runtime_metrics import MICROSECONDS, BatchingMetrics, RuntimeMetrics
from tfserving.server.request_context import GRPC, REST, RequestContext

# How many unloaded versions of each model keep their series.
_ENDED_VERSIONS = 10

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# The label API of each method that tensorflow_model_server counts (prediction_service_impl.cc,
# http_server.cc). Over REST it counts the other methods too, with the label "".
_COUNTED = {
    GRPC: {"Predict": "Predict", "Classify": "Classify", "Regress": "Regress"},
    REST: {"Predict": "predict", "Classify": "classify", "Regress": "regress"},
}
# Methods with a runtime latency, over both APIs (predict_util.cc, classifier.cc, regressor.cc).
_TIMED = frozenset({"Predict", "Classify", "Regress"})
_TAKE_EXAMPLES = frozenset({"Classify", "Regress", "MultiInference"})


class Models(Protocol):
    """Models and the states of their versions (`tfserving.server.core.manager.ServableManager`)."""

    def models(self) -> set[str]: ...

    def status(self, model: str) -> list[ServableStatus]: ...


class Metrics:
    """Counts requests as their observer, and holds the metrics that other parts of the server update.

    Attributes:
        runtime: updated by the code that loads and runs models.
        batching: updated by the batching servable.
        unlogged: updated from the access log.
    """

    def __init__(self) -> None:
        self.registry = new = Registry()
        self.runtime = RuntimeMetrics(new)
        self.batching = BatchingMetrics(new)
        new.gauge(
            ":tensorflow:serving:mlmd_map",
            "Versions that have an ML Metadata identifier.",
            "model_name",
            "version",
        )
        self._requests = new.counter(
            ":tensorflow:serving:request_count", "Requests, by outcome.", "model_name", "status"
        )
        self._example_total = new.counter(
            ":tensorflow:serving:request_example_count_total", "tf.Examples in requests.", "model"
        )
        self._examples = new.histogram(
            ":tensorflow:serving:request_example_counts",
            "tf.Examples in each request.",
            "model",
            bounds=exponential_bounds(1, 2, 15),
        )
        self._latency = new.histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request to its response, without failures.",
            "model_name",
            "API",
            "entrypoint",
            bounds=MICROSECONDS,
        )
        # The next one and mlmd_map never have a value here; tensorflow_model_server still lists them.
        new.counter(
            ":tensorflow:serving:request_log_count", "Requests that were logged.", "model_name", "status_code"
        )
        self._run_latency = new.histogram(
            ":tensorflow:serving:runtime_latency",
            "Microseconds that the model ran for a request.",
            "model_name",
            "API",
            "runtime",
            bounds=MICROSECONDS,
        )
        self._own_requests = new.counter(
            "tfserving_requests_total",
            "Requests, by model, version, signature and outcome.",
            *("model_name", "version", "signature", "api", "method", "status"),
        )
        self._own_latency = new.histogram(
            "tfserving_request_latency_seconds",
            "Seconds from a request to its response, without failures.",
            *("model_name", "version", "signature", "api", "method"),
            bounds=_SECONDS,
        )
        in_flight = new.gauge("tfserving_requests_in_flight", "Requests in flight.", "api")
        self._in_flight = {api: in_flight.series(api) for api in (GRPC, REST)}
        self._lock = new.lock
        self._states = new.gauge(
            "tfserving_model_state",
            "1 for the current state of a version, 0 for the others.",
            *("model_name", "version", "state"),
        )
        self.unlogged = new.counter(
            "tfserving_access_log_dropped_total", "Requests that are missing in the access log."
        ).series()
        self._models: Models | None = None
        self._series: dict[tuple[str, int | None, str, str, str, str], _Series] = {}

    def set_models(self, models: Models) -> None:
        """Sets the source of models and states. Without it every model is unknown."""
        self._models = models

    def request_started(self, context: RequestContext) -> None:
        """Counts a request in flight."""
        self._in_flight[context.api].add()

    def request_finished(self, context: RequestContext) -> None:
        """Counts a finished request and its outcome."""
        model = context.requested_spec.name
        kind = (model, context.version, context.signature, context.api, context.method, context.status)
        series = self._series.get(kind) or self._find_series(_Kind(*kind))
        with self._lock:  # once for all of it
            self._in_flight[context.api].value -= 1
            series.record(context)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format. Slow: not for the event loop."""
        self._update_states()
        return self.registry.text()

    def _find_series(self, kind: _Kind) -> _Series:
        if self._models is None or kind.model not in self._models.models():
            # not cached: callers can invent any number of names
            return self._make_series(kind._replace(model=""))
        series = self._series[kind] = self._make_series(kind)
        return series

    def _make_series(self, kind: _Kind) -> _Series:
        version = "" if kind.version is None else str(kind.version)
        own = (kind.model, version, kind.signature, kind.api, kind.method)
        api = _COUNTED[kind.api].get(kind.method, "" if kind.api == REST else None)
        series = _Series(self._own_requests.series(*own, kind.status))
        if api is not None:
            series.requests = self._requests.series(kind.model, kind.status)
        if kind.status != "OK":
            return series
        series.own_latency = self._own_latency.series(*own)
        if api is not None:
            series.latency = self._latency.series(kind.model, api, kind.api)
        if kind.method in _TIMED:
            series.run = self._run_latency.series(kind.model, kind.method, "TF1")
        if kind.method in _TAKE_EXAMPLES:
            series.examples = self._examples.series(kind.model)
            series.example_total = self._example_total.series(kind.model)
        return series

    def _update_states(self) -> None:
        """Updates the states, and drops the series of versions that were unloaded long ago."""
        if self._models is None:
            return
        kept = set()
        for model in self._models.models():
            for status in _kept_versions(self._models, model):
                kept.add((model, str(status.version)))
                for state in State:
                    series = self._states.series(model, str(status.version), state.name)
                    series.set(state is status.state)

        def is_obsolete(labels: Sequence[str]) -> bool:
            return bool(labels[1]) and (labels[0], labels[1]) not in kept

        for family in (self._states, self._own_requests):
            family.remove(is_obsolete)
        self._own_latency.remove(is_obsolete)
        self._series = {
            key: series
            for key, series in self._series.copy().items()
            if key[1] is None or (key[0], str(key[1])) in kept
        }


def _kept_versions(models: Models, model: str) -> list[ServableStatus]:
    """The versions that have not ended, and the newest of those that have."""
    try:
        statuses = models.status(model)
    except NotFoundError:  # configured, but without a version so far
        return []
    ended = [status for status in statuses if status.state is State.END]
    return [status for status in statuses if status.state is not State.END] + ended[:_ENDED_VERSIONS]


class _Kind(NamedTuple):
    """What requests that update the same series have in common. It equals a plain tuple, which is faster."""

    model: str
    version: int | None
    signature: str
    api: str
    method: str
    status: str


@dataclass
class _Series:
    """The series that a kind of request updates; None for those that it does not."""

    own_requests: NumberSeries
    requests: NumberSeries | None = None
    own_latency: HistogramSeries | None = None
    latency: HistogramSeries | None = None
    run: HistogramSeries | None = None
    examples: HistogramSeries | None = None
    example_total: NumberSeries | None = None

    def record(self, context: RequestContext) -> None:
        """Counts a request; the caller holds the registry's lock."""
        self.own_requests.value += 1
        if self.requests is not None:
            self.requests.value += 1
        if self.own_latency is not None:
            self.own_latency.count(context.seconds)
        if self.latency is not None:
            self.latency.count(_to_microseconds(context.seconds))
        if self.run is not None and context.run_seconds is not None:
            self.run.count(_to_microseconds(context.run_seconds))
        if self.examples is not None and self.example_total is not None:
            self.examples.count(context.examples)
            self.example_total.value += context.examples


def _to_microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
