"""Calls, errors and latencies of a server's models, from the metrics that both engines have.

Names, labels and meaning are those of deploy/monitoring/prometheus/serving.rules.yml.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tfserving.errors import NotFoundError, ProtocolError, TfServingError, UnavailableError
from tfserving.wire.services import METRICS_PATH

_LATENCY = ":tensorflow:serving:request_latency"
_COUNT = ":tensorflow:serving:request_count"
_VERSION_LATENCY = "tfserving_request_latency_seconds"
_VERSION_COUNT = "tfserving_requests_total"

# Failures of the server; other statuses, such as INVALID_ARGUMENT, are errors of the caller.
_SERVER_ERRORS = frozenset(
    {
        *("ABORTED", "DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"),
        *("UNIMPLEMENTED", "UNKNOWN"),
    }
)
_INFERENCE = frozenset(("Predict", "Classify", "Regress", "MultiInference"))

_LINE = re.compile(r'([^\s{]+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+(\S+)(?:\s+\S+)?')
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass
class CallCounts:
    """Totals since a server started: failures, and successful calls by the upper bound of their latency.

    Attributes:
        errors: calls that failed on the server's side.
        rejections: calls that failed on the caller's side, such as with names that the signature lacks.
        buckets: cumulative number of successful calls by the upper bound of their latency in seconds.
    """

    errors: float = 0.0
    rejections: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)

    @property
    def successes(self) -> float:
        return self.buckets.get(math.inf, 0.0)


@dataclass(frozen=True)
class CallRates:
    """Calls between two readings.

    Attributes:
        calls: number of calls, also failed ones.
        calls_per_second: see `calls`.
        error_rate: the share of calls that failed, from 0 to 1; None without a call.
        p50, p99: latencies in seconds; None without a successful call. They are interpolated within a bucket,
            as Prometheus does.
        rejections: number of calls that failed on the caller's side, which `calls` does not contain.
    """

    calls: float
    calls_per_second: float
    error_rate: float | None
    p50: float | None
    p99: float | None
    rejections: float = 0.0


@dataclass(frozen=True)
class MetricsReading:
    """The totals of a server at one moment, by model and version; version "" is the model as a whole.

    tensorflow_model_server has no metrics by version.
    """

    time: float
    counts: Mapping[tuple[str, str], CallCounts]


def read_metrics(
    rest_address: str,
    *,
    path: str = METRICS_PATH,
    timeout: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> MetricsReading:
    """Read the metrics of a server.

    Args:
        rest_address: host:port of its REST API.
        path: the path of the metrics, from its monitoring config.
        timeout: seconds for the request.

    Raises:
        NotFoundError: the server serves no metrics at this path; they need --monitoring_config_file.
        UnavailableError: it does not respond.
        ProtocolError: the response is not text of Prometheus.
    """
    import requests

    url = f"http://{rest_address}{path}"
    try:
        with requests.Session() as session:
            session.trust_env = False  # proxies are for other hosts
            response = session.get(url, timeout=timeout)
    except requests.RequestException as error:
        raise UnavailableError(f"cannot read {url}: {error}", address=rest_address) from error
    if response.status_code != 200:
        raise NotFoundError(
            f"{url} returned HTTP status {response.status_code}; metrics need --monitoring_config_file",
            address=rest_address,
        )
    return MetricsReading(clock(), parse_counts(response.text))


def find_metrics(rest_address: str | None, *, timeout: float = 5.0) -> MetricsReading | None:
    """The metrics of a server; None if it has none or does not respond."""
    if rest_address is None:
        return None
    try:
        return read_metrics(rest_address, timeout=timeout)
    except TfServingError:
        return None


def parse_counts(text: str) -> dict[tuple[str, str], CallCounts]:
    """The totals in the Prometheus text format, by model and version.

    Raises:
        ProtocolError: the text is not in this format.
    """
    counts: dict[tuple[str, str], CallCounts] = {}
    for name, labels, value in _samples(text):
        model, version = labels.get("model_name", ""), labels.get("version", "")
        by_version = name.startswith((_VERSION_LATENCY, _VERSION_COUNT))
        if not model or (by_version and not version):  # calls of models and versions that do not exist
            continue
        at = counts.setdefault((model, version), CallCounts())
        if name in (_COUNT, _VERSION_COUNT):
            if labels.get("status") == "OK" or (by_version and labels.get("method") not in _INFERENCE):
                continue
            if labels.get("status") in _SERVER_ERRORS:
                at.errors += value
            else:
                at.rejections += value
        elif by_version:
            if labels.get("method") in _INFERENCE:
                _add_bucket(at, labels["le"], value)
        elif labels.get("API"):  # "": status requests over REST, such as health checks
            _add_bucket(at, labels["le"], value, scale=1e-6)
    return counts


def compare_readings(before: MetricsReading, after: MetricsReading) -> dict[tuple[str, str], CallRates]:
    """The calls between two readings, by model and version."""
    seconds = max(after.time - before.time, 1e-9)
    nothing = CallCounts()
    return {
        key: _compare_counts(before.counts.get(key, nothing), counts, seconds)
        for key, counts in after.counts.items()
    }


def _compare_counts(before: CallCounts, after: CallCounts, seconds: float) -> CallRates:
    if any(getattr(after, name) < getattr(before, name) for name in ("successes", "errors", "rejections")):
        before = CallCounts()  # the server was restarted
    errors = after.errors - before.errors
    buckets = {
        bound: count - before.buckets.get(bound, 0.0) for bound, count in sorted(after.buckets.items())
    }
    calls = errors + buckets.get(math.inf, 0.0)
    return CallRates(
        calls,
        calls / seconds,
        errors / calls if calls else None,
        find_quantile(buckets, 0.5),
        find_quantile(buckets, 0.99),
        after.rejections - before.rejections,
    )


def find_quantile(buckets: Mapping[float, float], quantile: float) -> float | None:
    """A quantile of a histogram of cumulative counts by upper bound; None if it is empty.

    Within a bucket, values count as evenly spread. In the last one, which has no bound, the result is the
    bound of the one before.
    """
    total = buckets.get(math.inf, 0.0)
    if total <= 0:
        return None
    rank = quantile * total
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def _add_bucket(counts: CallCounts, bound: str, value: float, scale: float = 1.0) -> None:
    upper = float(bound) * scale  # float("+Inf") is infinity
    counts.buckets[upper] = counts.buckets.get(upper, 0.0) + value


def _samples(text: str) -> Iterable[tuple[str, dict[str, str], float]]:
    """The samples of the metrics that are used here: name, labels, value."""
    used = (_COUNT, _VERSION_COUNT, f"{_LATENCY}_bucket", f"{_VERSION_LATENCY}_bucket")
    for line in text.splitlines():
        if not line.startswith(used):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ProtocolError(f"{line[:80]!r} is not a line of metrics in the Prometheus text format")
        if match[1] in used:
            labels = {name: _unescape(value) for name, value in _LABEL.findall(match[2] or "")}
            yield match[1], labels, float(match[3])


def _unescape(value: str) -> str:
    return re.sub(r'\\[\\"n]', lambda found: _ESCAPES[found[0]], value)
