"""The bodies of REST answers: arrays and messages to JSON text."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from google.protobuf import json_format

from tfserving.errors import InvalidInputError
from tfserving.server.rest.predict_request import Format
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec

Array = np.ndarray[Any, Any]

# AddSingleValueAndAdvance in json_tensor.cc knows these and no others.
_WRITTEN = frozenset(
    (
        DType.DT_FLOAT,
        DType.DT_DOUBLE,
        DType.DT_INT8,
        DType.DT_INT16,
        DType.DT_INT32,
        DType.DT_INT64,
        DType.DT_UINT8,
        DType.DT_UINT32,
        DType.DT_UINT64,
        DType.DT_BOOL,
        DType.DT_STRING,
    )
)
# What a caller names can be of any length, and stands in the error that says that it is not known.
_MAX_ERROR = 4000
_FOR_PEOPLE = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def predictions(outputs: Mapping[str, Array], form: Format) -> bytes:
    """The answer to a predict request: {"predictions": [...]} in row format, else {"outputs": ...}.

    One output stands without its name. float32 values have the digits that tell them from their neighbours;
    NaN and infinities are the tokens NaN, Infinity and -Infinity, which RapidJSON and Python read. Strings of
    outputs named *_bytes are {"b64": "..."}; others are text, where what is not UTF-8 becomes U+FFFD.

    Raises:
        InvalidInputError: an output of a dtype that JSON does not have, or in row format outputs that are not
            one row for each of the same number of instances (MakeRowFormatJsonFromTensors).
    """
    if not outputs:
        raise InvalidInputError("the signature has no outputs, and there is no JSON for that: use gRPC")
    plain = {name: _plain(name, array) for name, array in outputs.items()}
    if form is Format.COLUMN:
        if len(plain) == 1:
            return b'{"outputs":%b}' % _text(*plain.values())
        return b'{"outputs":%b}' % _dumps(
            {name: orjson.Fragment(_text(array)) for name, array in plain.items()}
        )
    _check_rows(plain)
    if len(plain) == 1:
        return b'{"predictions":%b}' % _text(*plain.values())
    rows = zip(*map(_rows, plain.values()), strict=True)
    return b'{"predictions":%b}' % _dumps([dict(zip(plain, row, strict=True)) for row in rows])


def classifications(result: Any) -> bytes:
    """A `ClassificationResult` message: a list of [label, score] for each example."""
    if not result.classifications:
        raise InvalidInputError("there are no classifications to write")
    lists = [
        [[one.label, score] for one, score in zip(each.classes, _scores(each.classes, "score"), strict=True)]
        for each in result.classifications
    ]
    return b'{"results":%b}' % _dumps(lists)


def regressions(result: Any) -> bytes:
    """A `RegressionResult` message: a value for each example."""
    if not result.regressions:
        raise InvalidInputError("there are no regressions to write")
    return b'{"results":%b}' % _dumps(_scores(result.regressions, "value"))


def status(response: Any) -> bytes:
    """A `GetModelStatusResponse` message, indented."""
    return orjson.dumps(_as_json(response), option=_FOR_PEOPLE)


def metadata(spec: ModelSpec, signatures: Any) -> bytes:
    """A model's spec and `SignatureDefMap` message, indented."""
    answer = {
        "model_spec": _as_json(spec.to_message()),
        "metadata": {"signature_def": _as_json(signatures)},
    }
    return orjson.dumps(answer, option=_FOR_PEOPLE)


def error(text: str) -> bytes:
    """What every refusal carries: {"error": "..."}."""
    # a path or a name in the text can hold what came as bytes that are not UTF-8
    cut = text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]}..."
    clean = cut.encode("utf-8", "backslashreplace").decode()
    return orjson.dumps({"error": clean}, option=orjson.OPT_APPEND_NEWLINE)


def _plain(name: str, array: Array) -> Array:
    """The array as `_text` and `_rows` take it: strings as JSON values, numbers as orjson wants them."""
    dtype = DType.of(array.dtype)
    if dtype not in _WRITTEN:
        raise InvalidInputError(
            f"output {name!r} is {dtype.label}, which the REST API cannot write: use gRPC, or cast it in "
            "the model"
        )
    if dtype is DType.DT_STRING:
        write = _base64 if name.endswith("_bytes") else _decoded
        plain = np.empty(array.size, object)
        plain[:] = [write(value) for value in array.reshape(-1).tolist()]
        return plain.reshape(array.shape)
    # keeps the rank, which ascontiguousarray does not
    return np.asarray(array, dtype.numpy, order="C")


def _base64(value: bytes | str) -> dict[str, str]:
    data = value.encode() if isinstance(value, str) else value
    return {"b64": base64.b64encode(data).decode("ascii")}


def _decoded(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _text(array: Array) -> bytes:
    """The JSON of a whole array."""
    if array.dtype == object:
        return orjson.dumps(array.tolist())
    text = _dumps(array if array.ndim else array[()])
    if array.dtype.kind != "f":
        return text
    odd = array[~np.isfinite(array)]
    if not odd.size:
        return text
    # orjson writes null for each of them
    pieces = text.split(b"null")
    tokens = [
        b"NaN" if value != value else b"Infinity" if value > 0 else b"-Infinity" for value in odd.tolist()
    ]
    return pieces[0] + b"".join(token + piece for token, piece in zip(tokens, pieces[1:], strict=True))


def _rows(array: Array) -> list[Any]:
    """What orjson writes as the rows of an array."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [orjson.Fragment(_text(np.asarray(row))) for row in array]
    # not tolist for numbers: a Python float would show a float32 with the digits of a float64
    return array.tolist() if array.dtype == object else list(array)


def _check_rows(outputs: Mapping[str, Array]) -> None:
    sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    first = next(iter(sizes.values()))
    for name, size in sizes.items():
        if not size or size != first:
            raise InvalidInputError(
                f"output {name!r} has the shape {outputs[name].shape}, and row format needs one row for each "
                'instance in every output: send "inputs" instead of "instances"'
            )


def _scores(messages: Any, field: str) -> list[Any]:
    return _rows(np.array([getattr(message, field) for message in messages], np.float32))


def _as_json(message: Any) -> Any:
    # protobuf 5.26 renamed the option; what it does did not change for these messages
    try:
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    except TypeError:
        return json_format.MessageToDict(
            message,
            preserving_proto_field_name=True,
            including_default_value_fields=True,  # type: ignore[call-arg]
        )
