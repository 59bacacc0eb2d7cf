from pathlib import Path

import numpy as np
import pytest

from tests.server.fake_loader import FakeLoader
from tfserving.errors import InvalidInputError, UnsupportedError
from tfserving.server import example_inference
from tfserving.server.core.manager import Manager
from tfserving.server.core.servable_state import State
from tfserving.server.service import Service
from tfserving.server.worker_pool import Workers
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import CLASSIFY_METHOD, PREDICT_METHOD, REGRESS_METHOD


@pytest.fixture
def manager():
    manager = Manager(FakeLoader())
    manager.start()
    manager.aspire("m", {2: Path("/models/m/2"), 3: Path("/models/m/3")})
    manager.wait_until_available(["m"])
    yield manager
    manager.stop()


@pytest.fixture
def service(manager):
    return Service(manager, Workers(1, lambda name: True))


def add(examples, *values, feature="x"):
    for value in values:
        examples.add().features.feature[feature].float_list.value.append(value)


def request(kind, signature, *values, model="m", version=None):
    made = kind(model_spec={"name": model, "signature_name": signature})
    if version:
        made.model_spec.version.value = version
    add(made.input.example_list.examples, *values)
    return made


def test_classify(service):
    reply = example_inference.classify(service, request(messages.ClassificationRequest, "classify", 1, 5))
    rows = [[(found.label, found.score) for found in entry.classes] for entry in reply.result.classifications]
    assert rows == [[("once", 1.0), ("times", 3.0)], [("once", 5.0), ("times", 15.0)]]
    assert reply.model_spec.version.value == 3
    assert reply.model_spec.signature_name == "classify"


def test_regress_by_version(service):
    reply = example_inference.regress(
        service, request(messages.RegressionRequest, "regress", 1, 5, version=2)
    )
    assert [entry.value for entry in reply.result.regressions] == [2.0, 10.0]


def test_an_examples_own_feature_counts_before_the_context(service):
    made = messages.RegressionRequest(model_spec={"name": "m", "signature_name": "regress"})
    listed = made.input.example_list_with_context
    listed.context.features.feature["x"].float_list.value.append(7)
    add(listed.examples, 1)
    add(listed.examples, 9, feature="other")
    assert [entry.value for entry in example_inference.regress(service, made).result.regressions] == [
        3.0,
        21.0,
    ]


@pytest.mark.parametrize("kind", ["list", "with_context", "none"])
def test_no_example_is_refused(service, kind):
    made = messages.ClassificationRequest(model_spec={"name": "m", "signature_name": "classify"})
    if kind == "list":
        made.input.example_list.SetInParent()
    if kind == "with_context":
        made.input.example_list_with_context.context.SetInParent()
    with pytest.raises(InvalidInputError, match="Input is empty"):
        example_inference.classify(service, made)


def test_signatures_of_another_kind_are_refused(service):
    with pytest.raises(InvalidInputError, match="one that classifies gives"):
        example_inference.classify(service, request(messages.ClassificationRequest, "regress", 1))
    with pytest.raises(InvalidInputError, match="one that regresses gives"):
        example_inference.regress(service, request(messages.RegressionRequest, "", 1))


@pytest.mark.parametrize(
    ("kind", "signature", "alias", "value"),
    [
        (messages.ClassificationRequest, "classify", "classes", np.array([[1, 2]])),
        (messages.ClassificationRequest, "classify", "scores", np.array([[0.5, 0.5]])),
        (messages.RegressionRequest, "regress", "outputs", np.array([b"a"], object)),
    ],
)
def test_outputs_of_another_dtype_are_refused(service, manager, monkeypatch, kind, signature, alias, value):
    with manager.acquire(ModelSpec("m")) as harness:
        servable = harness.servable
    run = servable.run
    monkeypatch.setattr(servable, "run", lambda *args: {**run(*args), alias: value})
    answer = example_inference.classify if signature == "classify" else example_inference.regress
    with pytest.raises(InvalidInputError, match=f"output '{alias}' of signature .* expected"):
        answer(service, request(kind, signature, 1))


def tasks(*pairs, models=None):
    made = messages.MultiInferenceRequest()
    add(made.input.example_list.examples, 2)
    for index, (method, signature) in enumerate(pairs):
        model = models[index] if models else "m"
        made.tasks.add(method_name=method, model_spec={"name": model, "signature_name": signature})
    return made


def test_multi_inference(service):
    reply = example_inference.multi_inference(
        service, tasks((CLASSIFY_METHOD, "classify"), (REGRESS_METHOD, "regress"))
    )
    first, second = reply.results
    assert [found.score for found in first.classification_result.classifications[0].classes] == [2.0, 6.0]
    assert second.regression_result.regressions[0].value == 6.0
    assert [result.model_spec.version.value for result in reply.results] == [3, 3]


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (tasks(), InvalidInputError, "no tasks"),
        (
            tasks((REGRESS_METHOD, "regress"), (REGRESS_METHOD, "regress")),
            InvalidInputError,
            "same signature",
        ),
        (
            tasks((REGRESS_METHOD, "regress"), (CLASSIFY_METHOD, "classify"), models=["m", "n"]),
            InvalidInputError,
            "more than one",
        ),
        (tasks((PREDICT_METHOD, "serving_default")), UnsupportedError, "only classify and regress"),
    ],
)
def test_multi_inference_refusals(service, made, error, said):
    with pytest.raises(error, match=said):
        example_inference.multi_inference(service, made)


def test_multi_inference_goes_on_with_a_version_that_goes_out_of_service(
    service, manager, eventually, monkeypatch
):
    with manager.acquire(ModelSpec("m")) as harness:
        servable = harness.servable
    run = servable.run

    def swap_and_run(*args):
        manager.aspire("m", {4: Path("/models/m/4")})
        eventually(lambda: manager.status("m", 3)[0].state is State.UNLOADING)
        return run(*args)

    monkeypatch.setattr(servable, "run", swap_and_run)
    reply = example_inference.multi_inference(
        service, tasks((CLASSIFY_METHOD, "classify"), (REGRESS_METHOD, "regress"))
    )
    assert [result.model_spec.version.value for result in reply.results] == [3, 3]


def test_method_names_are_checked_when_asked(manager):
    strict = Service(manager, Workers(1, lambda name: True), check_method_names=True)
    classification = request(messages.ClassificationRequest, "misnamed", 1)
    regression = request(messages.RegressionRequest, "regress", 1)
    with pytest.raises(InvalidInputError, match="of method 'tensorflow/serving/regress'"):
        example_inference.classify(strict, classification)
    assert example_inference.regress(strict, regression).result.regressions[0].value == 3.0
    # without the check the outputs alone decide
    lenient = Service(manager, Workers(1, lambda name: True))
    assert example_inference.classify(lenient, classification).result.classifications
