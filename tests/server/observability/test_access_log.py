import json
import logging
import os
import re
import threading

import pytest

from tests.server.apis import examples, predict_request, serve
from tfserving.errors import ConfigError, NotFoundError
from tfserving.server.observability.access_log import AccessLog
from tfserving.server.observability.observability import Observability
from tfserving.server.request_context import GRPC, REST, RequestContext
from tfserving.server.server_options import ObservabilityOptions
from tfserving.wire import messages, services
from tfserving.wire.model_spec import ModelSpec


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


@pytest.fixture
def access_log(path):
    log = AccessLog(str(path), clock=lambda: 1_700_000_000.5)
    yield log
    log.close()


def call(access_log, name="m", error=None, **spec):
    """Logs one request."""
    try:
        with RequestContext(GRPC, "Predict", peer="ipv4:10.0.0.1:5000", observers=[access_log]) as context:
            context.requested_spec = ModelSpec(name, **spec)
            if error:
                raise error
    except NotFoundError:
        pass


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_logs_the_requests_of_both_apis(in_loop, path):
    observability = Observability(ObservabilityOptions(access_log=str(path)))
    request = predict_request()
    with serve(in_loop, observability.observers) as apis:
        reply = apis.call(services.PREDICT, request)
        assert apis.rest.send("GET", "/v1/models/m").status == 200
        assert apis.rest.predict({"instances": ["a"], "signature_name": "serving_default"}).status == 400
        classify = messages.ClassificationRequest(model_spec={"name": "m", "signature_name": "classify"})
        classify.input.CopyFrom(examples(1.0))
        assert apis.call(services.CLASSIFY, classify)
        assert apis.call(services.PREDICT, predict_request("unknown", version=5)) is None
        assert apis.rest.send("GET", "/elsewhere").status == 404
    observability.close()
    written = entries(path)
    assert [(entry["api"], entry["method"], entry["status"]) for entry in written] == [
        ("GRPC", "Predict", "OK"),
        ("REST", "GetModelStatus", "OK"),
        ("REST", "Predict", "INVALID_ARGUMENT"),
        ("GRPC", "Classify", "OK"),
        ("GRPC", "Predict", "NOT_FOUND"),
        ("REST", None, "NOT_FOUND"),
    ]
    assert [(entry["model"], entry["version"], entry["signature"]) for entry in written] == [
        ("m", 3, "serving_default"),
        ("m", None, None),
        ("m", 3, "serving_default"),
        ("m", 3, "classify"),
        ("unknown", 5, None),
        (None, None, None),
    ]
    first = written[0]
    assert list(first) == [
        *("time", "api", "method", "model", "version", "signature", "status"),
        *("latency_ms", "request_bytes", "response_bytes", "peer"),
    ]
    assert (first["request_bytes"], first["response_bytes"]) == (len(request), len(reply))
    assert first["latency_ms"] > 0
    assert {entry["peer"] for entry in written} == {"127.0.0.1"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])


def test_the_time_is_that_of_the_request_in_utc(access_log, path):
    with RequestContext(REST, observers=[access_log]) as context:
        context.started -= 10
    access_log.close()
    (entry,) = entries(path)
    assert entry["time"].startswith("2023-11-14T22:13:10.")
    assert entry["latency_ms"] >= 10_000


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("unix:/run/tfserving.sock", "unix:/run/tfserving.sock"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("", None),
    ],
)
def test_a_peer_is_logged_without_its_port(access_log, path, peer, address):
    with RequestContext(GRPC, "Predict", peer=peer, observers=[access_log]):
        pass
    access_log.close()
    assert entries(path)[0]["peer"] == address


@pytest.mark.parametrize("name", ['"}\n{"status":"OK', "\ud800", "日本", "x" * 10_000, "\x00"])
def test_names_from_requests_cannot_break_a_line(access_log, path, name):
    call(access_log, name, signature=name)
    access_log.close()
    (entry,) = entries(path)
    assert entry["model"] == entry["signature"] == name[:256]


def test_appends_to_an_existing_file(access_log, path):
    call(access_log)
    access_log.close()
    again = AccessLog(str(path))
    call(again)
    again.close()
    assert len(entries(path)) == 2


def test_reopens_a_file_that_was_renamed_or_deleted(access_log, path, eventually):
    call(access_log, "before")
    eventually(lambda: path.read_bytes())
    moved = path.with_suffix(".1")
    path.rename(moved)
    call(access_log, "after")
    eventually(lambda: path.exists() and path.read_bytes())
    path.unlink()
    call(access_log, "last")
    access_log.close()
    assert [entry["model"] for entry in entries(moved)] == ["before"]
    assert [entry["model"] for entry in entries(path)] == ["last"]


def test_continues_at_the_start_of_a_truncated_file(access_log, path, eventually):
    call(access_log, "before")
    eventually(lambda: path.read_bytes())
    os.truncate(path, 0)
    call(access_log, "after")
    access_log.close()
    assert [entry["model"] for entry in entries(path)] == ["after"]


def test_writes_to_standard_output(capfd):
    log = AccessLog("-")
    call(log)
    log.close()
    assert json.loads(capfd.readouterr().out)["model"] == "m"


def test_a_slow_disk_blocks_no_request_and_dropped_lines_are_reported(path, monkeypatch):
    gate, writing = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor, data):
        writing.set()
        assert gate.wait(30)
        return write(descriptor, data)

    log = AccessLog(str(path), max_queued=3)
    monkeypatch.setattr(os, "write", slow)
    call(log, "first")
    assert writing.wait(30)
    for number in range(10):
        call(log, f"{number}")  # returns although the disk blocks
    assert log.dropped == 7
    gate.set()
    log.close()
    written = entries(path)
    assert [entry.get("model") for entry in written] == ["first", None, "0", "1", "2"]
    assert written[1]["dropped"] == 7
    assert written[1].keys() == {"time", "dropped"}


def test_a_full_disk_is_reported_once_and_logging_resumes(path, eventually, monkeypatch, caplog):
    write = os.write

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    log = AccessLog(str(path))
    monkeypatch.setattr(os, "write", full)
    caplog.set_level(logging.ERROR)
    for number in range(1, 4):
        call(log)
        eventually(lambda number=number: log.dropped == number)
    monkeypatch.setattr(os, "write", write)
    call(log, "resumed")
    log.close()
    assert caplog.text.count("No space left on device") == 1
    assert [entry.get("dropped") or entry["model"] for entry in entries(path)] == [3, "resumed"]


def test_a_disk_that_fills_up_within_a_line_damages_only_that_line(path, eventually, monkeypatch):
    write = os.write

    def nearly_full(descriptor, data):
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) - 20])

    log = AccessLog(str(path))
    call(log, "whole")
    eventually(lambda: path.read_bytes())
    monkeypatch.setattr(os, "write", nearly_full)
    call(log, "cut")
    eventually(lambda: log.dropped)
    monkeypatch.setattr(os, "write", write)
    call(log, "resumed")
    log.close()
    whole, cut, report, resumed = path.read_bytes().splitlines()
    assert not cut.endswith(b"}")
    assert [json.loads(line).get("model") for line in (whole, resumed)] == ["whole", "resumed"]
    assert json.loads(report)["dropped"] == log.dropped == 1


def test_a_metric_counts_dropped_lines(tmp_path):
    class Full:
        dropped = 4

    config = tmp_path / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    observability = Observability(ObservabilityOptions(monitoring_config_file=str(config)))
    observability.access_log = Full()
    assert b"\ntfserving_access_log_dropped_total{} 4\n" in observability.page.text()


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"--access_log=.*: .*directory"):
        Observability(ObservabilityOptions(access_log=str(tmp_path)))
