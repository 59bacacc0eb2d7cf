"""The metrics of tensorflow_model_server, and those that its users miss.

Names, types, labels and buckets of the first are those of TensorFlow Serving 2.20 (servables/tensorflow/
util.cc). Callers can bring no label into the world: a model that is not served counts as "", and versions and
signatures count once they are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tfserving.errors import NotFoundError
from tfserving.server.core.servable_state import State, VersionStatus
from tfserving.server.observability.call_context import GRPC, REST, Call
from tfserving.server.observability.prometheus_text import Distribution, Number, Registry, exponential
from tfserving.server.observability.runtime_metrics import BatchingMetrics, RuntimeMetrics

# Those that are listed as the real server lists them, but never get a value here.
NEVER_SET = frozenset({":tensorflow:serving:mlmd_map", ":tensorflow:serving:request_log_count"})

# Versions out of service, of each model, whose series are kept.
_ENDED_VERSIONS = 10

_MICROSECONDS = exponential(10, 1.8, 33)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# The label API of each method that the real server counts (prediction_service_impl.cc, http_server.cc); over
# REST it counts all others too, as "".
_COUNTED = {
    GRPC: {"Predict": "Predict", "Classify": "Classify", "Regress": "Regress"},
    REST: {"Predict": "predict", "Classify": "classify", "Regress": "regress"},
}
# Methods whose runs it times, whatever the API (predict_util.cc, classifier.cc, regressor.cc).
_TIMED = frozenset({"Predict", "Classify", "Regress"})
_TAKE_EXAMPLES = frozenset({"Classify", "Regress", "MultiInference"})


class Models(Protocol):
    """What there is to know of the models (`tfserving.server.core.manager.Manager`)."""

    def models(self) -> set[str]: ...

    def status(self, model: str) -> list[VersionStatus]: ...


class Metrics:
    """Counts calls, as an observer of them, and has the metrics that others count.

    Attributes:
        runtime: for who loads and runs models.
        batching: for who joins calls.
        unlogged: for who writes the access log.
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
            bounds=exponential(1, 2, 15),
        )
        self._latency = new.histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request to its answer; failures are left out.",
            "model_name",
            "API",
            "entrypoint",
            bounds=_MICROSECONDS,
        )
        new.counter(
            ":tensorflow:serving:request_log_count", "Requests that were logged.", "model_name", "status_code"
        )
        self._run_latency = new.histogram(
            ":tensorflow:serving:runtime_latency",
            "Microseconds for which a request had the model run.",
            "model_name",
            "API",
            "runtime",
            bounds=_MICROSECONDS,
        )
        self._own_requests = new.counter(
            "tfserving_requests_total",
            "Requests, by outcome and by what answered.",
            *("model_name", "version", "signature", "api", "method", "status"),
        )
        self._own_latency = new.histogram(
            "tfserving_request_latency_seconds",
            "Seconds from a request to its answer; failures are left out.",
            *("model_name", "version", "signature", "api", "method"),
            bounds=_SECONDS,
        )
        in_flight = new.gauge("tfserving_requests_in_flight", "Requests that are being answered.", "api")
        self._in_flight = {api: in_flight.series(api) for api in (GRPC, REST)}
        self._lock = new.lock
        self._states = new.gauge(
            "tfserving_model_state",
            "1 for the state that a version is in, 0 for the others.",
            *("model_name", "version", "state"),
        )
        self.unlogged = new.counter(
            "tfserving_access_log_dropped_total", "Calls that the access log could not write."
        ).series()
        self._models: Models | None = None
        self._outcomes: dict[_Key, _Outcome] = {}

    def watch(self, models: Models) -> None:
        """Says which models there are. Until then every model is unknown."""
        self._models = models

    def began(self, call: Call) -> None:
        """Counts a call in."""
        self._in_flight[call.api].add()

    def ended(self, call: Call) -> None:
        """Counts a call out, and how it went."""
        kind = (call.asked.name, call.version, call.signature, call.api, call.method, call.status)
        outcome = self._outcomes.get(kind) or self._outcome(_Kind(*kind))
        with self._lock:  # once for all of it
            self._in_flight[call.api].value -= 1
            outcome.record(call)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format. Takes a moment: not for the event loop."""
        self._look_at_models()
        return self.registry.text()

    def _outcome(self, kind: _Kind) -> _Outcome:
        if self._models is None or kind.model not in self._models.models():
            # nothing is kept of it: callers can invent names without end
            return self._made(kind._replace(model=""))
        outcome = self._outcomes[kind] = self._made(kind)
        return outcome

    def _made(self, kind: _Kind) -> _Outcome:
        version = "" if kind.version is None else str(kind.version)
        own = (kind.model, version, kind.signature, kind.api, kind.method)
        api = _COUNTED[kind.api].get(kind.method, "" if kind.api == REST else None)
        outcome = _Outcome(self._own_requests.series(*own, kind.status))
        if api is not None:
            outcome.requests = self._requests.series(kind.model, kind.status)
        if kind.status != "OK":
            return outcome
        outcome.own_latency = self._own_latency.series(*own)
        if api is not None:
            outcome.latency = self._latency.series(kind.model, api, kind.api)
        if kind.method in _TIMED:
            outcome.run = self._run_latency.series(kind.model, kind.method, "TF1")
        if kind.method in _TAKE_EXAMPLES:
            outcome.examples = self._examples.series(kind.model)
            outcome.example_total = self._example_total.series(kind.model)
        return outcome

    def _look_at_models(self) -> None:
        """Sets the states, and drops what there is of versions that ended long ago."""
        if self._models is None:
            return
        shown = set()
        for model in self._models.models():
            for status in _shown(self._models, model):
                shown.add((model, str(status.version)))
                for state in State:
                    series = self._states.series(model, str(status.version), state.name)
                    series.set(state is status.state)

        def gone(labels: Sequence[str]) -> bool:
            return bool(labels[1]) and (labels[0], labels[1]) not in shown

        for family in (self._states, self._own_requests):
            family.forget(gone)
        self._own_latency.forget(gone)
        self._outcomes = {
            key: outcome
            for key, outcome in self._outcomes.copy().items()
            if key[1] is None or (key[0], str(key[1])) in shown
        }


def _shown(models: Models, model: str) -> list[VersionStatus]:
    """The versions that are about, and the newest of those that are not."""
    try:
        statuses = models.status(model)
    except NotFoundError:  # named by a configuration, but without a version so far
        return []
    ended = [status for status in statuses if status.state is State.END]
    return [status for status in statuses if status.state is not State.END] + ended[:_ENDED_VERSIONS]


_Key = tuple[str, int | None, str, str, str, str]


class _Kind(NamedTuple):
    """What calls that count alike have in common. A plain tuple is equal to it, and made quicker."""

    model: str
    version: int | None
    signature: str
    api: str
    method: str
    status: str


@dataclass
class _Outcome:
    """The series in which a kind of call counts, found once; None for those in which it does not."""

    own_requests: Number
    requests: Number | None = None
    own_latency: Distribution | None = None
    latency: Distribution | None = None
    run: Distribution | None = None
    examples: Distribution | None = None
    example_total: Number | None = None

    def record(self, call: Call) -> None:
        """Counts a call, under the lock."""
        self.own_requests.value += 1
        if self.requests is not None:
            self.requests.value += 1
        if self.own_latency is not None:
            self.own_latency.count(call.seconds)
        if self.latency is not None:
            self.latency.count(_microseconds(call.seconds))
        if self.run is not None and call.run_seconds is not None:
            self.run.count(_microseconds(call.run_seconds))
        if self.examples is not None and self.example_total is not None:
            self.examples.count(call.examples)
            self.example_total.value += call.examples


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
