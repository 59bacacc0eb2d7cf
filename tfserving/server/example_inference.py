"""Classify, Regress and MultiInference: signatures that take tf.Examples, on top of Service.predict.

The rules are those of classifier.cc, regressor.cc and multi_inference.cc in TensorFlow Serving 2.20.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tfserving.errors import InvalidInputError, TfServingError, UnsupportedError
from tfserving.server.core.loader_harness import LoaderHarness
from tfserving.server.core.servable import Inputs
from tfserving.server.futures import attempt, gather, then
from tfserving.server.request_context import RequestContext
from tfserving.server.service import Prediction, Service
from tfserving.wire import messages, tf_examples
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import CLASSIFY_METHOD, DEFAULT_SIGNATURE, REGRESS_METHOD, Signature

# Aliases that these signatures must use (tensorflow/core SignatureConstants).
_CLASSES, _SCORES, _OUTPUTS = "classes", "scores", "outputs"


def classify(context: RequestContext, service: Service, request: Any) -> Future[Any]:
    """A future for the `ClassificationResponse` to a `ClassificationRequest`.

    Raises:
        InvalidInputError: there are no examples, the signature does not exist or does not classify, or it
            cannot parse them.
        NotFoundError: as `Service.predict`.
    """
    return _infer(context, service, request, CLASSIFY_METHOD, messages.ClassificationResponse)


def regress(context: RequestContext, service: Service, request: Any) -> Future[Any]:
    """A future for the `RegressionResponse` to a `RegressionRequest`; raises as `classify` does."""
    return _infer(context, service, request, REGRESS_METHOD, messages.RegressionResponse)


def multi_inference(context: RequestContext, service: Service, request: Any) -> Future[Any]:
    """A future for the `MultiInferenceResponse` to a `MultiInferenceRequest`.

    One version runs all of its tasks.

    Raises:
        InvalidInputError: there are no tasks, they name more than one model or a signature twice, and as
            `classify`.
        UnsupportedError: a task is neither classify nor regress.
    """
    if not request.tasks:
        raise InvalidInputError("the request has no tasks")
    names = {task.model_spec.name for task in request.tasks}
    if len(names) > 1:
        raise InvalidInputError(f"the tasks name more than one model: {', '.join(map(repr, sorted(names)))}")
    signatures = [task.model_spec.signature_name or DEFAULT_SIGNATURE for task in request.tasks]
    if len(set(signatures)) < len(signatures):
        raise InvalidInputError(f"two tasks use the same signature (signatures: {signatures})")

    def submit(harness: LoaderHarness) -> Future[list[Prediction]]:
        futures: list[Future[Prediction]] = []
        for task in request.tasks:
            futures.append(attempt(_submit_task, context, service, harness, task, request.input))
            if futures[-1].done() and futures[-1].exception():
                break
        return gather(futures)

    def respond(predictions: list[Prediction]) -> Any:
        response = messages.MultiInferenceResponse()
        for task, prediction in zip(request.tasks, predictions, strict=True):
            result = response.results.add(model_spec=prediction.spec.to_message())
            classifies = task.method_name == CLASSIFY_METHOD
            result = result.classification_result if classifies else result.regression_result
            _FILLS[task.method_name](result, prediction, tf_examples.count(request.input))
        return response

    return then(service.with_version(ModelSpec.from_message(request.tasks[0].model_spec), submit), respond)


def _infer(
    context: RequestContext, service: Service, request: Any, method: str, response_type: Any
) -> Future[Any]:
    def respond(prediction: Prediction) -> Any:
        response = response_type(model_spec=prediction.spec.to_message())
        _FILLS[method](response.result, prediction, tf_examples.count(request.input))
        return response

    spec = ModelSpec.from_message(request.model_spec)
    make_inputs = _make_inputs_for(context, request.input, method)
    return then(service.predict(context, spec, make_inputs, method=method), respond)


def _submit_task(
    context: RequestContext, service: Service, harness: LoaderHarness, task: Any, examples: Any
) -> Future[Prediction]:
    spec = ModelSpec(task.model_spec.name, harness.version, signature=task.model_spec.signature_name)
    make_inputs = _make_inputs_for(context, examples, task.method_name)
    return service.predict_with(context, harness, spec, make_inputs, method=task.method_name)


def _make_inputs_for(context: RequestContext, message: Any, method: str) -> Callable[[Signature], Inputs]:
    def make_inputs(signature: Signature) -> Inputs:
        _check_output_names(signature, method)
        if set(signature.inputs) != {tf_examples.INPUTS}:
            raise InvalidInputError(
                f"signature {signature.name!r} takes {sorted(signature.inputs)}, but one for tf.Examples "
                f"takes {tf_examples.INPUTS!r} only; use Predict"
            )
        array = tf_examples.serialized(message)
        context.examples = len(array)
        return {tf_examples.INPUTS: array}

    return make_inputs


def _check_output_names(signature: Signature, method: str) -> None:
    if method not in _FILLS:
        raise UnsupportedError(f"a task has method {method!r}, expected {' or '.join(_FILLS)}")
    expected = (_CLASSES, _SCORES) if method == CLASSIFY_METHOD else (_OUTPUTS,)
    if not signature.outputs.keys() & expected:
        raise InvalidInputError(
            f"signature {signature.name!r} returns {sorted(signature.outputs)}, but {method} needs "
            f"{' or '.join(map(repr, expected))}"
        )
    if len(signature.outputs) > len(expected):
        raise InvalidInputError(
            f"signature {signature.name!r} returns {sorted(signature.outputs)}, but {method} takes at most "
            f"{len(expected)}; use Predict"
        )


def _rows(prediction: Prediction, alias: str, dtype: DType, count: int) -> list[Any] | None:
    """An output as one list for each example; None if the signature does not return it."""
    array = prediction.outputs.get(alias)
    if array is None:
        return None
    _check_dtype(prediction, alias, dtype)
    if array.ndim != 2 or array.shape[0] != count:
        raise _unexpected_shape(prediction, alias, f"({count}, classes)")
    return list(array.tolist())


def _fill_classifications(result: Any, prediction: Prediction, count: int) -> None:
    classes = _rows(prediction, _CLASSES, DType.DT_STRING, count)
    scores = _rows(prediction, _SCORES, DType.DT_FLOAT, count)
    if classes and scores and len(classes[0]) != len(scores[0]):
        raise _unexpected_shape(prediction, _SCORES, f"that of {_CLASSES!r}")
    for row in range(count):
        entry = result.classifications.add()
        for column in range(len((classes or scores or [[]])[row])):
            found = entry.classes.add()
            if classes:
                found.label = classes[row][column]
            if scores:
                found.score = scores[row][column]


def _fill_regressions(result: Any, prediction: Prediction, count: int) -> None:
    array = prediction.outputs[_OUTPUTS]
    _check_dtype(prediction, _OUTPUTS, DType.DT_FLOAT)
    if array.shape not in ((count,), (count, 1)):
        raise _unexpected_shape(prediction, _OUTPUTS, f"({count},) or ({count}, 1)")
    for value in array.reshape(-1).tolist():
        result.regressions.add(value=value)


_FILLS = {CLASSIFY_METHOD: _fill_classifications, REGRESS_METHOD: _fill_regressions}


def _check_dtype(prediction: Prediction, alias: str, expected: DType) -> None:
    given = DType.of(prediction.outputs[alias].dtype)
    if given is not expected:
        raise InvalidInputError(
            f"output {alias!r} of signature {prediction.signature.name!r} is {given.label}, "
            f"expected {expected.label}: cast it in the model or use Predict",
            model=prediction.spec.name,
        )


def _unexpected_shape(prediction: Prediction, alias: str, expected: str) -> TfServingError:
    return InvalidInputError(
        f"output {alias!r} of signature {prediction.signature.name!r} has shape "
        f"{prediction.outputs[alias].shape}, expected {expected}",
        model=prediction.spec.name,
    )
