"""What observers are told of calls, over both APIs."""

import logging
import threading

import pytest

from tests.server.apis import examples, predict_request, serve
from tfserving.wire import messages, services

COLUMNS = {"inputs": [1.0, 2.0]}


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.flying = 0
        self.ended_calls = []

    def began(self, call):
        self.flying += 1

    def ended(self, call):
        self.flying -= 1
        self.ended_calls.append(call)


@pytest.fixture(scope="module")
def listener():
    return Listener()


@pytest.fixture(scope="module")
def apis(in_loop, listener):
    with serve(in_loop, [listener]) as apis:
        yield apis


@pytest.fixture
def told(apis, listener, eventually):
    """The one call that was told of since the test began."""
    listener.ended_calls.clear()

    def last():
        eventually(lambda: listener.ended_calls)
        assert listener.flying == 0
        (call,) = listener.ended_calls
        return call

    return last


def test_predict_over_grpc(apis, told):
    request = predict_request()
    reply = apis.call(services.PREDICT, request)
    call = told()
    assert (call.api, call.method, call.status) == ("GRPC", "Predict", "OK")
    assert (call.asked.name, call.version, call.signature) == ("m", 3, "serving_default")
    assert (call.request_bytes, call.response_bytes) == (len(request), len(reply))
    assert 0 <= call.run_seconds <= call.seconds
    assert call.peer.startswith("ipv4:127.0.0.1:")


def test_predict_over_rest(apis, told):
    body = b'{"inputs": [1.0, 2.0], "signature_name": "serving_default"}'
    answer = apis.rest.ask("POST", "/v1/models/m:predict", body)
    assert answer.json["outputs"]["y"] == [3.0, 6.0]
    call = told()
    assert (call.api, call.method, call.status) == ("REST", "Predict", "OK")
    assert (call.asked.name, call.version, call.signature) == ("m", 3, "serving_default")
    assert (call.request_bytes, call.response_bytes) == (len(body), len(answer.body))
    assert 0 <= call.run_seconds <= call.seconds
    assert call.peer == "127.0.0.1"


def test_examples_are_counted(apis, told):
    request = messages.ClassificationRequest(model_spec={"name": "m", "signature_name": "classify"})
    request.input.CopyFrom(examples(1.0, 2.0, 3.0))
    assert apis.call(services.CLASSIFY, request)
    call = told()
    assert (call.method, call.signature, call.examples) == ("Classify", "classify", 3)


def test_status_and_metadata(apis, told, listener):
    assert apis.rest.ask("GET", "/v1/models/m").status == 200
    call = told()
    assert (call.method, call.asked.name, call.version) == ("GetModelStatus", "m", None)
    listener.ended_calls.clear()
    assert apis.rest.ask("GET", "/v1/models/m/metadata").status == 200
    call = told()
    assert (call.method, call.asked.name, call.version) == ("GetModelMetadata", "m", 3)
    listener.ended_calls.clear()
    assert apis.call(services.GET_MODEL_STATUS, messages.GetModelStatusRequest(model_spec={"name": "m"}))
    assert told().method == "GetModelStatus"


@pytest.mark.parametrize(
    ("request_", "status", "asked"),
    [
        (b"\xff", "INVALID_ARGUMENT", ""),
        (predict_request("nobody"), "NOT_FOUND", "nobody"),
        (predict_request(version=9), "NOT_FOUND", "m"),
        (predict_request(signature="none"), "FAILED_PRECONDITION", "m"),
        (predict_request(x=[float("nan")]), "INVALID_ARGUMENT", "m"),
    ],
)
def test_refusals_over_grpc(apis, told, request_, status, asked):
    assert apis.call(services.PREDICT, request_) is None
    call = told()
    assert (call.status, call.asked.name, call.response_bytes) == (status, asked, 0)


def test_what_does_not_exist_is_not_taken_for_what_answered(apis, told, listener):
    apis.call(services.PREDICT, predict_request(version=9))
    assert (told().version, told().signature) == (None, "")
    listener.ended_calls.clear()
    apis.call(services.PREDICT, predict_request(signature="none"))
    assert (told().version, told().signature) == (3, "")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "asked"),
    [
        ("POST", "/v1/models/m:predict", b"{", "INVALID_ARGUMENT", "m"),
        ("POST", "/v1/models/nobody:predict", b'{"instances": [1]}', "NOT_FOUND", "nobody"),
        ("POST", "/v1/models/m:predict", b'{"instances": ["a"]}', "INVALID_ARGUMENT", "m"),
        ("GET", "/v1/nothing", None, "INVALID_ARGUMENT", ""),
        ("GET", "/elsewhere", None, "NOT_FOUND", ""),
    ],
)
def test_refusals_over_rest(apis, told, method, path, body, status, asked):
    assert apis.rest.ask(method, path, body).status >= 400
    assert (told().status, told().asked.name) == (status, asked)


def test_a_caller_that_goes_away(apis, told, monkeypatch):
    """The model runs on; the call has ended for all that."""
    servable = apis.loader.loaded["m", 3]
    released = threading.Event()
    monkeypatch.setattr(servable, "run", lambda *_: released.wait(30))
    try:
        assert apis.call(services.PREDICT, predict_request(), timeout=0.1) is None
        assert told().status == "CANCELLED"
    finally:
        released.set()


def test_an_error_that_is_not_ours_is_internal(apis, told, monkeypatch):
    monkeypatch.setattr(apis.loader.loaded["m", 3], "run", lambda *_: 1 / 0)
    assert apis.call(services.PREDICT, predict_request()) is None
    assert told().status == "INTERNAL"


def test_an_observer_that_fails_fails_no_call(in_loop, caplog):
    class Failing:
        def began(self, call):
            pass

        def ended(self, call):
            raise OSError("the disk is full")

    caplog.set_level(logging.ERROR)
    with serve(in_loop, [Failing()]) as apis:
        assert apis.call(services.PREDICT, predict_request())
        assert apis.rest.predict(COLUMNS).status == 200
    assert "the disk is full" in caplog.text
