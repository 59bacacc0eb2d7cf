"""Classify and regress requests in JSON: objects to `tensorflow.Example`s.

The rules are those of json_tensor.cc in TensorFlow Serving 2.20 (AddValueToFeature): the kind of a feature
comes from how its values are written, 80.0 for a float and 80 for an int64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError
from tfserving.server.rest.json_body import loads
from tfserving.server.rest.predict_request import from_base64, is_base64, signature_name
from tfserving.wire import messages

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def parse_examples(body: bytes) -> tuple[str, Any]:
    """The signature that a classify or regress request names, "" for none, and its `Input` message.

    Raises:
        InvalidInputError: no JSON object, no examples in it, or a value that a feature cannot hold.
    """
    request = loads(body)
    signature = signature_name(request)
    examples = request.get("examples")
    if not isinstance(examples, list) or not examples:
        raise InvalidInputError("the request needs 'examples': a list with at least one object of features")
    message = messages.Input()
    into = message.example_list
    if "context" in request:
        into = message.example_list_with_context
        into.context.CopyFrom(_example(request["context"], "context"))
    into.examples.extend(_example(value, f"examples[{index}]") for index, value in enumerate(examples))
    return signature, message


def _example(value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{place} is no object: give one with the features' names as keys")
    example = messages.Example()
    for name, content in value.items():
        try:
            _fill(example.features.feature[name], content if isinstance(content, list) else [content])
        except ValueError as error:
            raise InvalidInputError(f"{place}.{name}: {error}") from error
    return example


def _fill(feature: Any, values: list[Any]) -> None:
    kinds = {_KINDS.get(type(value), "") for value in values}
    if "" in kinds:
        raise ValueError(
            'a feature holds numbers, strings, true, false and {"b64": "..."}, or a list of them'
        )
    if len(kinds) > 1:
        raise ValueError(
            "the values are of several kinds: write all with a decimal point, all without, or quoted"
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


def _as_int64(value: int) -> int:
    if value >= 2**63:
        raise ValueError(f"{value} does not fit int64, the only integers that a feature holds")
    return int(value)


def _as_float(value: float) -> float:
    if _FLOAT32_MAX < abs(value) < float("inf"):
        raise ValueError(f"{value} is too large for a float of 32 bits")
    return value


def _as_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        return value.encode()
    try:
        return from_base64(value)
    except ValueError as error:
        wrong = "that is not base64" if is_base64(value) else 'bytes are an object with the one key "b64"'
        raise ValueError(wrong) from error


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "int64_list": _as_int64,
    "float_list": _as_float,
    "bytes_list": _as_bytes,
}
