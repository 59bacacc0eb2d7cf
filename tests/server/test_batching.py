import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.server.fake_loader import FakeServable
from tfserving.errors import (
    ConfigError,
    FailedPreconditionError,
    InvalidInputError,
    TfServingError,
    UnavailableError,
)
from tfserving.server.batching import (
    BatchingLoader,
    BatchingParameters,
    BatchingServable,
    BatchScheduler,
    read_parameters,
)
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import PREDICT_METHOD, Signature, TensorInfo

MATRIX = Signature(
    "matrix",
    PREDICT_METHOD,
    {"x": TensorInfo("x", DType.DT_FLOAT, None), "k": TensorInfo("k", DType.DT_FLOAT, None)},
    {"y": TensorInfo("y", DType.DT_FLOAT, None)},
)


class Model(FakeServable):
    """y = 2 x; remembers the batches that it ran, and can be held."""

    def __init__(self):
        super().__init__(2)
        self.batches = []
        self.entered = False
        self.gate = threading.Event()
        self.gate.set()

    def run(self, signature, inputs, outputs):
        self.entered = True
        assert self.gate.wait(30)
        self.batches.append(inputs["x"].tolist())
        if (inputs["x"] < 0).any():
            raise InvalidInputError("negative")
        if signature.name == "total":
            return {"y": inputs["x"].sum()}
        return {"y": inputs["x"] * 2}


def batching(model, threads=1, **parameters):
    # long enough that a batch which is not full is never due before the test has filled it
    parameters.setdefault("batch_timeout_micros", 0)
    return BatchingServable(model, BatchingParameters(**parameters), BatchScheduler(threads))


def call(servable, x, signature=MATRIX, **more):
    return servable.run(signature, {"x": np.array(x, np.float32), **more}, ("y",))["y"].tolist()


@pytest.fixture
def together(eventually):
    """Makes calls that arrive while the one thread is busy with another, so that they wait side by side."""

    def run(servable, model, *inputs):
        waiting = servable._scheduler._waiting
        model.gate.clear()
        with ThreadPoolExecutor(len(inputs) + 1) as pool:
            first = pool.submit(call, servable, [[0.0] * 5])
            eventually(lambda: model.entered)
            calls = []
            for x in inputs:
                before = sum(len(batch.tasks) for batch in waiting)
                calls.append(pool.submit(call, servable, x))
                eventually(
                    lambda: sum(len(batch.tasks) for batch in waiting) > before or calls[-1].done()  # noqa: B023
                )
            model.gate.set()
            first.result()
            return [made.exception() or made.result() for made in calls]

    return run


def test_calls_that_wait_run_as_one(together):
    model = Model()
    servable = batching(model, max_batch_size=8)
    assert together(servable, model, [[1]], [[2], [3]], [[4]]) == [[[2]], [[4], [6]], [[8]]]
    assert model.batches[1:] == [[[1], [2], [3], [4]]]


def test_a_full_batch_takes_no_more(together):
    model = Model()
    servable = batching(model, max_batch_size=3)
    assert together(servable, model, [[1], [2]], [[3], [4]]) == [[[2], [4]], [[6], [8]]]
    assert model.batches[1:] == [[[1], [2]], [[3], [4]]]


def test_other_shapes_wait_for_their_own(together):
    model = Model()
    servable = batching(model)
    assert together(servable, model, [[1, 1]], [[2]], [[3, 3]]) == [[[2, 2]], [[4]], [[6, 6]]]
    assert model.batches[1:] == [[[1, 1], [3, 3]], [[2]]]


def test_other_shapes_are_padded_when_asked(together):
    model = Model()
    servable = batching(model, pad_variable_length_inputs=True)
    assert together(servable, model, [[1, 5]], [[2]]) == [[[2, 10]], [[4, 4]]]
    assert model.batches[1:] == [[[1, 5], [2, 2]]]


def test_batches_are_padded_to_an_allowed_size():
    model = Model()
    servable = batching(model, max_batch_size=4, allowed_batch_sizes=(1, 2, 4))
    assert call(servable, [[1], [2], [3]]) == [[2], [4], [6]]
    assert model.batches == [[[1], [2], [3], [1]]]


def test_one_bad_call_spoils_no_other(together):
    model = Model()
    good, bad, other = together(batching(model), model, [[1]], [[-1]], [[3]])
    assert (good, other) == ([[2]], [[6]])
    assert isinstance(bad, InvalidInputError)


def test_a_large_call_is_split_only_when_asked():
    model = Model()
    with pytest.raises(InvalidInputError, match="max_batch_size is 2"):
        call(batching(model, max_batch_size=2), [[1], [2], [3]])
    servable = batching(model, threads=1, max_batch_size=8, split_large=True, max_execution_batch_size=2)
    assert call(servable, [[1], [2], [3]]) == [[2], [4], [6]]
    assert model.batches == [[[1], [2]], [[3]]]
    with pytest.raises(InvalidInputError, match="max_batch_size is 8"):
        call(servable, [[1]] * 9)


def test_a_large_call_that_fails_waits_for_its_parts(eventually):
    model = Model()
    servable = batching(
        model, max_batch_size=10, split_large=True, max_execution_batch_size=5, max_enqueued_batches=1
    )

    def large():
        with pytest.raises(UnavailableError):
            call(servable, [[1]] * 10)
        return list(model.batches)

    model.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, servable, [[0]] * 5)
        eventually(lambda: model.entered)
        second = pool.submit(large)
        eventually(lambda: servable.enqueued or second.done())
        model.gate.set()
        first.result(30)
        # there was no room for its second part
        assert second.result(30)[-1] == [[1]] * 5


def test_batches_are_told_apart_by_what_they_are_not_by_what_is_in_them(eventually):
    model = Model()
    scheduler = BatchScheduler(1, clock=lambda: 0.0)
    servable = BatchingServable(
        model, BatchingParameters(max_batch_size=2, batch_timeout_micros=1000), scheduler
    )
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, servable, [[1]])  # its time does not come, so it has to be filled
        eventually(lambda: scheduler._waiting)
        assert pool.submit(call, servable, [[2, 2], [3, 3]]).result(30) == [[4, 4], [6, 6]]
        assert call(servable, [[4]]) == [[8]]
        assert first.result(30) == [[2]]


def test_an_empty_batch_is_answered_at_once():
    assert call(batching(Model(), batch_timeout_micros=10**12), np.zeros((0, 3))) == []


def test_too_many_waiting_batches_are_refused(together):
    model = Model()
    servable = batching(model, max_batch_size=1, max_enqueued_batches=2)
    answers = together(servable, model, [[1]], [[2]], [[3]])
    assert answers[:2] == [[[2]], [[4]]]
    assert isinstance(answers[2], UnavailableError)


def test_what_cannot_be_batched_is_named():
    servable = batching(Model())
    with pytest.raises(InvalidInputError, match="'x' is a scalar"):
        call(servable, 1.0)
    with pytest.raises(InvalidInputError, match="share their first dimension"):
        call(servable, [1, 2], k=np.zeros(3, np.float32))
    total = Signature("total", PREDICT_METHOD, MATRIX.inputs, MATRIX.outputs)
    with pytest.raises(FailedPreconditionError, match="first dimension of every output"):
        call(servable, [1, 2], signature=total)
    with pytest.raises(TfServingError, match="is float32") as caught:
        servable.run(MATRIX, {"x": np.zeros(1, np.int32)}, ("y",))
    assert caught.value.code == "INTERNAL"


def parameters(tmp_path, text):
    path = tmp_path / "batching_params.pbtxt"
    path.write_text(text)
    return path


def test_parameters_are_read(tmp_path):
    assert read_parameters(parameters(tmp_path, "")) == BatchingParameters()
    text = """
        max_batch_size { value: 8 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 3 }
        num_batch_threads { value: 2 } allowed_batch_sizes: 4 allowed_batch_sizes: 8
        pad_variable_length_inputs: true
    """
    assert read_parameters(parameters(tmp_path, text)) == BatchingParameters(8, 0, 3, 2, (4, 8), True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_batch_sizes { value: 1 }", "max_batch_sizes"),
        ("max_batch_size { value: 0 }", "max_batch_size is 0"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "end with 8"),
        ("max_batch_size { value: 8 } max_execution_batch_size { value: 9 }", "9: it cannot be larger"),
        ("max_execution_batch_size { value: -3 }", "max_execution_batch_size is -3"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 9 allowed_batch_sizes: 8", "must rise"),
    ],
)
def test_bad_parameters_are_named(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        read_parameters(parameters(tmp_path, text))


def test_parameters_of_a_version(tmp_path):
    def load(model, version, path):
        return FakeServable(version)

    common = BatchingParameters(max_batch_size=9)
    assert BatchingLoader(load, common)("m", 1, tmp_path).parameters == common
    loader = BatchingLoader(load, common, per_model=True)
    assert isinstance(loader("m", 1, tmp_path), FakeServable)
    parameters(tmp_path, "max_batch_size { value: 5 }")
    assert loader("m", 1, Path(tmp_path)).parameters.max_batch_size == 5


def test_a_slow_model_keeps_no_other_waiting(tmp_path, eventually):
    slow = Model()
    slow.gate.clear()
    loader = BatchingLoader(
        lambda model, *_: slow if model == "slow" else Model(), BatchingParameters(num_batch_threads=1)
    )
    one, other = loader("slow", 1, tmp_path), loader("quick", 1, tmp_path)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(call, one, [[1]]) for _ in range(2)]
        eventually(lambda: slow.entered)
        answer = pool.submit(call, other, [[2]])
        eventually(answer.done)
        assert answer.result() == [[4]]
        slow.gate.set()
        assert [made.result(30) for made in waiting] == [[[2]]] * 2


def test_threads_come_with_batches_and_go_with_the_version(eventually):
    scheduler = BatchScheduler(2)
    servable = BatchingServable(Model(), BatchingParameters(), scheduler)
    assert scheduler._threads == 0
    for _ in range(3):
        call(servable, [[1]])
    assert 1 <= scheduler._threads <= 2
    servable.close()
    eventually(lambda: scheduler._threads == 0)
