"""Predict requests in JSON: row and column format to arrays, by the signature that is called.

The rules are those of json_tensor.cc in TensorFlow Serving 2.20: what a dtype takes, what is refused, and
that what does not fit an int8 wraps around. Whether inputs are missing and shapes fit, the service says.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError, UnsupportedError
from tfserving.server.rest.json_body import Leaves, Place, flatten, loads
from tfserving.server.rest.number_arrays import Numbers, loads_numbers
from tfserving.wire.dtypes import DType
from tfserving.wire.limits import MAX_RANK
from tfserving.wire.signatures import Signature, TensorInfo

Array = np.ndarray[Any, Any]

# From this size on it pays to read an array of numbers as such; a small one takes three times as long so.
LARGE_BYTES = 4096


class Format(enum.Enum):
    """How the tensors of a request lie in it, named by the key they lie under."""

    ROW = "instances"
    COLUMN = "inputs"


@dataclass(frozen=True)
class PredictBody:
    """A predict request before its signature is known.

    Attributes:
        signature: the name that the request gives, "" for none.
        format: row or column; the answer is to be of the same format.
        value: what lies under "instances" or "inputs".
    """

    signature: str
    format: Format
    value: Any

    def read(self, signature: Signature) -> dict[str, Array]:
        """The request's inputs by alias, each of the dtype that the signature gives it.

        In row format all inputs have the number of instances as their first dimension.

        Raises:
            InvalidInputError: a value that the input's dtype cannot take, ragged lists, an unknown input.
            UnsupportedError: column format, and a dtype that JSON values cannot be converted to.
        """
        if not signature.inputs:
            raise InvalidInputError(f"signature {signature.name!r} has no inputs: JSON cannot call it")
        if self.format is Format.COLUMN:
            return _read_columns(self.value, signature)
        try:
            return _read_rows(self.value, signature)
        except UnsupportedError as error:
            # row format wraps every error of an instance into this code (FillTensorMapFromInstancesList)
            raise InvalidInputError(str(error)) from error


def parse_predict(body: bytes) -> PredictBody:
    """Reads as much of a predict request as needs no signature.

    Raises:
        InvalidInputError: no JSON object, or not exactly one of "instances" and "inputs" in it.
    """
    request = loads_numbers(body) if len(body) >= LARGE_BYTES else None
    if request is None:
        request = loads(body)
    signature = signature_name(request)
    formats = [form for form in Format if form.value in request]
    if len(formats) != 1:
        count = "both" if formats else "neither"
        raise InvalidInputError(
            f"the request has {count} of 'instances' (row format) and 'inputs' (column format): give one"
        )
    value = request[formats[0].value]
    if formats[0] is Format.ROW and (not isinstance(value, (list, Numbers)) or not _length(value)):
        given = "an empty list" if isinstance(value, list) else _spelled(value)
        raise InvalidInputError(f"'instances' is {given}: give a list with at least one instance")
    return PredictBody(signature, formats[0], value)


def signature_name(request: Any) -> str:
    """The "signature_name" of a request's JSON value, "" where there is none.

    Raises:
        InvalidInputError: the request is no JSON object, or the name no string.
    """
    if not isinstance(request, dict):
        raise InvalidInputError(
            f'the body is {_spelled(request)}: send a JSON object, as {{"instances": [...]}}'
        )
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidInputError(f"'signature_name' is {_spelled(name)}: give the name as a string")
    return name


def is_base64(value: Any) -> bool:
    """Whether a JSON value is {"b64": "..."}, the form that bytes have."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def from_base64(value: dict[str, Any]) -> bytes:
    """The bytes of a {"b64": "..."}; white space and missing padding are forgiven, as absl forgives them.

    Raises:
        ValueError: another object, or text that is not base64.
    """
    if not is_base64(value):
        raise ValueError
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        text = "".join(text.split()).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _length(value: list[Any] | Numbers) -> int:
    return value.shape[0] if isinstance(value, Numbers) else len(value)


def _is_named(instance: Any) -> bool:
    return isinstance(instance, dict) and not is_base64(instance)


def _read_rows(instances: list[Any] | Numbers, signature: Signature) -> dict[str, Array]:
    if isinstance(instances, Numbers) or not _is_named(instances[0]):
        info = _only_input(signature, Format.ROW)
        if isinstance(instances, list):
            for index, instance in enumerate(instances):
                if _is_named(instance):
                    raise _mixed(index, "an object", "a plain value")
        return {info.name: _read_tensor(instances, info, _place)}
    names = instances[0].keys()
    for name in names:
        if name not in signature.inputs:
            raise InvalidInputError(f"instances[0] has {name!r}, which is no input of {_known(signature)}")
    for index, instance in enumerate(instances):
        if not _is_named(instance):
            raise _mixed(index, "a plain value", "an object")
        if instance.keys() != names:
            raise InvalidInputError(
                f"instances[{index}] has the keys {', '.join(sorted(instance))} where instances[0] has "
                f"{', '.join(sorted(names))}: all instances must name the same inputs"
            )
    return {
        name: _read_tensor(
            [instance[name] for instance in instances], signature.inputs[name], partial(_place_named, name)
        )
        for name in names
    }


def _read_columns(value: Any, signature: Signature) -> dict[str, Array]:
    if not _is_named(value):
        info = _only_input(signature, Format.COLUMN)
        return {info.name: _read_tensor(value, info, partial(_place_column, "inputs"))}
    # other keys are passed over (FillTensorMapFromInputsMap); a misspelt one is missed by the service
    return {
        name: _read_tensor(value[name], info, partial(_place_column, f"inputs.{name}"))
        for name, info in signature.inputs.items()
        if name in value
    }


def _only_input(signature: Signature, form: Format) -> TensorInfo:
    if len(signature.inputs) > 1:
        raise InvalidInputError(
            f"'{form.value}' gives values without a name, and {_known(signature)}: "
            + ("make each instance an object" if form is Format.ROW else "make 'inputs' an object")
            + " with the inputs' names as keys"
        )
    return next(iter(signature.inputs.values()))


def _known(signature: Signature) -> str:
    return f"signature {signature.name!r} (inputs: {', '.join(signature.inputs)})"


def _mixed(index: int, one: str, first: str) -> InvalidInputError:
    return InvalidInputError(
        f"instances[{index}] is {one} where instances[0] is {first}: name the inputs in all or in none"
    )


def _subscripts(indices: tuple[int, ...]) -> str:
    return "".join(f"[{index}]" for index in indices)


def _place(indices: tuple[int, ...]) -> str:
    return f"instances{_subscripts(indices)}"


def _place_named(name: str, indices: tuple[int, ...]) -> str:
    return f"instances{_subscripts(indices[:1])}.{name}{_subscripts(indices[1:])}"


def _place_column(head: str, indices: tuple[int, ...]) -> str:
    return f"{head}{_subscripts(indices)}"


def _read_tensor(value: Any, info: TensorInfo, place: Place) -> Array:
    if isinstance(value, Numbers):
        array = value.packed(_PACKED[info.dtype]) if info.dtype in _PACKED else None
        if array is not None:
            return array.astype(info.dtype.numpy, copy=False).reshape(value.shape)
    leaves = value.leaves() if isinstance(value, Numbers) else flatten(value, place)
    if len(leaves.shape) > MAX_RANK:
        raise InvalidInputError(f"{place(())} has lists {len(leaves.shape)} deep: {MAX_RANK} is the most")
    if leaves.values and info.dtype not in _TAKEN:
        raise UnsupportedError(
            f"input {info.name!r} is {info.dtype.label}, which JSON values cannot be converted to: use gRPC, "
            "or export the model with another dtype"
        )
    array = _convert(leaves, info.dtype)
    if array is None:
        raise _refusal(leaves, info, place)
    return array.reshape(leaves.shape)


# How struct packs a JSON number for an input, which says what the dtype takes. Integers narrower than int32
# take the low bits of one (AddValueToTensor, and Tensor::FromProto after it).
_PACKED: Mapping[DType, str] = {
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
_NUMBERS = {int, float}
_RANGES = {"i": (-(2**31), 2**31 - 1), "I": (0, 2**32 - 1), "q": (-(2**63), 2**63 - 1), "Q": (0, 2**64 - 1)}
_TAKEN = frozenset((*_PACKED, DType.DT_BOOL, DType.DT_STRING))


def _convert(leaves: Leaves, dtype: DType) -> Array | None:
    """The flat array of some values, or None when one of them is not of the dtype: `_fault` says which."""
    values = leaves.values
    if not values:
        return np.empty(0, dtype.numpy)
    if dtype is DType.DT_BOOL:
        return np.array(values) if leaves.types == {bool} else None
    if dtype is DType.DT_STRING:
        return _convert_strings(leaves)
    if not leaves.types <= _NUMBERS:
        return None
    code = _PACKED[dtype]
    try:
        # numpy would take three times as long, and floats for integers
        data = struct.pack(f"<{len(values)}{code}", *values)
    except (struct.error, OverflowError):
        return None
    return np.frombuffer(data, f"<{code}").astype(dtype.numpy, copy=False)


def _convert_strings(leaves: Leaves) -> Array | None:
    if not leaves.types <= {str, dict}:
        return None
    array = np.empty(len(leaves.values), object)
    try:
        array[:] = [value.encode() if type(value) is str else from_base64(value) for value in leaves.values]
    except ValueError:
        return None
    return array


def _refusal(leaves: Leaves, info: TensorInfo, place: Place) -> InvalidInputError:
    for index, value in enumerate(leaves.values):
        fault = _fault(value, info.dtype)
        if fault is not None:
            indices = tuple(map(int, np.unravel_index(index, leaves.shape))) if leaves.shape else ()
            return InvalidInputError(
                f"{place(indices)} is {_spelled(value)}, and input {info.name!r} takes {info.dtype.label}: "
                f"{fault}"
            )
    raise AssertionError("called for values that are all of the dtype")


def _fault(value: Any, dtype: DType) -> str | None:
    """What is wrong with a JSON value for an input of a dtype, and what to do; None if nothing is."""
    kind = type(value)
    if dtype is DType.DT_STRING:
        return _string_fault(value)
    if dtype is DType.DT_BOOL:
        return None if kind is bool else "send true or false"
    if kind is bool:
        return "send 1 or 0"
    if kind is str:
        return "send the number without quotes"
    if kind not in _NUMBERS:
        return "send a number"
    code = _PACKED[dtype]
    if code not in _RANGES:
        holds = code == "d" or not math.isfinite(value) or abs(value) < _FLOAT32_OVERFLOW
        return None if holds else "it is too large for 32 bits"
    low, high = _RANGES[code]
    if kind is float and not abs(value) >= 2**63:
        return "send an integer, written without a decimal point or exponent"
    return None if kind is int and low <= value <= high else f"the range is {low} to {high}"


# Halfway between the largest float32 and the next power of two: from here on rounding gives infinity.
_FLOAT32_OVERFLOW = float(np.finfo(np.float32).max) + 2.0**103


def _string_fault(value: Any) -> str | None:
    try:
        if type(value) is str:
            value.encode()
        elif type(value) is dict:
            from_base64(value)
        else:
            return 'send a string, or bytes as {"b64": "..."}'
    except UnicodeEncodeError:
        return 'it has half of a surrogate pair; send bytes that are not text as {"b64": "..."}'
    except ValueError:
        if not is_base64(value):
            return 'send bytes as an object with the one key "b64"'
        return "that is not base64 (RFC 4648, the alphabet with + and /)"
    return None


def _spelled(value: Any) -> str:
    """A JSON value for an error message, cut where it is long."""
    if isinstance(value, (list, Numbers)):
        return "a list"
    if isinstance(value, dict):
        return 'a {"b64": ...}' if is_base64(value) else "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
