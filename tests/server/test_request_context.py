"""What observers learn about requests, over both APIs."""

import logging
import threading

import pytest

from tests.server.apis import examples, predict_request, serve
from tfserving.wire import messages, services

COLUMNS = {"inputs": [1.0, 2.0]}


class Recorder:
    """An observer that keeps the contexts of finished requests."""

    def __init__(self):
        self.in_flight = 0
        self.finished = []

    def request_started(self, context):
        self.in_flight += 1

    def request_finished(self, context):
        self.in_flight -= 1
        self.finished.append(context)


@pytest.fixture(scope="module")
def recorder():
    return Recorder()


@pytest.fixture(scope="module")
def apis(in_loop, recorder):
    with serve(in_loop, [recorder]) as apis:
        yield apis


@pytest.fixture
def observed(apis, recorder, eventually):
    """Returns the context of the one request since the test began."""
    recorder.finished.clear()

    def last():
        eventually(lambda: recorder.finished)
        assert recorder.in_flight == 0
        (context,) = recorder.finished
        return context

    return last


def test_records_predict_over_grpc(apis, observed):
    request = predict_request()
    reply = apis.call(services.PREDICT, request)
    context = observed()
    assert (context.api, context.method, context.status) == ("GRPC", "Predict", "OK")
    assert (context.requested_spec.name, context.version, context.signature) == ("m", 3, "serving_default")
    assert (context.request_bytes, context.response_bytes) == (len(request), len(reply))
    assert 0 <= context.run_seconds <= context.seconds
    assert context.peer.startswith("ipv4:127.0.0.1:")


def test_records_predict_over_rest(apis, observed):
    body = b'{"inputs": [1.0, 2.0], "signature_name": "serving_default"}'
    response = apis.rest.send("POST", "/v1/models/m:predict", body)
    assert response.json["outputs"]["y"] == [3.0, 6.0]
    context = observed()
    assert (context.api, context.method, context.status) == ("REST", "Predict", "OK")
    assert (context.requested_spec.name, context.version, context.signature) == ("m", 3, "serving_default")
    assert (context.request_bytes, context.response_bytes) == (len(body), len(response.body))
    assert 0 <= context.run_seconds <= context.seconds
    assert context.peer == "127.0.0.1"


def test_records_the_number_of_examples(apis, observed):
    request = messages.ClassificationRequest(model_spec={"name": "m", "signature_name": "classify"})
    request.input.CopyFrom(examples(1.0, 2.0, 3.0))
    assert apis.call(services.CLASSIFY, request)
    context = observed()
    assert (context.method, context.signature, context.examples) == ("Classify", "classify", 3)


def test_records_status_and_metadata(apis, observed, recorder):
    assert apis.rest.send("GET", "/v1/models/m").status == 200
    context = observed()
    assert (context.method, context.requested_spec.name, context.version) == ("GetModelStatus", "m", None)
    recorder.finished.clear()
    assert apis.rest.send("GET", "/v1/models/m/metadata").status == 200
    context = observed()
    assert (context.method, context.requested_spec.name, context.version) == ("GetModelMetadata", "m", 3)
    recorder.finished.clear()
    assert apis.call(services.GET_MODEL_STATUS, messages.GetModelStatusRequest(model_spec={"name": "m"}))
    assert observed().method == "GetModelStatus"


@pytest.mark.parametrize(
    ("request_", "status", "requested"),
    [
        (b"\xff", "INVALID_ARGUMENT", ""),
        (predict_request("nobody"), "NOT_FOUND", "nobody"),
        (predict_request(version=9), "NOT_FOUND", "m"),
        (predict_request(signature="none"), "FAILED_PRECONDITION", "m"),
        (predict_request(x=[float("nan")]), "INVALID_ARGUMENT", "m"),
    ],
)
def test_records_failures_over_grpc(apis, observed, request_, status, requested):
    assert apis.call(services.PREDICT, request_) is None
    context = observed()
    assert (context.status, context.requested_spec.name, context.response_bytes) == (status, requested, 0)


def test_a_version_or_signature_that_does_not_exist_is_not_recorded(apis, observed, recorder):
    apis.call(services.PREDICT, predict_request(version=9))
    assert (observed().version, observed().signature) == (None, "")
    recorder.finished.clear()
    apis.call(services.PREDICT, predict_request(signature="none"))
    assert (observed().version, observed().signature) == (3, "")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "requested"),
    [
        ("POST", "/v1/models/m:predict", b"{", "INVALID_ARGUMENT", "m"),
        ("POST", "/v1/models/nobody:predict", b'{"instances": [1]}', "NOT_FOUND", "nobody"),
        ("POST", "/v1/models/m:predict", b'{"instances": ["a"]}', "INVALID_ARGUMENT", "m"),
        ("GET", "/v1/nothing", None, "INVALID_ARGUMENT", ""),
        ("GET", "/elsewhere", None, "NOT_FOUND", ""),
    ],
)
def test_records_failures_over_rest(apis, observed, method, path, body, status, requested):
    assert apis.rest.send(method, path, body).status >= 400
    assert (observed().status, observed().requested_spec.name) == (status, requested)


def test_a_request_ends_when_the_caller_cancels_it(apis, observed, monkeypatch):
    servable = apis.loader.loaded["m", 3]
    released = threading.Event()
    monkeypatch.setattr(servable, "compute", lambda *_: released.wait(30))
    try:
        assert apis.call(services.PREDICT, predict_request(), timeout=0.1) is None
        assert observed().status == "CANCELLED"
    finally:
        released.set()


def test_an_unexpected_error_is_internal(apis, observed, monkeypatch):
    monkeypatch.setattr(apis.loader.loaded["m", 3], "compute", lambda *_: 1 / 0)
    assert apis.call(services.PREDICT, predict_request()) is None
    assert observed().status == "INTERNAL"


def test_a_failing_observer_does_not_fail_the_request(in_loop, caplog):
    class Failing:
        def request_started(self, context):
            pass

        def request_finished(self, context):
            raise OSError("the disk is full")

    caplog.set_level(logging.ERROR)
    with serve(in_loop, [Failing()]) as apis:
        assert apis.call(services.PREDICT, predict_request())
        assert apis.rest.predict(COLUMNS).status == 200
    assert "the disk is full" in caplog.text
