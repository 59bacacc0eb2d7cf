"""Classify and regress requests in JSON: objects to `tensorflow.Example`s.

The rules are those of json_tensor.cc in TensorFlow Serving 2.20 (AddValueToFeature): the spelling of a value
decides the type of a feature, 80.0 for float and 80 for int64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfserving.errors import InvalidInputError
from tfserving.server.rest.json_body import RepeatedKeys, parse_body, to_bytes
from tfserving.server.rest.predict_request import from_base64, is_base64, signature_name
from tfserving.server.server_options import LimitOptions
from tfserving.wire import messages


def parse_examples(body: bytes, max_values: int = LimitOptions.max_json_values) -> tuple[str, Any]:
    """The signature name of a classify or regress request, "" if there is none, and its `Input` message.

    Raises:
        InvalidInputError: the body is not a JSON object with examples, a feature cannot hold a value,
            or the body has more than `max_values` values.
    """
    request = parse_body(body, max_values)
    signature = signature_name(request)
    examples = request.get("examples")
    if not isinstance(examples, list) or not examples:
        raise InvalidInputError("the request has no 'examples'; send a list of at least one object")
    message = messages.Input()
    example_list = message.example_list
    if "context" in request:
        example_list = message.example_list_with_context
        example_list.context.CopyFrom(_to_example(request["context"], "context"))
    example_list.examples.extend(
        _to_example(value, f"examples[{index}]") for index, value in enumerate(examples)
    )
    return signature, message


def _to_example(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{path} is not an object; send one with the names of features as keys")
    example = messages.Example()
    # MakeExampleFromJsonObject assigns every value, so here the last of equal keys counts
    features = value.last if isinstance(value, RepeatedKeys) else value
    for name, content in features.items():
        try:
            _fill(example.features.feature[name], content if isinstance(content, list) else [content])
        except ValueError as error:
            raise InvalidInputError(f"{path}.{name}: {error}") from error
    return example


def _fill(feature: Any, values: list[Any]) -> None:
    kinds = {_KINDS.get(type(value), "") for value in values}
    if "" in kinds:
        raise ValueError(
            'a feature cannot hold the value; send numbers, strings, true, false or {"b64": "..."}, or a '
            "list of them"
        )
    if len(kinds) > 1:
        raise ValueError(
            "the values have different types; write all with a decimal point, all without, or all quoted"
        )
    for kind in kinds:
        converted = list(map(_CONVERT[kind], values))
        getattr(feature, kind).value.extend(converted)


_KINDS: dict[type, str] = {
    bool: "int64_list",
    int: "int64_list",
    float: "float_list",
    str: "bytes_list",
    dict: "bytes_list",
}


def _to_int64(value: int) -> int:
    if value >= 2**63:
        raise ValueError(f"{value} does not fit int64, the only integer type of features")
    return int(value)


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        return to_bytes(value)
    try:
        return from_base64(value)
    except ValueError as error:
        if is_base64(value):
            raise ValueError("the value of b64 is not base64") from error
        raise ValueError(
            'an object is not a value; send bytes as an object with the single key "b64"'
        ) from error


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "int64_list": _to_int64,
    "float_list": float,
    "bytes_list": _to_bytes,
}
