import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.server.fake_loader import FakeLoader
from tfserving.errors import FailedPreconditionError, InvalidInputError, NotFoundError, TfServingError
from tfserving.server.core.manager import Manager
from tfserving.server.service import Service
from tfserving.server.worker_pool import Workers
from tfserving.wire.model_spec import ModelSpec


@pytest.fixture
def service():
    manager = Manager(FakeLoader())
    manager.start()
    manager.aspire("m", {2: Path("/models/m/2"), 3: Path("/models/m/3")}, {"stable": 2})
    manager.wait_until_available(["m"])
    workers = Workers(4, lambda name: name == "m")
    yield Service(manager, workers)
    workers.close()
    manager.stop()


def predict(service, inputs, outputs=(), **spec):
    return service.predict(ModelSpec("m", **spec), lambda signature: inputs, outputs)


X = np.array([1, 2], np.float32)


def test_predict_answers_with_the_version_that_answered(service):
    answer = predict(service, {"x": X})
    assert answer.spec == ModelSpec("m", version=3, signature="serving_default")
    assert answer.outputs["y"].tolist() == [3.0, 6.0]
    assert answer.outputs["version"] == 3
    assert predict(service, {"x": X}, label="stable").outputs["version"] == 2


def test_the_reader_gets_the_signature_that_will_answer(service):
    seen = []
    service.predict(ModelSpec("m", version=2), lambda signature: seen.append(signature) or {"x": X})
    assert [signature.name for signature in seen] == ["serving_default"]


def test_outputs_can_be_filtered(service):
    assert predict(service, {"x": X}, ["version", "version"]).outputs.keys() == {"version"}
    with pytest.raises(InvalidInputError, match="gives 'version', 'y', not 'z'"):
        predict(service, {"x": X}, ["z"])


def test_defaults_fill_in_what_is_left_out(service):
    assert predict(service, {"x": X}, signature="with_default").outputs["y"].tolist() == [7.0, 14.0]
    given = {"x": X, "k": np.float32(1)}
    assert predict(service, given, signature="with_default").outputs["y"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "missing: 'x'"),
        ({"z": X}, "missing: 'x'; not known: 'z'"),
        ({"x": X, "z": X}, "not known: 'z'"),
        ({"x": X.astype(np.float64)}, "is float32, the request has float64"),
        ({"x": np.array([b"a"], object)}, "is float32, the request has string"),
    ],
)
def test_inputs_that_do_not_fit(service, inputs, said):
    with pytest.raises(InvalidInputError, match=said):
        predict(service, inputs)


def test_what_is_not_there(service):
    with pytest.raises(FailedPreconditionError, match="no signature 'nobody'"):
        predict(service, {"x": X}, signature="nobody")
    with pytest.raises(NotFoundError):
        service.metadata(ModelSpec("nobody"))
    with pytest.raises(InvalidInputError, match="names no model"):
        service.status(ModelSpec(""))


def test_the_graphs_own_error_keeps_its_code(service):
    with pytest.raises(TfServingError, match="the graph says no") as caught:
        predict(service, {"x": X * np.nan})
    assert caught.value.code == "INVALID_ARGUMENT"


def test_status_ignores_labels(service):
    response = service.status(ModelSpec("m", label="nobody"))
    assert [entry.version for entry in response.model_version_status] == [3, 2]
    assert [entry.version for entry in service.status(ModelSpec("m", version=2)).model_version_status] == [2]


def test_metadata_names_the_version(service):
    spec, signatures = service.metadata(ModelSpec("m", label="stable"))
    assert spec == ModelSpec("m", version=2)
    assert "serving_default" in signatures.signature_def


def test_a_model_with_all_its_threads_busy_leaves_others_theirs(service):
    async def run():
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()

        def block():
            return asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()

        busy = [asyncio.ensure_future(service.in_worker("m", block)) for _ in range(9)]
        assert await asyncio.wait_for(service.in_worker("other", lambda: 1), 30) == 1
        gate.set()
        assert all(await asyncio.gather(*busy))

    asyncio.run(run())
