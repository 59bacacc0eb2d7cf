import asyncio
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.server.fake_loader import TIMES, FakeServable
from tfserving.errors import (
    ExhaustedError,
    FailedPreconditionError,
    InvalidInputError,
    TfServingError,
    UnavailableError,
)
from tfserving.server.batching import batching_servable
from tfserving.server.batching.batching_servable import BatchingLoader, BatchingServable
from tfserving.server.batching.parameters import BatchingParameters
from tfserving.server.core.manager import ServableManager
from tfserving.server.core.servable import NotKnownFastError
from tfserving.server.core.servable_state import State
from tfserving.server.futures import then
from tfserving.server.request_context import RequestContext
from tfserving.server.server_options import LimitOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import CLASSIFY_METHOD, PREDICT_METHOD, Signature, TensorInfo

MATRIX = Signature(
    "matrix",
    PREDICT_METHOD,
    {"x": TensorInfo("x", DType.DT_FLOAT, None), "k": TensorInfo("k", DType.DT_FLOAT, None)},
    {"y": TensorInfo("y", DType.DT_FLOAT, None)},
)
TOTAL = Signature("total", PREDICT_METHOD, MATRIX.inputs, MATRIX.outputs)
ONE_DAY = 86_400_000_000  # microseconds


class Model(FakeServable):
    """y = 2 x; records its batches, and waits while `gate` is closed."""

    def __init__(self):
        super().__init__(2)
        self.batches = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def compute(self, signature, inputs, outputs):
        self.entered.set()
        assert self.gate.wait(30)
        self.batches.append(inputs["x"].tolist())
        if (inputs["x"] < 0).any():
            raise InvalidInputError("negative")
        if signature.name == "total":
            return {"y": inputs["x"].sum()}
        return {"y": inputs["x"] * 2}


@pytest.fixture
def batching():
    """Puts a queue with one batch thread in front of a model."""
    made = []

    def batching(model, threads=1, clock=None, **parameters):
        more = {"clock": clock} if clock else {}
        servable = BatchingServable(model, BatchingParameters(**parameters), threads=threads, **more)
        made.append((model, servable))
        return servable

    yield batching
    for model, servable in made:
        model.gate.set()
        servable.close()


def submit(servable, x, signature=MATRIX, context=None, **more):
    inputs = {"x": np.array(x, np.float32), **more}
    return servable.submit(context or RequestContext(), signature, inputs, ("y",))


def call(servable, x, signature=MATRIX, **more):
    return submit(servable, x, signature, **more).result(30)["y"].tolist()


def occupy(servable, model):
    """Makes the batch thread run a request until the gate opens, so that further requests wait."""
    model.gate.clear()
    first = submit(servable, [[0.0] * 5])
    assert model.entered.wait(30)
    return first


def run_together(servable, model, *inputs):
    """The results, or errors, of requests that wait at the same time."""
    first = occupy(servable, model)
    futures = [submit(servable, x) for x in inputs]
    model.gate.set()
    first.result(30)
    return [future.exception(30) or future.result()["y"].tolist() for future in futures]


def test_waiting_requests_run_as_one(batching):
    model = Model()
    servable = batching(model, max_batch_size=8)
    assert run_together(servable, model, [[1]], [[2], [3]], [[4]]) == [[[2]], [[4], [6]], [[8]]]
    assert model.batches[1:] == [[[1], [2], [3], [4]]]


def test_a_full_batch_takes_no_more_requests(batching):
    model = Model()
    servable = batching(model, max_batch_size=3)
    assert run_together(servable, model, [[1], [2]], [[3], [4]]) == [[[2], [4]], [[6], [8]]]
    assert model.batches[1:] == [[[1], [2]], [[3], [4]]]


def test_requests_of_other_shapes_form_other_batches(batching):
    model = Model()
    servable = batching(model)
    assert run_together(servable, model, [[1, 1]], [[2]], [[3, 3]]) == [[[2, 2]], [[4]], [[6, 6]]]
    assert model.batches[1:] == [[[1, 1], [3, 3]], [[2]]]


def test_requests_of_other_shapes_are_padded_if_enabled(batching):
    model = Model()
    servable = batching(model, pad_variable_length_inputs=True)
    assert run_together(servable, model, [[1, 5]], [[2]]) == [[[2, 10]], [[4, 4]]]
    assert model.batches[1:] == [[[1, 5], [2, 2]]]


def test_requests_that_cannot_be_padded_together_run_alone(batching):
    model = Model()
    servable = batching(model, pad_variable_length_inputs=True)
    results = run_together(servable, model, [[1, 5]], np.zeros((1, 0)))
    assert results == [[[2, 10]], [[]]]


def test_batches_are_padded_to_an_allowed_size(batching):
    model = Model()
    servable = batching(model, max_batch_size=4, allowed_batch_sizes=(1, 2, 4))
    assert call(servable, [[1], [2], [3]]) == [[2], [4], [6]]
    assert model.batches == [[[1], [2], [3], [1]]]


def test_a_bad_request_does_not_fail_the_others_of_its_batch(batching):
    model = Model()
    good, bad, other = run_together(batching(model), model, [[1]], [[-1]], [[3]])
    assert (good, other) == ([[2]], [[6]])
    assert isinstance(bad, InvalidInputError)
    assert model.batches[1:] == [[[1], [-1], [3]], [[1]], [[-1], [3]], [[-1]], [[3]]]


def test_a_bad_request_costs_few_runs(batching):
    model = Model()
    values = [[[-1 if number == 5 else number]] for number in range(16)]
    results = run_together(batching(model, max_batch_size=16), model, *values)
    assert [isinstance(result, InvalidInputError) for result in results] == [n == 5 for n in range(16)]
    assert [len(batch) for batch in model.batches[1:]] == [16, 8, 4, 4, 2, 1, 1, 2, 8]


def test_a_request_is_rejected_while_no_thread_can_be_started(batching, monkeypatch):
    monkeypatch.setattr(batching_servable, "RETRY_SECONDS", 0.0)
    servable, start = batching(Model()), threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", mock.Mock(side_effect=RuntimeError("no")))
    with pytest.raises(ExhaustedError, match="raise the limit of threads"):
        call(servable, [[1]])
    monkeypatch.setattr(threading.Thread, "start", start)
    assert call(servable, [[1]]) == [[2]]


def test_a_large_request_is_split_only_if_enabled(batching):
    with pytest.raises(InvalidInputError, match="max_batch_size is 2"):
        call(batching(Model(), max_batch_size=2), [[1], [2], [3]])
    model = Model()
    servable = batching(model, max_batch_size=8, split_large=True, max_execution_batch_size=2)
    assert call(servable, [[1], [2], [3]]) == [[2], [4], [6]]
    assert model.batches == [[[1], [2]], [[3]]]
    with pytest.raises(InvalidInputError, match="max_batch_size is 8"):
        call(servable, [[1]] * 9)


def test_a_large_request_that_is_rejected_is_done_after_its_parts(batching):
    model = Model()
    servable = batching(
        model, max_batch_size=10, split_large=True, max_execution_batch_size=5, max_enqueued_batches=1
    )
    first = occupy(servable, model)
    large = submit(servable, [[1]] * 10)
    # its second part was rejected, but the first one uses the servable
    assert not large.done()
    model.gate.set()
    first.result(30)
    assert isinstance(large.exception(30), UnavailableError)
    assert model.batches[-1] == [[1]] * 5


def test_a_batch_waits_for_others_of_its_own_shape(batching):
    model = Model()
    servable = batching(model, clock=lambda: 0.0, max_batch_size=2, batch_timeout_micros=1000)
    first = submit(servable, [[1]])  # never due by this clock, so it must be filled
    assert call(servable, [[2, 2], [3, 3]]) == [[4, 4], [6, 6]]
    assert not first.done()
    assert call(servable, [[4]]) == [[8]]
    assert first.result(30)["y"].tolist() == [[2]]
    assert model.batches[-1] == [[1], [4]]


def test_an_empty_request_is_not_queued(batching):
    assert call(batching(Model(), batch_timeout_micros=ONE_DAY), np.zeros((0, 3))) == []


def test_the_event_loop_queues_requests_but_does_not_run_empty_ones(batching):
    model = Model()
    model.is_fast = False
    servable = batching(model)
    context = RequestContext()
    context.in_event_loop = True
    with pytest.raises(NotKnownFastError):
        submit(servable, np.zeros((0, 3)), context=context)
    first = occupy(servable, model)
    waiting = submit(servable, [[1.0]], context=context)
    assert not waiting.done()
    model.gate.set()
    first.result(30)
    assert waiting.result(30)["y"].tolist() == [[2.0]]


def test_rejects_requests_when_too_many_batches_wait(batching):
    model = Model()
    servable = batching(model, max_batch_size=1, max_enqueued_batches=2, threads=1)
    model.gate.clear()
    futures = [submit(servable, [[1]])]
    assert model.entered.wait(30)
    futures += [submit(servable, [[x]]) for x in (2, 3)]
    with pytest.raises(UnavailableError, match="2 batches wait"):
        submit(servable, [[4]])
    model.gate.set()
    assert [future.result(30)["y"].tolist() for future in futures] == [[[2]], [[4]], [[6]]]


def test_rejects_what_cannot_be_batched(batching):
    servable = batching(Model())
    with pytest.raises(InvalidInputError, match="'x' is a scalar"):
        call(servable, 1.0)
    with pytest.raises(InvalidInputError, match="all need the same number"):
        call(servable, [1, 2], k=np.zeros(3, np.float32))
    with pytest.raises(FailedPreconditionError, match="first dimension of every output"):
        call(servable, [1, 2], signature=TOTAL)
    with pytest.raises(TfServingError, match="is float32") as caught:
        servable.submit(RequestContext(), MATRIX, {"x": np.zeros(1, np.int32)}, ("y",))
    assert caught.value.code == "INTERNAL"


def test_the_run_time_includes_the_wait_for_the_batch(batching):
    times = iter(range(1000))
    model = Model()
    servable = batching(model, clock=lambda: next(times), max_batch_size=1)
    first = occupy(servable, model)
    context = RequestContext()
    future = submit(servable, [[1]], context=context)
    assert context.run_seconds is None
    model.gate.set()
    future.result(30)
    first.result(30)
    assert context.run_seconds >= 1


def test_each_version_can_have_its_own_parameters(tmp_path):
    def load(model, version, path):
        return FakeServable(version)

    def max_rows(servable):
        with pytest.raises(InvalidInputError) as caught:
            submit(servable, [1.0] * 10, TIMES)
        return str(caught.value)

    common = BatchingParameters(max_batch_size=9)
    assert "max_batch_size is 9" in max_rows(BatchingLoader(load, common)("m", 1, tmp_path))
    loader = BatchingLoader(load, common, per_model=True)
    # without a file the version is not batched
    assert len(call(loader("m", 1, tmp_path), [1.0] * 10, TIMES)) == 10
    (tmp_path / "batching_params.pbtxt").write_text("max_batch_size { value: 5 }")
    assert "max_batch_size is 5" in max_rows(loader("m", 1, tmp_path))


def test_a_slow_model_does_not_delay_the_batches_of_another(tmp_path):
    slow, fast = Model(), Model()
    models = {"slow": slow, "fast": fast}
    loader = BatchingLoader(lambda model, *_: models[model], BatchingParameters(num_batch_threads=1))
    servables = {name: loader(name, 1, tmp_path) for name in models}
    slow.gate.clear()
    waiting = [submit(servables["slow"], [[1]]) for _ in range(2)]
    assert call(servables["fast"], [[2]]) == [[4]]
    slow.gate.set()
    assert [future.result(30)["y"].tolist() for future in waiting] == [[[2]], [[2]]]
    for servable in servables.values():
        servable.close()


def test_batch_threads_start_with_batches_and_end_with_the_version(batching, eventually):
    def threads():
        return [thread for thread in threading.enumerate() if thread.name.startswith("batch-")]

    eventually(lambda: not threads())
    servable = batching(Model(), threads=2)
    assert not threads()
    for _ in range(3):
        call(servable, [[1]])
    assert 1 <= len(threads()) <= 2
    servable.close()
    eventually(lambda: not threads())


class Submitted(BatchingServable):
    """Counts the requests that are in the queue or beyond it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.requests = threading.Semaphore(0)

    def submit(self, *args):
        future = super().submit(*args)
        self.requests.release()
        return future


def serving(model, max_batch_size, workers):
    """A manager, a service with so many worker threads, and the batching servable of model "m"."""
    parameters = BatchingParameters(max_batch_size=max_batch_size)
    servable = Submitted(model, parameters, threads=1)
    manager = ServableManager(lambda *_: servable)
    manager.start()
    manager.aspire("m", {1: Path("/models/m/1")})
    manager.wait_until_available(["m"])
    pools = WorkerPools(workers, lambda name: name == "m", LimitOptions())
    return manager, pools, Service(manager, pools), servable


def test_a_batch_joins_more_requests_than_there_are_worker_threads():
    """64 callers, 4 worker threads, 1 batch thread: batches of 32."""
    model = Model()
    manager, pools, service, servable = serving(model, max_batch_size=32, workers=4)

    def predict(x):
        inputs = {"x": np.full(1, x, np.float32)}
        prediction = service.predict(RequestContext(), ModelSpec("m"), lambda _: inputs, ["y"])
        return then(prediction, lambda done: (done.outputs["y"].tolist(), threading.current_thread().name))

    async def main():
        model.gate.clear()
        first = asyncio.ensure_future(service.run_in_worker("m", 0, predict, 0))
        await asyncio.to_thread(model.entered.wait, 30)
        callers = [asyncio.ensure_future(service.run_in_worker("m", 0, predict, x)) for x in range(64)]
        for _ in range(65):
            assert await asyncio.to_thread(servable.requests.acquire, timeout=30)
        model.gate.set()
        await first
        return await asyncio.gather(*callers)

    results = asyncio.run(asyncio.wait_for(main(), 60))
    assert [y for y, _ in results] == [[2.0 * x] for x in range(64)]
    assert {thread for _, thread in results} <= {"MainThread", "worker-m"}  # not the batch thread
    assert [len(batch) for batch in model.batches] == [1, 32, 32]
    manager.stop()
    pools.shut_down()


def test_results_of_examples_and_large_ones_continue_in_workers():
    model = Model()
    manager, pools, service, _ = serving(model, max_batch_size=8, workers=4)

    def predict(shape, method):
        inputs = {"x": np.zeros(shape, np.float32)}
        prediction = service.predict(RequestContext(), ModelSpec("m"), lambda _: inputs, method=method)
        return then(prediction, lambda _: threading.current_thread().name)

    async def main():
        model.gate.clear()  # results wait for their batch
        cases = [((1, 4096), None), ((1, 4097), None), ((1, 1), CLASSIFY_METHOD)]
        running = [asyncio.ensure_future(service.run_in_worker("m", 0, predict, *case)) for case in cases]
        await asyncio.to_thread(model.entered.wait, 30)
        await asyncio.sleep(0.1)
        model.gate.set()
        return await asyncio.gather(*running)

    small, large, examples = asyncio.run(asyncio.wait_for(main(), 60))
    assert small in ("MainThread", "worker-m")  # on a busy machine, the event loop pauses
    assert large == examples == "worker-m"
    manager.stop()
    pools.shut_down()


def test_a_version_is_not_freed_while_requests_wait_for_their_batch(eventually):
    model = Model()
    manager, pools, service, servable = serving(model, max_batch_size=1, workers=1)

    def predict(x):
        inputs = {"x": np.full(1, x, np.float32)}
        return service.predict(RequestContext(), ModelSpec("m"), lambda _: inputs, ["y"])

    async def main():
        model.gate.clear()
        callers = [asyncio.ensure_future(service.run_in_worker("m", 0, predict, x)) for x in range(3)]
        for _ in callers:
            assert await asyncio.to_thread(servable.requests.acquire, timeout=30)
        manager.aspire("m", {})
        await asyncio.to_thread(eventually, lambda: manager.status("m")[0].state is State.UNLOADING)
        assert not model.closed
        model.gate.set()
        return await asyncio.gather(*callers)

    predictions = asyncio.run(asyncio.wait_for(main(), 60))
    assert [prediction.outputs["y"].tolist() for prediction in predictions] == [[0.0], [2.0], [4.0]]
    eventually(lambda: model.closed)
    manager.stop()
    pools.shut_down()


def test_concurrent_callers_get_their_own_rows():
    model = Model()
    servable = BatchingServable(model, BatchingParameters(max_batch_size=16), threads=2)
    with ThreadPoolExecutor(8) as callers:
        results = list(callers.map(lambda x: call(servable, [[x]]), range(500)))
    assert results == [[[2 * x]] for x in range(500)]
    servable.close()


def test_an_idle_batch_thread_holds_nothing_of_its_last_batch(batching, eventually):
    servable = batching(Model(), batch_timeout_micros=0)
    array = np.ones((1, 2), np.float32)
    reference = weakref.ref(array)
    servable.submit(RequestContext(), MATRIX, {"x": array, "k": np.ones((1, 2), np.float32)}, ("y",)).result(
        30
    )
    del array
    eventually(lambda: reference() is None)
