"""The bodies of REST responses: arrays and messages to JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from google.protobuf import json_format

from tfserving.errors import InvalidInputError
from tfserving.server.rest.float32_digits import round_to_digits
from tfserving.server.rest.json_body import PIECE_VALUES, to_bytes
from tfserving.server.rest.predict_request import JSON_DTYPES, Format
from tfserving.wire.dtypes import Array, DType
from tfserving.wire.model_spec import ModelSpec

# Characters of an error: names from requests, of any length, can be part of it.
_MAX_ERROR_LENGTH = 4000
_INDENTED = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def encode_predictions(outputs: Mapping[str, Array], form: Format) -> bytes:
    """The response to a predict request: {"predictions": [...]} in row format, else {"outputs": ...}.

    A single output has no name. float32 values have the digits of `round_to_digits`, float64 values the
    fewest digits that identify them. NaN and infinities are the tokens NaN, Infinity and -Infinity, which
    RapidJSON and Python parse. Strings of outputs named *_bytes become {"b64": "..."}; other strings stay as
    they are, also if they are not UTF-8.

    Raises:
        InvalidInputError: the dtype of an output cannot be written as JSON; or in row format, the first
            dimensions of the outputs differ or are missing (MakeRowFormatJsonFromTensors).
    """
    if not outputs:
        raise InvalidInputError("the signature has no outputs; JSON cannot represent that: use gRPC")
    prepared = {name: _prepare(name, array) for name, array in outputs.items()}
    if form is Format.COLUMN:
        if len(prepared) == 1:
            return b'{"outputs":%b}' % _encode_array(*prepared.values())
        return b'{"outputs":%b}' % _dumps(
            {name: orjson.Fragment(_encode_array(array)) for name, array in prepared.items()}
        )
    count = _count_rows(prepared)
    if len(prepared) == 1:
        return b'{"predictions":%b}' % _encode_array(*prepared.values())
    size = sum(array.size for array in prepared.values())
    step = max(1, count * PIECE_VALUES // max(1, size))
    pieces = [_encode_rows(prepared, slice(start, start + step)) for start in range(0, count, step)]
    return b'{"predictions":[%b]}' % b",".join(pieces)


def encode_classifications(result: Any) -> bytes:
    """The response for a `ClassificationResult` message: a list of [label, score] for each example."""
    if not result.classifications:
        raise InvalidInputError("the result has no classifications; JSON cannot represent that: use gRPC")
    lists = [
        [
            [label.label, score]
            for label, score in zip(entry.classes, _scores(entry.classes, "score"), strict=True)
        ]
        for entry in result.classifications
    ]
    return b'{"results":%b}' % _dumps(lists)


def encode_regressions(result: Any) -> bytes:
    """The response for a `RegressionResult` message: a value for each example."""
    if not result.regressions:
        raise InvalidInputError("the result has no regressions; JSON cannot represent that: use gRPC")
    return b'{"results":%b}' % _dumps(_scores(result.regressions, "value"))


def encode_status(response: Any) -> bytes:
    """The response for a `GetModelStatusResponse` message, indented."""
    return orjson.dumps(_as_json(response), option=_INDENTED)


def encode_metadata(spec: ModelSpec, signatures: Any) -> bytes:
    """The response for the spec of a model and its `SignatureDefMap` message, indented."""
    response = {
        "model_spec": _as_json(spec.to_message()),
        "metadata": {"signature_def": _as_json(signatures)},
    }
    return orjson.dumps(response, option=_INDENTED)


def encode_error(text: str) -> bytes:
    """The body of every error: {"error": "..."}."""
    # the text can contain a path or a name whose bytes were not UTF-8
    truncated = text if len(text) <= _MAX_ERROR_LENGTH else f"{text[:_MAX_ERROR_LENGTH]}..."
    clean = truncated.encode("utf-8", "backslashreplace").decode()
    return orjson.dumps({"error": clean}, option=orjson.OPT_APPEND_NEWLINE)


def _prepare(name: str, array: Array) -> Array:
    """The array for `_encode_array` and `_rows`: strings as JSON values, numbers in the layout for orjson."""
    dtype = DType.of(array.dtype)
    if dtype not in JSON_DTYPES:
        raise InvalidInputError(
            f"output {name!r} is {dtype.label}; JSON cannot represent it: use gRPC, or cast it in the model"
        )
    if dtype is DType.DT_STRING:
        to_json = _to_base64 if name.endswith("_bytes") else _to_text
        prepared = np.empty(array.size, object)
        prepared[:] = [to_json(value) for value in array.reshape(-1).tolist()]
        return prepared.reshape(array.shape)
    # not ascontiguousarray, which turns a scalar into a vector
    native = np.asarray(array, dtype.numpy, order="C")
    return round_to_digits(native) if dtype is DType.DT_FLOAT else native


def _to_base64(value: bytes | str) -> dict[str, str]:
    data = value.encode() if isinstance(value, str) else value
    return {"b64": base64.b64encode(data).decode("ascii")}


def _to_text(value: bytes | str) -> str | orjson.Fragment:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        text = json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False)
        return orjson.Fragment(to_bytes(text))


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _encode_array(array: Array) -> bytes:
    """An array as JSON; a large one in pieces, since orjson holds the interpreter lock."""
    return _encode_piece(array) if array.size <= PIECE_VALUES else b"".join(_encode_pieces(array))


def _encode_pieces(array: Array) -> Iterator[bytes]:
    """The JSON of an array with more than PIECE_VALUES values."""
    row_size = array.size // len(array)
    yield b"["
    if row_size > PIECE_VALUES:
        for index, row in enumerate(array):
            if index:
                yield b","
            yield from _encode_pieces(row)
    else:
        step = PIECE_VALUES // row_size
        for start in range(0, len(array), step):
            if start:
                yield b","
            yield _encode_piece(array[start : start + step])[1:-1]
    yield b"]"


def _encode_piece(array: Array) -> bytes:
    if array.dtype == object:
        return orjson.dumps(array.tolist())
    text = _dumps(array if array.ndim else array[()])
    # orjson writes null for each number that is not finite
    if array.dtype.kind != "f" or b"null" not in text:
        return text
    non_finite = array[~np.isfinite(array)]
    pieces = text.split(b"null")
    tokens = [
        b"NaN" if value != value else b"Infinity" if value > 0 else b"-Infinity"
        for value in non_finite.tolist()
    ]
    return pieces[0] + b"".join(token + piece for token, piece in zip(tokens, pieces[1:], strict=True))


def _encode_rows(outputs: Mapping[str, Array], part: slice) -> bytes:
    """Some rows of several outputs as JSON, without the brackets around them."""
    rows = zip(*(_rows(array[part]) for array in outputs.values()), strict=True)
    return _dumps([dict(zip(outputs, row, strict=True)) for row in rows])[1:-1]


def _rows(array: Array) -> list[Any]:
    """The rows of an array, each a value that orjson can serialize."""
    is_large = array.size > PIECE_VALUES * len(array)
    if is_large or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        return [orjson.Fragment(_encode_array(np.asarray(row))) for row in array]
    # not tolist for numbers: orjson writes rows of numpy faster
    return array.tolist() if array.dtype == object else list(array)


def _count_rows(outputs: Mapping[str, Array]) -> int:
    """The first dimension of the outputs, which have to share it."""
    sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    first = next(iter(sizes.values()))
    for name, size in sizes.items():
        if not size or size != first:
            raise InvalidInputError(
                f"output {name!r} has the shape {outputs[name].shape}, but row format needs one row for each "
                'instance in every output; send "inputs" instead of "instances"'
            )
    return int(first or 0)


def _scores(messages: Any, field: str) -> list[Any]:
    return _rows(round_to_digits(np.array([getattr(message, field) for message in messages], np.float32)))


def _as_json(message: Any) -> Any:
    # protobuf 5.26 renamed the option; the effect on these messages is the same
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
