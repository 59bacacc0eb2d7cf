"""The plans without a transport: deadlines, pauses and what is learned, on a clock that only pauses move."""

import asyncio
import contextlib
import gc
import weakref

import numpy as np
import pytest

from tfserving.client.call_flows import Calls
from tfserving.client.flow import Choice, Exchange, Pause, Send, carry_out, carry_out_async
from tfserving.client.inputs import arrays_for
from tfserving.client.options import UNSET, Retry
from tfserving.client.types import VersionStatus
from tfserving.errors import (
    DeadlineError,
    ExhaustedError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
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
    """Questions are (what, spec, arrays); answers are not bytes but what `decode` should return."""

    copying = False
    refusing = None

    def predictor(self, spec, signature, outputs):
        def body(inputs):
            if self.refusing:
                raise self.refusing
            arrays = arrays_for(signature, inputs)
            return spec, {name: array.copy() for name, array in arrays.items()} if self.copying else arrays

        return Exchange("predict", None, lambda answer: answer, spec.name), body

    def metadata(self, spec):
        return Exchange("metadata", (spec, None), lambda answer: answer, spec.name)

    def status(self, spec):
        return Exchange("status", (spec, None), lambda answer: answer, spec.name)


class Server:
    """Answers by version; `script` is taken first, an error is raised and a number is seconds that pass."""

    def __init__(self, clock):
        self.clock = clock
        self.version = 1
        self.dtypes = {1: DType.DT_FLOAT, 2: DType.DT_INT64}
        self.script = []
        self.asked = []
        self.timeouts = []
        self.states = []

    def send(self, path, body, timeout, model):
        self.asked.append(path)
        self.timeouts.append(timeout)
        while self.script:
            event = self.script.pop(0)
            if event is None:
                break
            if isinstance(event, Exception):
                raise event
            self.clock.now += event
        spec, arrays = body
        version = spec.version or self.version
        if version not in self.dtypes:
            raise NotFoundError("no such version", address="a")
        if path == "status":
            return self.states.pop(0) if self.states else [VersionStatus(version, "AVAILABLE")]
        if path == "metadata":
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
def calls(clock):
    return Calls(FakeCodec(), "a", "m", timeout=60.0, retry=Retry(), clock=clock, chance=lambda: 0.0)


@pytest.fixture
def predict(calls, server, clock):
    def run(inputs, timeout=UNSET, **choice):
        plan = calls.predict(inputs, *Choice(**choice), None, timeout)
        return carry_out(plan, server.send, clock.sleep)["y"]

    return run


def busy(text="Server Threadpool Exhausted"):
    return ExhaustedError(text, address="a", server_message=text)


def gone(text="connection refused"):
    return UnavailableError(text, address="a")


def test_the_signature_is_learned_once_for_each_choice_of_version(predict, server):
    for _ in range(2):
        predict([1])
        predict([1], version=1)
        predict([1], label="x")
    assert server.asked.count("metadata") == 3


def test_a_refusal_by_the_server_is_checked_against_the_signature_of_now(predict, server):
    predict([1])
    server.version = 2  # takes int64 where version 1 took float32
    server.asked.clear()
    assert predict([1]).dtype == np.int64
    assert server.asked == ["predict", "metadata", "predict"]


def test_a_refusal_from_here_is_checked_against_the_signature_of_now(predict, server):
    predict([1])
    server.version = 2
    server.asked.clear()
    assert predict(np.array([5])).tolist() == [5]
    assert server.asked == ["metadata", "predict"]


def test_a_refusal_that_stands_costs_one_look_at_the_signature(predict, server):
    predict([1])
    server.asked.clear()
    with pytest.raises(InvalidInputError, match=r"^a, model 'm': input 'x'.*expected float32"):
        predict(np.array([5]))
    assert server.asked == ["metadata"]
    server.script = [InvalidInputError("assertion failed", address="a", server_message="assertion failed")]
    with pytest.raises(InvalidInputError, match="assertion failed"):
        predict([1])
    assert server.asked == ["metadata", "predict", "metadata"]


def test_a_refusal_stands_when_the_signature_cannot_be_learned(predict, server):
    predict([1])
    server.script = [gone()] * 20
    with pytest.raises(InvalidInputError, match="expected float32"):
        predict(np.array([5]))


def test_a_signature_just_learned_is_not_learned_again(predict, server):
    with pytest.raises(InvalidInputError):
        predict(np.array([5]))
    assert server.asked == ["metadata"]


def test_pauses_grow_and_attempts_end(predict, server, clock):
    predict([1])
    server.script = [busy() for _ in range(10)]
    server.asked.clear()
    with pytest.raises(ExhaustedError):
        predict([1])
    assert server.asked == ["predict"] * 6
    assert clock.now == pytest.approx(0.02 + 0.06 + 0.18 + 0.54 + 1.62)


def test_every_attempt_sends_what_the_first_one_did(calls, server, clock):
    codec = calls._codec
    codec.copying = True
    x = np.ones(2, np.float32)
    bodies = []

    def send(path, body, timeout, model):
        if path == "predict":
            bodies.append(body[1]["x"].tolist())
            x[:] = 9  # the caller goes on to use its array
        return server.send(path, body, timeout, model)

    for _ in range(2):
        x[:] = 1
        server.script = [None, gone()] if not bodies else [gone()]
        answer = carry_out(calls.predict(x, *Choice(), None, UNSET), send, clock.sleep)
        assert answer["y"].tolist() == [1, 1]
    assert bodies == [[1, 1]] * 4


@pytest.mark.parametrize("error", [UnavailableError, NotFoundError])
def test_a_failed_call_holds_nothing(calls, server, clock, error):
    carry_out(calls.predict([1], *Choice(), None, UNSET), server.send, clock.sleep)

    def send(path, body, timeout, model):
        raise error("nobody", address="a")

    gc.disable()
    try:
        x = np.ones(3, np.float32)
        alive = weakref.ref(x)
        with contextlib.suppress(TfServingError):
            carry_out(calls.predict(x, *Choice(), None, UNSET), send, clock.sleep)
        del x
        assert alive() is None
    finally:
        gc.enable()


def test_what_the_transport_has_no_form_for_is_told_with_address_and_model_each_time(calls, server, clock):
    calls._codec.refusing = UnsupportedError("no form for this")
    for _ in range(2):
        with pytest.raises(UnsupportedError, match=r"^a, model 'm': no form") as caught:
            carry_out(calls.predict([1], *Choice(), None, UNSET), server.send, clock.sleep)
        assert (caught.value.address, caught.value.model) == ("a", "m")
        calls._codec.refusing = UnsupportedError("no form for this")


def test_the_deadline_covers_all_attempts(predict, server, clock):
    predict([1])
    server.timeouts.clear()
    server.script = [3, gone(), 3, gone()]
    predict([1], timeout=10)
    assert server.timeouts == pytest.approx([10, 10 - 3 - 0.02, 10 - 6 - 0.02 - 0.06])


def test_there_is_no_attempt_that_the_deadline_forbids(predict, server, clock):
    predict([1])
    server.script = [0.99, gone("the first"), gone("the second")]
    with pytest.raises(UnavailableError, match="the first"):
        predict([1], timeout=1)
    assert clock.now == pytest.approx(0.99)
    with pytest.raises(DeadlineError, match="before the call was made"):
        predict([1], timeout=0)


def test_none_is_no_deadline(predict, server):
    predict([1], timeout=None)
    assert server.timeouts == [None, None]
    predict([1])
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
def test_what_would_only_come_again_is_not_asked_again(predict, server, error):
    predict([1])
    server.asked.clear()
    server.script = [error]
    with pytest.raises(type(error)):
        predict([1])
    assert server.asked.count("predict") == 1


def test_waiting(calls, server, clock):
    server.script = [gone(), NotFoundError("not yet", address="a"), None]
    server.states = [[VersionStatus(1, "LOADING")], [], [VersionStatus(2, "START"), VersionStatus(1, "END")]]
    carry_out(calls.wait_until_available(Choice(), 60), server.send, clock.sleep)
    assert server.asked == ["status"] * 6
    assert clock.now == pytest.approx(0.05 * sum(1.5**n for n in range(5)))


def test_waiting_looks_again_when_a_server_does_not_answer(calls, server, clock):
    server.script = [5, DeadlineError("no answer", address="a")]
    carry_out(calls.wait_until_available(Choice(), 60), server.send, clock.sleep)
    assert server.timeouts == pytest.approx([5, 5])


def test_waiting_has_an_end(calls, server, clock):
    server.states = [[VersionStatus(3, "END", "INTERNAL", "no such op")] for _ in range(100)]
    with pytest.raises(DeadlineError, match="not available after 10 s; last seen: version 3 END no such op"):
        carry_out(calls.wait_until_available(Choice(), 10), server.send, clock.sleep)
    assert clock.now == pytest.approx(10)


def test_waiting_ends_at_once_where_it_is_no_use(calls, server, clock):
    server.script = [TfServingError("who are you", code="UNAUTHENTICATED", address="a")]
    with pytest.raises(TfServingError, match="who are you"):
        carry_out(calls.wait_until_available(Choice(), 60), server.send, clock.sleep)
    assert clock.now == 0


def run_by_both(make_call, send):
    """What a call comes to in the blocking and in the asyncio driver, and what was sent and slept."""
    done = []

    def note(path, body, timeout, model):
        done.append(path)
        return send(path)

    async def note_async(*step):
        return note(*step)

    async def sleep_async(seconds):
        done.append(seconds)

    blocking = carry_out(make_call(), note, done.append)
    assert blocking == asyncio.run(carry_out_async(make_call(), note_async, sleep_async))
    half = len(done) // 2
    assert done[:half] == done[half:]
    return blocking, done[:half]


def send(path):
    if path == "a":
        raise TfServingError("no a")
    return path.encode()


def test_both_drivers_carry_out_a_plan():
    def plan():
        try:
            yield Send("a", b"", None, None)
        except TfServingError:
            yield Pause(3)
        return (yield Send("b", b"", None, None))

    assert run_by_both(plan, send) == (b"b", ["a", 3, "b"])


def refuse(reply):
    raise ProtocolError("no reply")


@pytest.mark.parametrize(
    ("path", "decode", "result"),
    [
        ("b", bytes.decode, ("b", ["b"])),
        ("b", refuse, (("given", b"b", b"c"), ["b", 1, "c"])),  # the plan goes on from the reply
        ("a", bytes.decode, (("given", "no a", b"c"), ["a", 1, "c"])),  # or from the error
    ],
)
def test_both_drivers_go_on_from_what_a_ready_call_came_to(path, decode, result):
    def plan(given, outcome):
        yield Pause(1)
        reply = yield Send("c", b"", None, None)
        return given, outcome if isinstance(outcome, bytes) else str(outcome), reply

    def ready():
        return Exchange(path, None, decode, "m"), b"", None, plan, ("given",)

    assert run_by_both(ready, send) == result
