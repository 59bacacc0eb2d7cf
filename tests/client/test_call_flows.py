"""Flows without a transport: deadlines, retries, cached signatures, on a clock that only pauses advance."""

import contextlib
import gc
import weakref

import numpy as np
import pytest

from tfserving.client.call_flows import CallFlows
from tfserving.client.flow import Request, run
from tfserving.client.inputs import arrays_for
from tfserving.client.label_split import LabelSplit
from tfserving.client.options import UNSET, Retry
from tfserving.client.types import VersionStatus
from tfserving.errors import (
    DeadlineError,
    ExhaustedError,
    InvalidInputError,
    NotFoundError,
    TfServingError,
    UnavailableError,
    UnsupportedError,
)
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import Signature, TensorInfo


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds >= 0
        self.now += seconds


def of_dtype(dtype):
    infos = {"x": TensorInfo("x", dtype, (None,))}
    return {"serving_default": Signature("serving_default", "m", infos, {"y": TensorInfo("y", dtype, None)})}


class FakeCodec:
    """Bodies are (spec, arrays); responses are not bytes but the results."""

    is_copying = False
    error = None

    def prepare_predict(self, spec, signature, outputs):
        def request_for(inputs):
            if self.error:
                raise self.error
            arrays = arrays_for(signature, inputs)
            if self.is_copying:
                arrays = {name: array.copy() for name, array in arrays.items()}
            return Request("predict", (spec, arrays), lambda response: response, spec.name)

        return request_for

    def metadata(self, spec):
        return Request("metadata", (spec, None), lambda response: response, spec.name)

    def status(self, spec):
        return Request("status", (spec, None), lambda response: response, spec.name)


class Server:
    """Responds by version; each event of `script` comes first: an error is raised, a number is seconds that
    pass, None lets a call through."""

    def __init__(self, clock):
        self.clock = clock
        self.version = 1
        self.dtypes = {1: DType.DT_FLOAT, 2: DType.DT_INT64}
        self.script = []
        self.paths = []
        self.timeouts = []
        self.states = []

    def send(self, request):
        self.paths.append(request.path)
        self.timeouts.append(request.timeout)
        while self.script:
            event = self.script.pop(0)
            if event is None:
                break
            if isinstance(event, Exception):
                raise event
            self.clock.now += event
        spec, arrays = request.body
        version = spec.version or self.version
        if version not in self.dtypes:
            raise NotFoundError("no such version", address="a")
        if request.path == "status":
            return self.states.pop(0) if self.states else [VersionStatus(version, "AVAILABLE")]
        if request.path == "metadata":
            return of_dtype(self.dtypes[version])
        if DType.of(arrays["x"].dtype) is not self.dtypes[version]:
            raise InvalidInputError("Expects arg[0] to be another", address="a")
        return {"y": arrays["x"]}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server(clock):
    return Server(clock)


@pytest.fixture
def codec():
    return FakeCodec()


@pytest.fixture
def flows(codec, clock):
    return CallFlows(codec, "a", "m", timeout=60.0, retry=Retry(), clock=clock, rng=lambda: 0.0)


@pytest.fixture
def infer(flows, server, clock):
    def infer(inputs, timeout=UNSET, version=None, label=None, send=server.send):
        spec = flows.spec(None, version, label)
        return run(flows.infer(inputs, spec, None, timeout), send, clock.sleep)["y"]

    return infer


@pytest.fixture
def wait(flows, server, clock):
    def wait(timeout):
        run(flows.wait_until_available(flows.spec(None, None), timeout), server.send, clock.sleep)

    return wait


def busy(text="Server Threadpool Exhausted"):
    return ExhaustedError(text, address="a", server_message=text)


def gone(text="connection refused"):
    return UnavailableError(text, address="a")


def test_the_random_numbers_choose_the_label_of_a_split(codec):
    numbers = iter([0.0, 0.949, 0.951, 0.999])
    split = LabelSplit({"stable": 95, "canary": 5}, "m")
    flows = CallFlows(codec, "a", "m", timeout=60.0, retry=Retry(), split=split, rng=lambda: next(numbers))
    labels = [flows.spec(None, None, split_key=None).label for _ in range(4)]
    assert labels == ["stable", "stable", "canary", "canary"]


def test_fetches_signatures_once_for_each_version_and_label(infer, server):
    for _ in range(2):
        infer([1])
        infer([1], version=1)
        infer([1], label="x")
    assert server.paths.count("metadata") == 3


def test_fetches_the_signature_again_when_the_server_rejects_an_input(infer, server):
    infer([1])
    server.version = 2  # takes int64 where version 1 took float32
    server.paths.clear()
    assert infer([1]).dtype == np.int64
    assert server.paths == ["predict", "metadata", "predict"]


def test_fetches_the_signature_again_when_the_cached_one_rejects_an_input(infer, server):
    infer([1])
    server.version = 2
    server.paths.clear()
    assert infer(np.array([5])).tolist() == [5]
    assert server.paths == ["metadata", "predict"]


def test_an_input_that_stays_rejected_costs_one_request_for_the_signature(infer, server):
    infer([1])
    server.paths.clear()
    with pytest.raises(InvalidInputError, match=r"^a, model 'm': input 'x'.*expected float32"):
        infer(np.array([5]))
    assert server.paths == ["metadata"]
    server.script = [InvalidInputError("assertion failed", address="a", server_message="assertion failed")]
    with pytest.raises(InvalidInputError, match="assertion failed"):
        infer([1])
    assert server.paths == ["metadata", "predict", "metadata"]


def test_raises_the_first_error_if_the_signature_cannot_be_fetched(infer, server):
    infer([1])
    server.script = [gone()] * 20
    with pytest.raises(InvalidInputError, match="expected float32"):
        infer(np.array([5]))


def test_does_not_fetch_a_new_signature_twice(infer, server):
    with pytest.raises(InvalidInputError):
        infer(np.array([5]))
    assert server.paths == ["metadata"]


def test_pauses_grow_until_the_last_attempt(infer, server, clock):
    infer([1])
    server.script = [busy() for _ in range(10)]
    server.paths.clear()
    with pytest.raises(ExhaustedError):
        infer([1])
    assert server.paths == ["predict"] * 6
    assert clock.now == pytest.approx(0.02 + 0.06 + 0.18 + 0.54 + 1.62)


def test_every_attempt_sends_the_inputs_of_the_first(infer, codec, server):
    codec.is_copying = True
    x = np.ones(2, np.float32)
    bodies = []

    def send(request):
        if request.path == "predict":
            bodies.append(request.body[1]["x"].tolist())
            x[:] = 9  # the caller reuses its array
        return server.send(request)

    for _ in range(2):
        x[:] = 1
        server.script = [None, gone()] if not bodies else [gone()]
        assert infer(x, send=send).tolist() == [1, 1]
    assert bodies == [[1, 1]] * 4


@pytest.mark.parametrize("error", [UnavailableError, NotFoundError])
def test_a_failed_call_keeps_no_reference_to_its_inputs(infer, error):
    infer([1])

    def send(request):
        raise error("nobody", address="a")

    gc.disable()
    try:
        x = np.ones(3, np.float32)
        alive = weakref.ref(x)
        with contextlib.suppress(TfServingError):
            infer(x, send=send)
        del x
        assert alive() is None
    finally:
        gc.enable()


def test_unsupported_inputs_are_reported_with_address_and_model_each_time(infer, codec):
    for _ in range(2):
        codec.error = UnsupportedError("not supported")
        with pytest.raises(UnsupportedError, match=r"^a, model 'm': not supported") as caught:
            infer([1])
        assert (caught.value.address, caught.value.model) == ("a", "m")


def test_the_deadline_covers_all_attempts(infer, server, clock):
    infer([1])
    server.timeouts.clear()
    server.script = [3, gone(), 3, gone()]
    infer([1], timeout=10)
    assert server.timeouts == pytest.approx([10, 10 - 3 - 0.02, 10 - 6 - 0.02 - 0.06])


def test_does_not_retry_past_the_deadline(infer, server, clock):
    infer([1])
    server.script = [0.99, gone("the first"), gone("the second")]
    with pytest.raises(UnavailableError, match="the first"):
        infer([1], timeout=1)
    assert clock.now == pytest.approx(0.99)
    with pytest.raises(DeadlineError, match="before the request was sent"):
        infer([1], timeout=0)


def test_timeout_none_means_no_deadline(infer, server):
    infer([1], timeout=None)
    assert server.timeouts == [None, None]
    infer([1])
    assert server.timeouts[-1] == 60


@pytest.mark.parametrize(
    "error",
    [
        busy("OOM when allocating tensor"),
        busy("Received message larger than max"),
        TfServingError("crash", code="INTERNAL", address="a"),
        UnavailableError("Too many pings", address="a"),
        NotFoundError("nobody", address="a"),
    ],
)
def test_does_not_retry_errors_that_would_recur(infer, server, error):
    infer([1])
    server.paths.clear()
    server.script = [error]
    with pytest.raises(type(error)):
        infer([1])
    assert server.paths.count("predict") == 1


@pytest.fixture
def infer_rows(flows, server, clock):
    def infer_rows(rows, timeout=UNSET):
        flow = flows.infer_rows(10, rows, flows.spec(None, None), None, timeout)
        return run(flow, server.send, clock.sleep)

    return infer_rows


def test_rows_are_retried_until_the_deadline(infer_rows, server, clock):
    server.script = [gone() for _ in range(40)]
    assert [result.outputs["y"].item() for result in infer_rows([1, 2])] == [1, 2]
    assert 10 < clock.now < 60
    server.script = [gone(str(number)) for number in range(100)]
    results = infer_rows([1, 2], timeout=10)
    assert [result.row for result in results] == [10, 11]
    assert all(isinstance(result.error, UnavailableError) for result in results)
    assert max(server.timeouts[-6:]) < 4


def test_rows_are_retried_without_a_deadline_until_the_server_responds(infer_rows, server, clock):
    server.script = [gone() for _ in range(200)]
    assert infer_rows([1], timeout=None)[0].error is None
    assert clock.now > 60


def test_rows_are_not_retried_if_retries_are_off(codec, server, clock):
    flows = CallFlows(codec, "a", "m", timeout=60.0, retry=Retry(attempts=1), clock=clock)
    server.script = [None, gone()]
    (result,) = run(flows.infer_rows(0, [1], flows.spec(None, None), None, UNSET), server.send, clock.sleep)
    assert isinstance(result.error, UnavailableError)
    assert clock.now == 0


def test_a_row_that_fails_costs_a_number_of_requests_that_grows_with_the_logarithm(infer_rows, server):
    def reject(request):
        if request.path == "predict" and 77 in request.body[1]["x"]:
            raise InvalidInputError("77 is not valid", address="a", server_message="77 is not valid")
        return send(request)

    send, server.send = server.send, reject
    results = infer_rows(list(range(64, 128)))
    assert [result.row for result in results if result.error] == [10 + 77 - 64]
    assert server.paths.count("predict") == 6  # halves without the row
    assert [result.outputs["y"].item() for result in results if not result.error] == [
        number for number in range(64, 128) if number != 77
    ]


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no such model", address="a"),
        DeadlineError("late", address="a"),
        TfServingError("who are you", code="UNAUTHENTICATED", address="a"),
    ],
)
def test_an_error_that_no_row_causes_is_that_of_every_row(infer_rows, server, error):
    server.script = [error]
    assert [result.error for result in infer_rows([1, 2, 3])] == [error] * 3
    assert server.paths == ["metadata"]


def test_an_error_of_a_row_keeps_no_reference_to_the_inputs(infer_rows, server):
    gc.disable()
    try:
        x = np.ones((), np.int64)  # the signature takes float32
        (result,) = infer_rows([x])
        alive = weakref.ref(x)
        del x
        assert alive() is None
        assert "expected float32" in str(result.error)
    finally:
        gc.enable()


def test_wait_polls_until_the_model_is_available(wait, server, clock):
    server.script = [gone(), NotFoundError("not yet", address="a"), None]
    server.states = [[VersionStatus(1, "LOADING")], [], [VersionStatus(2, "START"), VersionStatus(1, "END")]]
    wait(60)
    assert server.paths == ["status"] * 6
    assert clock.now == pytest.approx(0.05 * sum(1.5**n for n in range(5)))


def test_wait_polls_again_when_a_server_does_not_respond(wait, server):
    server.script = [5, DeadlineError("no response", address="a")]
    wait(60)
    assert server.timeouts == pytest.approx([5, 5])


def test_wait_ends_at_its_timeout(wait, server, clock):
    server.states = [[VersionStatus(3, "END", "INTERNAL", "no such op")] for _ in range(100)]
    with pytest.raises(
        DeadlineError, match="not available after 10 s; last status: version 3 END no such op"
    ):
        wait(10)
    assert clock.now == pytest.approx(10)


def test_wait_ends_immediately_on_an_error_that_would_recur(wait, server, clock):
    server.script = [TfServingError("who are you", code="UNAUTHENTICATED", address="a")]
    with pytest.raises(TfServingError, match="who are you"):
        wait(60)
    assert clock.now == 0
