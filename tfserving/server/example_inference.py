"""Classify, Regress and MultiInference: signatures that take tf.Examples, over the service's Predict.

The rules are those of classifier.cc, regressor.cc and multi_inference.cc in TensorFlow Serving 2.20.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfserving.errors import InvalidInputError, TfServingError, UnsupportedError
from tfserving.server.observability import call_context
from tfserving.server.service import Inputs, Prediction, Service
from tfserving.wire import messages, tf_examples
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import CLASSIFY_METHOD, REGRESS_METHOD, Signature

# Aliases that these signatures must use (tensorflow/core SignatureConstants).
_CLASSES, _SCORES, _OUTPUTS = "classes", "scores", "outputs"


def classify(service: Service, request: Any) -> Any:
    """The `ClassificationResponse` to a `ClassificationRequest`.

    Raises:
        InvalidInputError: no example, a signature that does not classify, or examples that it cannot parse.
        NotFoundError, FailedPreconditionError: as `Service.predict`.
    """
    spec = ModelSpec.from_message(request.model_spec)
    answer = service.predict(spec, _reader(request.input, _check_classifies), methods=(CLASSIFY_METHOD,))
    response = messages.ClassificationResponse(model_spec=answer.spec.to_message())
    _fill_classifications(response.result, answer, tf_examples.count(request.input))
    return response


def regress(service: Service, request: Any) -> Any:
    """The `RegressionResponse` to a `RegressionRequest`; raises as `classify` does."""
    spec = ModelSpec.from_message(request.model_spec)
    answer = service.predict(spec, _reader(request.input, _check_regresses), methods=(REGRESS_METHOD,))
    response = messages.RegressionResponse(model_spec=answer.spec.to_message())
    _fill_regressions(response.result, answer, tf_examples.count(request.input))
    return response


def multi_inference(service: Service, request: Any) -> Any:
    """The `MultiInferenceResponse` to a `MultiInferenceRequest`; one version answers all of its tasks.

    Raises:
        InvalidInputError: no task, tasks for more than one model, one signature twice, and as `classify`.
        UnsupportedError: a task that is neither classify nor regress.
    """
    if not request.tasks:
        raise InvalidInputError("the request has no tasks")
    names = {task.model_spec.name for task in request.tasks}
    if len(names) > 1:
        raise InvalidInputError(f"the tasks name more than one model: {', '.join(map(repr, sorted(names)))}")
    signatures = [task.model_spec.signature_name for task in request.tasks]
    if len(set(signatures)) < len(signatures):
        raise InvalidInputError(f"two tasks ask for the same signature (signatures: {signatures})")
    response = messages.MultiInferenceResponse()
    with service.pinned(ModelSpec.from_message(request.tasks[0].model_spec)) as version:
        for task in request.tasks:
            if task.method_name not in (CLASSIFY_METHOD, REGRESS_METHOD):
                raise UnsupportedError(
                    f"a task of method {task.method_name!r}: only classify and regress can be"
                )
            spec = ModelSpec(task.model_spec.name, version.version, signature=task.model_spec.signature_name)
            classifies = task.method_name == CLASSIFY_METHOD
            read = _reader(request.input, _check_classifies if classifies else _check_regresses)
            answer = service.predict_with(version, spec, read, methods=(task.method_name,))
            result = response.results.add()
            if classifies:
                _fill_classifications(result.classification_result, answer, tf_examples.count(request.input))
            else:
                _fill_regressions(result.regression_result, answer, tf_examples.count(request.input))
            result.model_spec.CopyFrom(answer.spec.to_message())
    return response


def _reader(message: Any, check: Callable[[Signature], None]) -> Callable[[Signature], Inputs]:
    def read(signature: Signature) -> Inputs:
        check(signature)
        if set(signature.inputs) != {tf_examples.INPUTS}:
            raise InvalidInputError(
                f"signature {signature.name!r} takes {sorted(signature.inputs)}; one that takes examples has "
                f"{tf_examples.INPUTS!r} alone: use Predict"
            )
        array = tf_examples.serialized(message)
        call_context.current().examples = len(array)
        return {tf_examples.INPUTS: array}

    return read


def _check_classifies(signature: Signature) -> None:
    if not {_CLASSES, _SCORES} & signature.outputs.keys():
        raise InvalidInputError(
            f"signature {signature.name!r} gives {sorted(signature.outputs)}; one that classifies gives "
            f"{_CLASSES!r}, {_SCORES!r} or both"
        )


def _check_regresses(signature: Signature) -> None:
    if _OUTPUTS not in signature.outputs:
        raise InvalidInputError(
            f"signature {signature.name!r} gives {sorted(signature.outputs)}; one that regresses gives "
            f"{_OUTPUTS!r}"
        )


def _rows(answer: Prediction, alias: str, dtype: DType, count: int) -> list[Any] | None:
    """An output as one list for each example, None when the signature does not give it."""
    array = answer.outputs.get(alias)
    if array is None:
        return None
    _check_dtype(answer, alias, dtype)
    if array.ndim != 2 or array.shape[0] != count:
        raise _unexpected(answer, alias, f"({count}, classes)")
    return list(array.tolist())


def _fill_classifications(result: Any, answer: Prediction, count: int) -> None:
    classes = _rows(answer, _CLASSES, DType.DT_STRING, count)
    scores = _rows(answer, _SCORES, DType.DT_FLOAT, count)
    if classes and scores and len(classes[0]) != len(scores[0]):
        raise _unexpected(answer, _SCORES, f"that of {_CLASSES!r}")
    for row in range(count):
        entry = result.classifications.add()
        for column in range(len((classes or scores or [[]])[row])):
            found = entry.classes.add()
            if classes:
                found.label = classes[row][column]
            if scores:
                found.score = scores[row][column]


def _fill_regressions(result: Any, answer: Prediction, count: int) -> None:
    array = answer.outputs[_OUTPUTS]
    _check_dtype(answer, _OUTPUTS, DType.DT_FLOAT)
    if array.shape not in ((count,), (count, 1)):
        raise _unexpected(answer, _OUTPUTS, f"({count},) or ({count}, 1)")
    for value in array.reshape(-1).tolist():
        result.regressions.add(value=value)


def _check_dtype(answer: Prediction, alias: str, expected: DType) -> None:
    given = DType.of(answer.outputs[alias].dtype)
    if given is not expected:
        raise InvalidInputError(
            f"output {alias!r} of signature {answer.signature.name!r} is {given.label}, "
            f"expected {expected.label}: cast it in the model, or use Predict",
            model=answer.spec.name,
        )


def _unexpected(answer: Prediction, alias: str, expected: str) -> TfServingError:
    return InvalidInputError(
        f"output {alias!r} of signature {answer.signature.name!r} has shape {answer.outputs[alias].shape}, "
        f"expected {expected}",
        model=answer.spec.name,
    )
