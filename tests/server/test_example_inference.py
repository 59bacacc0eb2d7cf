from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.server.fake_loader import FakeLoader
from tfserving.errors import InvalidInputError, TfServingError, UnsupportedError
from tfserving.server import example_inference
from tfserving.server.core.manager import ServableManager
from tfserving.server.core.servable_state import State
from tfserving.server.request_context import RequestContext
from tfserving.server.server_options import LimitOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import CLASSIFY_METHOD, PREDICT_METHOD, REGRESS_METHOD


@pytest.fixture
def loader():
    return FakeLoader()


@pytest.fixture
def manager(loader):
    manager = ServableManager(loader)
    manager.start()
    manager.aspire("m", {2: Path("/models/m/2"), 3: Path("/models/m/3")})
    manager.wait_until_available(["m"])
    yield manager
    manager.stop()


@pytest.fixture
def servable(manager, loader):
    """The version that serves the requests."""
    return loader.loaded["m", 3]


@pytest.fixture
def service(manager):
    return Service(manager, WorkerPools(1, lambda name: True, LimitOptions()))


def classify(service, request):
    return example_inference.classify(RequestContext(), service, request).result(30)


def regress(service, request):
    return example_inference.regress(RequestContext(), service, request).result(30)


def multi_inference(service, request):
    return example_inference.multi_inference(RequestContext(), service, request).result(30)


def add(examples, *values, feature="x"):
    for value in values:
        examples.add().features.feature[feature].float_list.value.append(value)


def request(kind, signature, *values, model="m", version=None):
    made = kind(model_spec={"name": model, "signature_name": signature})
    if version:
        made.model_spec.version.value = version
    add(made.input.example_list.examples, *values)
    return made


def test_classify_returns_classes_and_scores(service):
    reply = classify(service, request(messages.ClassificationRequest, "classify", 1, 5))
    rows = [[(found.label, found.score) for found in entry.classes] for entry in reply.result.classifications]
    assert rows == [[("once", 1.0), ("times", 3.0)], [("once", 5.0), ("times", 15.0)]]
    assert reply.model_spec.version.value == 3
    assert reply.model_spec.signature_name == "classify"


def test_regress_uses_the_requested_version(service):
    reply = regress(service, request(messages.RegressionRequest, "regress", 1, 5, version=2))
    assert [entry.value for entry in reply.result.regressions] == [2.0, 10.0]


def test_a_feature_of_an_example_overrides_the_context(service):
    made = messages.RegressionRequest(model_spec={"name": "m", "signature_name": "regress"})
    listed = made.input.example_list_with_context
    listed.context.features.feature["x"].float_list.value.append(7)
    add(listed.examples, 1)
    add(listed.examples, 9, feature="other")
    assert [entry.value for entry in regress(service, made).result.regressions] == [3.0, 21.0]


@pytest.mark.parametrize("kind", ["list", "with_context", "none"])
def test_rejects_a_request_without_examples(service, kind):
    made = messages.ClassificationRequest(model_spec={"name": "m", "signature_name": "classify"})
    if kind == "list":
        made.input.example_list.SetInParent()
    if kind == "with_context":
        made.input.example_list_with_context.context.SetInParent()
    with pytest.raises(InvalidInputError, match="Input is empty"):
        classify(service, made)


def test_rejects_signatures_of_another_kind(service):
    with pytest.raises(InvalidInputError, match="tensorflow/serving/classify needs 'classes' or 'scores'"):
        classify(service, request(messages.ClassificationRequest, "regress", 1))
    with pytest.raises(InvalidInputError, match="tensorflow/serving/regress needs 'outputs'"):
        regress(service, request(messages.RegressionRequest, "", 1))


def test_rejects_signatures_that_do_not_exist(service):
    with pytest.raises(InvalidInputError, match="no signature 'nobody'"):
        classify(service, request(messages.ClassificationRequest, "nobody", 1))
    with pytest.raises(InvalidInputError, match="no signature 'nobody'"):
        regress(service, request(messages.RegressionRequest, "nobody", 1))


@pytest.mark.parametrize("extra", ["classify", "regress"])
def test_rejects_signatures_with_more_outputs_than_the_result_has(service, servable, extra):
    signature = servable.signatures[extra]
    outputs = {
        **signature.outputs,
        "more": signature.outputs["classes" if extra == "classify" else "outputs"],
    }
    servable.signatures[extra] = replace(signature, outputs=outputs)
    infer, kind = (
        (classify, messages.ClassificationRequest)
        if extra == "classify"
        else (regress, messages.RegressionRequest)
    )
    with pytest.raises(InvalidInputError, match="at most"):
        infer(service, request(kind, extra, 1))


@pytest.mark.parametrize(
    ("kind", "signature", "alias", "value"),
    [
        (messages.ClassificationRequest, "classify", "classes", np.array([[1, 2]])),
        (messages.ClassificationRequest, "classify", "scores", np.array([[0.5, 0.5]])),
        (messages.RegressionRequest, "regress", "outputs", np.array([b"a"], object)),
    ],
)
def test_rejects_outputs_of_another_dtype(service, servable, monkeypatch, kind, signature, alias, value):
    compute = servable.compute
    monkeypatch.setattr(servable, "compute", lambda *args: {**compute(*args), alias: value})
    infer = classify if signature == "classify" else regress
    with pytest.raises(InvalidInputError, match=f"output '{alias}' of signature .* expected"):
        infer(service, request(kind, signature, 1))


def tasks(*pairs, models=None):
    made = messages.MultiInferenceRequest()
    add(made.input.example_list.examples, 2)
    for index, (method, signature) in enumerate(pairs):
        model = models[index] if models else "m"
        made.tasks.add(method_name=method, model_spec={"name": model, "signature_name": signature})
    return made


def test_multi_inference_returns_a_result_for_each_task(service):
    reply = multi_inference(service, tasks((CLASSIFY_METHOD, "classify"), (REGRESS_METHOD, "regress")))
    first, second = reply.results
    assert [found.score for found in first.classification_result.classifications[0].classes] == [2.0, 6.0]
    assert second.regression_result.regressions[0].value == 6.0
    assert [result.model_spec.version.value for result in reply.results] == [3, 3]


@pytest.mark.parametrize(
    ("made", "error", "message"),
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
        (
            tasks((CLASSIFY_METHOD, ""), (REGRESS_METHOD, "serving_default")),
            InvalidInputError,
            "same signature",
        ),
        (tasks((PREDICT_METHOD, "serving_default")), UnsupportedError, "expected .*classify or .*regress"),
        (tasks((PREDICT_METHOD, "nobody")), InvalidInputError, "no signature 'nobody'"),
        (
            tasks((CLASSIFY_METHOD, "classify"), (REGRESS_METHOD, "nobody")),
            InvalidInputError,
            "no signature 'nobody'",
        ),
    ],
)
def test_multi_inference_rejects_invalid_tasks(service, made, error, message):
    with pytest.raises(error, match=message):
        multi_inference(service, made)


def test_multi_inference_finishes_with_a_version_that_is_unloading(
    service, manager, servable, eventually, monkeypatch
):
    compute = servable.compute

    def swap_and_run(*args):
        manager.aspire("m", {4: Path("/models/m/4")})
        eventually(lambda: manager.status("m", 3)[0].state is State.UNLOADING)
        return compute(*args)

    monkeypatch.setattr(servable, "compute", swap_and_run)
    reply = multi_inference(service, tasks((CLASSIFY_METHOD, "classify"), (REGRESS_METHOD, "regress")))
    assert [result.model_spec.version.value for result in reply.results] == [3, 3]


def test_predict_reports_an_unknown_method_name_as_internal(manager, servable):
    servable.signatures["odd"] = replace(servable.signatures["serving_default"], method_name="odd")
    strict = Service(manager, WorkerPools(1, lambda name: True, LimitOptions()), check_method_names=True)
    inputs = {"x": np.ones(1, np.float32)}
    with pytest.raises(TfServingError, match="has method name 'odd'") as caught:
        strict.predict(RequestContext(), ModelSpec("m", signature="odd"), lambda _: inputs)
    assert caught.value.code == "INTERNAL"


def test_method_names_are_checked_if_enabled(manager):
    strict = Service(manager, WorkerPools(1, lambda name: True, LimitOptions()), check_method_names=True)
    classification = request(messages.ClassificationRequest, "misnamed", 1)
    regression = request(messages.RegressionRequest, "regress", 1)
    with pytest.raises(TfServingError, match="method name 'tensorflow/serving/regress'") as caught:
        classify(strict, classification)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert regress(strict, regression).result.regressions[0].value == 3.0
    # without the check the outputs alone decide
    lenient = Service(manager, WorkerPools(1, lambda name: True, LimitOptions()))
    assert classify(lenient, classification).result.classifications
