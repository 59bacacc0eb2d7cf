"""Results as a table, as JSON and as HTML."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.bench.test_measurement import USAGE, result_with
from tfserving.bench.html_report import as_html
from tfserving.bench.load_results import LoadResults, as_json, as_table, format_seconds
from tfserving.bench.measurement import LoadLevel, MeasurementOptions

REFUSED = result_with(level=LoadLevel(rate=400.0), refused="the load generator was busy")
FAILING = result_with(
    level=LoadLevel(rate=100.0),
    errors={"UNAVAILABLE: <gone>": 10},
    failed=np.linspace(2.0, 3.0, 10),
    notes=("10 of 1000 requests failed",),
)


def results_with(*levels) -> LoadResults:
    options = MeasurementOptions()
    return LoadResults("127.0.0.1:8500", "gRPC", "half", "1 request of 29 bytes", options, levels)


def test_the_table_has_a_row_for_each_level():
    lines = as_table(results_with(result_with(), FAILING, REFUSED)).splitlines()
    assert lines[0] == "half at 127.0.0.1:8500 (gRPC)"
    rows = {line.split("  ")[0]: line.split() for line in lines[4:7]}
    assert rows["concurrency 1"][2:9] == ["100", "±1%", "10.0", "ms", "10.0", "ms", "10.0"]
    assert rows["rate 100"][-4:] == ["10", "(1.0%)", "10%", "busy"]
    assert rows["rate 400"] == ["rate", "400", "refused"]
    assert lines[8:] == [
        "rate 100: 10 of 1000 requests failed",
        "rate 400: the load generator was busy",
    ]


def test_json_has_no_figures_of_a_refused_level():
    first, refused = json.loads(json.dumps(as_json(results_with(result_with(), REFUSED))))["levels"]
    assert first["latency"]["p99"] == 0.01
    assert first["latency"]["p99_interval"] == [0.0099, 0.0101]
    assert first["generator"]["busy"] == USAGE.busy
    assert refused["refused"] == "the load generator was busy"
    assert not refused.keys() & {"rate", "latency", "errors", "requests"}


def test_json_of_a_level_without_responses_is_valid():
    level = result_with(latencies=np.empty(0), p99_interval=None, rate=0.0, rate_interval=None)
    text = json.dumps(as_json(results_with(level)), allow_nan=False)
    assert json.loads(text)["levels"][0]["latency"]["p99"] is None
    assert "–" in as_table(results_with(level))


def test_html_is_one_file_that_needs_no_network():
    text = as_html(results_with(result_with(), FAILING, REFUSED))
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Latency distribution",
        "Throughput and p99",
        "Errors over time",
    ]
    assert text.count("<svg") == 3
    assert not re.search(r"<script|<link|<img|@import", text)
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "://" not in without_namespaces
    assert len(text) < 200_000
    names = re.findall(r'id="([^"]+)"', text)
    assert len(names) == len(set(names))
    for name in re.findall(r"url\(#([^)]+)\)", text):
        assert name in names


def test_html_escapes_what_the_server_sent():
    assert "<gone>" not in as_html(results_with(FAILING))


def test_html_of_refused_levels_has_no_charts():
    assert "<svg" not in as_html(results_with(REFUSED))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.0, "12.0 s"), (0.25, "250 ms"), (0.0012345, "1.23 ms"), (2.5e-5, "25.0 µs"), (float("nan"), "–")],
)
def test_times_have_three_digits(seconds, text):
    assert format_seconds(seconds) == text
