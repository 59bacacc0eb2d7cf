"""Calls, errors and latencies from the metrics of a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tfserving.errors import NotFoundError, ProtocolError, UnavailableError
from tfserving.release.server_metrics import (
    MetricsReading,
    compare_readings,
    find_metrics,
    find_quantile,
    parse_counts,
    read_metrics,
)
from tfserving.wire.services import METRICS_PATH

# As tensorflow_model_server writes them.
REAL = r"""
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="a",status="OK"} 90
:tensorflow:serving:request_count{model_name="a",status="INTERNAL"} 4
:tensorflow:serving:request_count{model_name="a",status="UNAVAILABLE"} 1
:tensorflow:serving:request_count{model_name="a",status="INVALID_ARGUMENT"} 50
# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_bucket{model_name="a",API="Predict",entrypoint="GRPC",le="1000"} 10
:tensorflow:serving:request_latency_bucket{model_name="a",API="Predict",entrypoint="GRPC",le="2000"} 50
:tensorflow:serving:request_latency_bucket{model_name="a",API="Predict",entrypoint="GRPC",le="+Inf"} 50
:tensorflow:serving:request_latency_bucket{model_name="a",API="predict",entrypoint="REST",le="1000"} 0
:tensorflow:serving:request_latency_bucket{model_name="a",API="predict",entrypoint="REST",le="2000"} 20
:tensorflow:serving:request_latency_bucket{model_name="a",API="predict",entrypoint="REST",le="+Inf"} 40
:tensorflow:serving:request_latency_bucket{model_name="a",API="",entrypoint="REST",le="+Inf"} 1000
:tensorflow:serving:request_latency_sum{model_name="a",API="Predict",entrypoint="GRPC"} 7
"""
# What the embedded server has besides.
EMBEDDED = "".join(
    f'tfserving_{name}{{model_name="a",version="{version}",signature="s",api="rest",method="{method}",'
    f'{label}="{value}"}} {count}\n'
    for name, version, method, label, value, count in (
        ("requests_total", "3", "Predict", "status", "OK", 5),
        ("requests_total", "3", "Predict", "status", "UNKNOWN", 2),
        ("requests_total", "3", "GetModelStatus", "status", "UNKNOWN", 9),
        ("requests_total", "", "Predict", "status", "UNAVAILABLE", 9),
        ("request_latency_seconds_bucket", "3", "Predict", "le", "0.5", 5),
        ("request_latency_seconds_bucket", "3", "Predict", "le", "+Inf", 5),
        ("request_latency_seconds_bucket", "3", "GetModelMetadata", "le", "+Inf", 8),
    )
)


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, str]]]:
    """The address of an HTTP server, and its pages by path."""
    pages: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write((page or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{http.server_port}", pages
    http.shutdown()
    thread.join()
    http.server_close()


def test_counts_calls_of_both_apis_and_failures_of_the_server() -> None:
    counts = parse_counts(REAL)
    assert list(counts) == [("a", "")]
    assert (counts["a", ""].errors, counts["a", ""].successes) == (5, 90)


def test_counts_inference_by_version_where_the_server_does() -> None:
    counts = parse_counts(REAL + EMBEDDED)
    assert list(counts) == [("a", ""), ("a", "3")]
    assert (counts["a", ""].errors, counts["a", "3"].errors, counts["a", "3"].successes) == (5, 2, 5)


def test_computes_rates_between_two_readings() -> None:
    after = MetricsReading(12.0, parse_counts(REAL))
    rates = compare_readings(MetricsReading(2.0, {}), after)["a", ""]
    assert (rates.calls, rates.calls_per_second) == (95, 9.5)
    assert rates.error_rate == pytest.approx(5 / 95)
    # 45 of 90 calls: 10 took up to 1 ms, 60 more up to 2 ms; the last 20 are in the bucket without a bound.
    assert rates.p50 == pytest.approx(0.001 + 0.001 * 35 / 60)
    assert rates.p99 == pytest.approx(0.002)
    rates = compare_readings(after, MetricsReading(22.0, after.counts))["a", ""]
    assert (rates.calls, rates.error_rate, rates.p50, rates.p99) == (0, None, None, None)


def test_counts_from_zero_after_a_restart() -> None:
    many = parse_counts(REAL.replace('le="+Inf"} 50', 'le="+Inf"} 5000'))
    rates = compare_readings(MetricsReading(0.0, many), MetricsReading(1.0, parse_counts(REAL)))["a", ""]
    assert rates.calls == 95


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [({}, None), ({float("inf"): 0.0}, None), ({1.0: 4.0, float("inf"): 4.0}, 0.5)],
)
def test_interpolates_quantiles(buckets: dict[float, float], expected: float | None) -> None:
    assert find_quantile(buckets, 0.5) == expected


def test_reads_names_with_quotes_and_braces() -> None:
    line = r':tensorflow:serving:request_count{model_name="a}\"\\b",status="INTERNAL"} 2 1700000000000'
    assert parse_counts(line)['a}"\\b', ""].errors == 2


def test_rejects_what_is_not_text_of_prometheus() -> None:
    with pytest.raises(ProtocolError, match="is not a line of metrics"):
        parse_counts(":tensorflow:serving:request_count{model_name=")


def test_reads_the_metrics_of_a_server(server: tuple[str, dict[str, str]]) -> None:
    address, pages = server
    with pytest.raises(
        NotFoundError, match="returned HTTP status 404; metrics need --monitoring_config_file"
    ):
        read_metrics(address)
    assert find_metrics(address) is None
    assert find_metrics(None) is None
    pages[METRICS_PATH] = REAL
    assert read_metrics(address, clock=lambda: 3.0) == MetricsReading(3.0, parse_counts(REAL))


def test_reports_a_server_that_does_not_respond() -> None:
    with pytest.raises(UnavailableError, match=r"cannot read http://127\.0\.0\.1:1/monitoring/"):
        read_metrics("127.0.0.1:1", timeout=1)
