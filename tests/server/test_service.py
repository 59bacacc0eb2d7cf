import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.server.fake_loader import FakeLoader
from tfserving.errors import FailedPreconditionError, InvalidInputError, NotFoundError, TfServingError
from tfserving.server.core.manager import ServableManager
from tfserving.server.futures import CompletedFuture
from tfserving.server.request_context import RequestContext
from tfserving.server.server_options import LimitOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire.model_spec import ModelSpec


@pytest.fixture
def service():
    manager = ServableManager(FakeLoader())
    manager.start()
    manager.aspire("m", {2: Path("/models/m/2"), 3: Path("/models/m/3")}, {"stable": 2})
    manager.wait_until_available(["m"])
    workers = WorkerPools(4, lambda name: name == "m", LimitOptions())
    yield Service(manager, workers)
    workers.shut_down()
    manager.stop()


def predict(service, inputs, outputs=(), **spec):
    future = service.predict(RequestContext(), ModelSpec("m", **spec), lambda signature: inputs, outputs)
    return future.result(30)


X = np.array([1, 2], np.float32)


def test_predict_returns_the_version_that_ran(service):
    response = predict(service, {"x": X})
    assert response.spec == ModelSpec("m", version=3, signature="serving_default")
    assert response.outputs["y"].tolist() == [3.0, 6.0]
    assert response.outputs["version"] == 3
    assert predict(service, {"x": X}, label="stable").outputs["version"] == 2


def test_the_reader_gets_the_signature_that_will_run(service):
    seen = []
    spec = ModelSpec("m", version=2)
    service.predict(RequestContext(), spec, lambda signature: seen.append(signature) or {"x": X}).result(30)
    assert [signature.name for signature in seen] == ["serving_default"]


def test_outputs_can_be_filtered(service):
    assert predict(service, {"x": X}, ["version"]).outputs.keys() == {"version"}
    with pytest.raises(InvalidInputError, match="returns 'version', 'y', not 'z'"):
        predict(service, {"x": X}, ["z"])


def test_rejects_an_output_that_is_selected_twice(service):
    with pytest.raises(InvalidInputError, match="an output more than once: 'version'"):
        predict(service, {"x": X}, ["version", "y", "version"])


def test_missing_inputs_take_the_defaults_of_the_signature(service):
    assert predict(service, {"x": X}, signature="with_default").outputs["y"].tolist() == [7.0, 14.0]
    given = {"x": X, "k": np.float32(1)}
    assert predict(service, given, signature="with_default").outputs["y"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing: 'x'"),
        ({"z": X}, "missing: 'x'; unknown: 'z'"),
        ({"x": X, "z": X}, "unknown: 'z'"),
        ({"x": X.astype(np.float64)}, "is float32, the request has float64"),
        ({"x": np.array([b"a"], object)}, "is float32, the request has string"),
    ],
)
def test_rejects_inputs_that_do_not_match_the_signature(service, inputs, message):
    with pytest.raises(InvalidInputError, match=message):
        predict(service, inputs)


def test_rejects_models_and_signatures_that_do_not_exist(service):
    with pytest.raises(FailedPreconditionError, match="no signature 'nobody'"):
        predict(service, {"x": X}, signature="nobody")
    with pytest.raises(NotFoundError):
        service.metadata(RequestContext(), ModelSpec("nobody"))
    with pytest.raises(InvalidInputError, match="no model name was given"):
        service.status(RequestContext(), ModelSpec(""))


def test_an_error_of_the_graph_keeps_its_code(service):
    with pytest.raises(TfServingError, match="the graph says no") as caught:
        predict(service, {"x": X * np.nan})
    assert caught.value.code == "INVALID_ARGUMENT"


def test_status_ignores_labels(service):
    response = service.status(RequestContext(), ModelSpec("m", label="nobody"))
    assert [entry.version for entry in response.model_version_status] == [3, 2]
    assert [
        entry.version
        for entry in service.status(RequestContext(), ModelSpec("m", version=2)).model_version_status
    ] == [2]


def test_metadata_returns_the_version_of_the_label(service):
    spec, signatures = service.metadata(RequestContext(), ModelSpec("m", label="stable"))
    assert spec == ModelSpec("m", version=2)
    assert "serving_default" in signatures.signature_def


def test_a_busy_model_does_not_delay_others(service):
    async def run():
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()

        def block():
            return CompletedFuture(asyncio.run_coroutine_threadsafe(gate.wait(), loop).result())

        busy = [asyncio.ensure_future(service.run_in_worker("m", 0, block)) for _ in range(9)]
        other = service.run_in_worker("other", 0, lambda: CompletedFuture(1))
        assert await asyncio.wait_for(other, 30) == 1
        gate.set()
        assert all(await asyncio.gather(*busy))

    asyncio.run(run())
