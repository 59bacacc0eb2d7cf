"""Predict requests in JSON: row and column format to arrays of the dtypes in the signature.

The rules are those of json_tensor.cc in TensorFlow Serving 2.20: which values a dtype accepts, and that a
value that does not fit an int8 wraps around. The service checks that no input is missing.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError, UnsupportedError
from tfserving.server.rest.json_body import (
    PIECE_VALUES,
    FlatArray,
    PathFormatter,
    flatten,
    in_pieces,
    parse_body,
    to_bytes,
)
from tfserving.server.rest.number_arrays import NumberArray, loads_numbers
from tfserving.server.server_options import LimitOptions
from tfserving.wire.dtypes import Array, Arrays, DType
from tfserving.wire.signatures import Signature, TensorInfo

# Size in bytes from which a body is parsed by number_arrays; smaller ones gain nothing from it.
LONG_BYTES = 4096


class Format(enum.Enum):
    """The two formats of a predict request, by the key that contains the tensors."""

    ROW = "instances"
    COLUMN = "inputs"


_FORMATS = {form.value: form for form in Format}


@dataclass
class PredictBody:
    """A predict request whose signature has not been looked up.

    Attributes:
        signature: the name in the request, "" if there is none.
        format: row or column; the response has the same format.
        value: the value of "instances" or "inputs".
    """

    signature: str
    format: Format
    value: Any

    def read(self, signature: Signature) -> Arrays:
        """The inputs by alias, each with the dtype in the signature; frees `value`.

        In row format the first dimension of every input is the number of instances.

        Raises:
            InvalidInputError: a value that the dtype does not accept, lists that are not rectangular, or an
                unknown input.
            UnsupportedError: in column format, a dtype that JSON values cannot be converted to.
        """
        if not signature.inputs:
            raise InvalidInputError(
                f"signature {signature.name!r} has no inputs; JSON cannot represent that: use gRPC"
            )
        value, self.value = self.value, None
        if self.format is Format.COLUMN:
            return _read_columns(value, signature)
        try:
            return _read_rows(value, signature)
        except UnsupportedError as error:
            # FillTensorMapFromInstancesList turns every error of an instance into INVALID_ARGUMENT
            raise InvalidInputError(str(error)) from error


def parse_predict(body: bytes, max_values: int = LimitOptions.max_json_values) -> PredictBody:
    """Parse as much of a predict request as does not depend on the signature.

    Raises:
        InvalidInputError: the body is not a JSON object with either "instances" or "inputs", or it has more
            than `max_values` values and is not a single array of numbers.
    """
    request = loads_numbers(body) if len(body) >= LONG_BYTES else None
    if request is None:
        request = parse_body(body, max_values)
    signature = signature_name(request)
    keys = _FORMATS.keys() & request.keys()
    if len(keys) != 1:
        count = "both" if keys else "neither"
        raise InvalidInputError(
            "the request must have exactly one of 'instances' (row format) and 'inputs' (column format); "
            f"it has {count}"
        )
    (key,) = keys
    form, value = _FORMATS[key], request[key]
    is_list = isinstance(value, NumberArray) or (isinstance(value, list) and value)
    if form is Format.ROW and not is_list:
        kind = "an empty list" if isinstance(value, list) else _describe(value)
        raise InvalidInputError(f"'instances' is {kind}; send a list of at least one instance")
    return PredictBody(signature, form, value)


def signature_name(request: Any) -> str:
    """The "signature_name" of a request, "" if there is none.

    Raises:
        InvalidInputError: the request is not a JSON object, or the name is not a string.
    """
    if not isinstance(request, dict):
        raise InvalidInputError(
            f'the body is {_describe(request)}; send a JSON object such as {{"instances": [...]}}'
        )
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidInputError(f"'signature_name' is {_describe(name)}; send the name as a string")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"'signature_name' is {_describe(name)}, which is not UTF-8") from error
    return name


def is_base64(value: Any) -> bool:
    """Whether a JSON value is {"b64": "..."}, the form of bytes."""
    return type(value) is dict and len(value) == 1 and isinstance(value.get("b64"), str)


def from_base64(value: dict[str, Any]) -> bytes:
    """The bytes of a {"b64": "..."}; white space and missing padding are accepted, as absl accepts them.

    Raises:
        ValueError: the object has another form, or its text is not base64.
    """
    if not is_base64(value):
        raise ValueError
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        text = "".join(text.split()).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _has_names(instance: Any) -> bool:
    return isinstance(instance, dict) and not is_base64(instance)


def _read_rows(instances: list[Any] | NumberArray, signature: Signature) -> Arrays:
    if isinstance(instances, NumberArray) or not _has_names(instances[0]):
        info = _only_input(signature, Format.ROW)
        if isinstance(instances, list):
            for index, instance in enumerate(instances):
                if _has_names(instance):
                    raise _mixed(index, "an object", "a plain value")
        return {info.name: _read_tensor(instances, info, partial(_element_path, "instances"))}
    names = instances[0].keys()
    for name in names:
        if name not in signature.inputs:
            raise InvalidInputError(
                f"instances[0] has {name!r}, which is not an input of {_known(signature)}"
            )
    for index, instance in enumerate(instances):
        if not _has_names(instance):
            raise _mixed(index, "a plain value", "an object")
        if instance.keys() != names:
            raise InvalidInputError(
                f"instances[{index}] has the keys {', '.join(sorted(instance))}, but instances[0] has "
                f"{', '.join(sorted(names))}; give every instance the same inputs"
            )
    return {
        name: _read_tensor(
            [instance[name] for instance in instances],
            signature.inputs[name],
            partial(_named_instance_path, name),
        )
        for name in names
    }


def _read_columns(value: Any, signature: Signature) -> Arrays:
    if not _has_names(value):
        info = _only_input(signature, Format.COLUMN)
        return {info.name: _read_tensor(value, info, partial(_element_path, "inputs"))}
    # FillTensorMapFromInputsMap ignores other keys; if one is misspelled, the service reports a missing input
    return {
        name: _read_tensor(value[name], info, partial(_element_path, f"inputs.{name}"))
        for name, info in signature.inputs.items()
        if name in value
    }


def _only_input(signature: Signature, form: Format) -> TensorInfo:
    if len(signature.inputs) > 1:
        raise InvalidInputError(
            f"'{form.value}' has values without input names, which {_known(signature)} needs; "
            + ("send each instance" if form is Format.ROW else "send 'inputs'")
            + " as an object with the names of the inputs as keys"
        )
    return next(iter(signature.inputs.values()))


def _known(signature: Signature) -> str:
    return f"signature {signature.name!r} (inputs: {', '.join(signature.inputs)})"


def _mixed(index: int, kind: str, first_kind: str) -> InvalidInputError:
    return InvalidInputError(
        f"instances[{index}] is {kind}, but instances[0] is {first_kind}; name the inputs in all instances "
        "or in none"
    )


def _subscripts(indices: tuple[int, ...]) -> str:
    return "".join(f"[{index}]" for index in indices)


def _named_instance_path(name: str, indices: tuple[int, ...]) -> str:
    return f"instances{_subscripts(indices[:1])}.{name}{_subscripts(indices[1:])}"


def _element_path(prefix: str, indices: tuple[int, ...]) -> str:
    return f"{prefix}{_subscripts(indices)}"


def _read_tensor(value: Any, info: TensorInfo, path_of: PathFormatter) -> Array:
    if isinstance(value, NumberArray):
        return _read_numbers(value, info, path_of)
    flat = flatten(value, path_of)
    if flat.values:
        _check_dtype(info)
    array = _convert(flat, info.dtype)
    if array is None:
        raise _invalid_value(flat, info, flat.shape, 0, path_of)
    return array.reshape(flat.shape)


def _read_numbers(numbers: NumberArray, info: TensorInfo, path_of: PathFormatter) -> Array:
    _check_dtype(info)
    array = numbers.as_type(_STRUCT_CODES[info.dtype]) if info.dtype in _STRUCT_CODES else None
    if array is None:
        converted: list[Array] = []
        for flat in numbers.pieces():
            piece = _convert(flat, info.dtype)
            if piece is None:
                raise _invalid_value(flat, info, numbers.shape, sum(map(len, converted)), path_of)
            converted.append(piece)
        array = np.concatenate(converted)
    return array.astype(info.dtype.numpy, copy=False).reshape(numbers.shape)


def _check_dtype(info: TensorInfo) -> None:
    if info.dtype not in JSON_DTYPES:
        raise UnsupportedError(
            f"input {info.name!r} is {info.dtype.label}, which JSON values cannot be converted to; use gRPC, "
            "or export the model with another dtype"
        )


# The code of the struct module that decides which numbers a dtype accepts, except that numbers beyond float32
# become infinite. Integers narrower than int32 take the low bits of one (AddValueToTensor, and
# Tensor::FromProto after it).
_STRUCT_CODES: Mapping[DType, str] = {
    DType.DT_FLOAT: "f",
    DType.DT_DOUBLE: "d",
    DType.DT_INT8: "i",
    DType.DT_INT16: "i",
    DType.DT_INT32: "i",
    DType.DT_UINT8: "i",
    DType.DT_UINT32: "I",
    DType.DT_INT64: "q",
    DType.DT_UINT64: "Q",
}
_NUMBER_TYPES = {int, float}
_RANGES = {"i": (-(2**31), 2**31 - 1), "I": (0, 2**32 - 1), "q": (-(2**63), 2**63 - 1), "Q": (0, 2**64 - 1)}
# In requests and responses (json_tensor.cc: AddValueToTensor, AddSingleValueAndAdvance).
JSON_DTYPES = frozenset((*_STRUCT_CODES, DType.DT_BOOL, DType.DT_STRING))


def _convert(flat: FlatArray, dtype: DType) -> Array | None:
    """The values as a flat array; None if the dtype does not accept one of them (see `_hint`)."""
    values = flat.values
    if not values:
        return np.empty(0, dtype.numpy)
    if dtype is DType.DT_BOOL:
        return np.array(values) if flat.types == {bool} else None
    if not flat.types <= ({str, dict} if dtype is DType.DT_STRING else _NUMBER_TYPES):
        return None
    convert = _convert_strings if dtype is DType.DT_STRING else _convert_numbers
    if len(values) <= PIECE_VALUES:
        return convert(values, dtype)
    array = np.empty(len(values), dtype.numpy)
    start = 0
    for piece in in_pieces(values):
        converted = convert(piece, dtype)
        if converted is None:
            return None
        array[start : start + len(piece)] = converted
        start += len(piece)
    return array


def _convert_numbers(values: list[Any], dtype: DType) -> Array | None:
    code = _STRUCT_CODES[dtype]
    try:
        # numpy takes three times as long, and accepts floats for integers
        data = struct.pack(f"<{len(values)}{code}", *values)
    except OverflowError:
        # only float32: JSON has no larger number than float64
        with np.errstate(over="ignore"):
            return np.array(values, np.float64).astype(dtype.numpy)
    except struct.error:
        return None
    return np.frombuffer(data, f"<{code}").astype(dtype.numpy, copy=False)


def _convert_strings(values: list[Any], dtype: DType) -> Array | None:
    array = np.empty(len(values), dtype.numpy)
    try:
        array[:] = [to_bytes(value) if type(value) is str else from_base64(value) for value in values]
    except ValueError:
        return None
    return array


def _invalid_value(
    flat: FlatArray, info: TensorInfo, shape: tuple[int, ...], first: int, path_of: PathFormatter
) -> InvalidInputError:
    """The error for the first value that the dtype does not accept.

    Args:
        shape: of the input, of which `flat` has the elements from the index `first` on.
    """
    for index, value in enumerate(flat.values, first):
        hint = _hint(value, info.dtype)
        if hint is not None:
            indices = tuple(map(int, np.unravel_index(index, shape))) if shape else ()
            return InvalidInputError(
                f"{path_of(indices)} is {_describe(value)}, but input {info.name!r} is {info.dtype.label}; "
                f"{hint}"
            )
    raise AssertionError("every value fits the dtype")


def _hint(value: Any, dtype: DType) -> str | None:
    """What to send in place of a JSON value that the dtype does not accept; None if it accepts the value."""
    kind = type(value)
    if dtype is DType.DT_STRING:
        return _string_hint(value)
    if dtype is DType.DT_BOOL:
        return None if kind is bool else "send true or false"
    if kind is bool:
        return "send 1 or 0"
    if kind is str:
        return "send the number without quotes"
    if kind not in _NUMBER_TYPES:
        return "send a number"
    code = _STRUCT_CODES[dtype]
    if code not in _RANGES:
        return None
    low, high = _RANGES[code]
    if kind is float and not abs(value) >= 2**63:
        return "send an integer, without a decimal point or exponent"
    return None if kind is int and low <= value <= high else f"send an integer from {low} to {high}"


def _string_hint(value: Any) -> str | None:
    if type(value) is str:
        return None
    if not isinstance(value, dict):
        return 'send a string, or bytes as {"b64": "..."}'
    try:
        from_base64(value)
    except ValueError:
        if not is_base64(value):
            return 'send bytes as an object with the single key "b64"'
        return "send valid base64 (RFC 4648, the alphabet with + and /)"
    return None


def _describe(value: Any) -> str:
    """A JSON value for an error message, truncated if it is long."""
    if isinstance(value, (list, NumberArray)):
        return "a list"
    if isinstance(value, dict):
        return 'a {"b64": ...}' if is_base64(value) else "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
