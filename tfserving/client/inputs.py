"""Converts a caller's inputs (numbers, lists, arrays) to the arrays of a signature.

Python values have no dtype, so they take the signature's, unless it cannot hold them: 1.5 is not an int32,
300 not a uint8, "a" not a float. A numpy array of another dtype is rejected, as by the server (`Expects
arg[0] to be float but double is provided`), but before it is sent and with the name of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tfserving.client.options import is_encodable
from tfserving.errors import InvalidInputError, NotFoundError, ProtocolError
from tfserving.wire.dtypes import Array, Arrays, DType
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

_STRING_TYPES = {str, bytes}


def choose_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature with this name, "" for the default one.

    Raises:
        NotFoundError: the model has no such signature; the error lists the signatures that it has.
    """
    found = signatures.get(name or DEFAULT_SIGNATURE)
    if found is None:
        available = ", ".join(map(repr, signatures)) or "none"
        raise NotFoundError(
            f"the model has no signature {name or DEFAULT_SIGNATURE!r}; it has: {available} (pass signature=)"
        )
    return found


def arrays_for(signature: Signature, inputs: Any) -> Arrays:
    """The inputs by name, with the dtypes of the signature and shapes that it accepts.

    Args:
        signature: of the model.
        inputs: a mapping from names to values; for a signature with a single input, the value alone is
            enough. Values are arrays, objects with `__array__`, or Python numbers, strings, bytes and
            (nested) lists of them.

    Raises:
        InvalidInputError: a name, dtype, value or shape does not fit the signature.
    """
    if not isinstance(inputs, Mapping):
        inputs = {_only_input(signature): inputs}
    expected = signature.inputs
    if inputs.keys() != expected.keys():
        _check_names(signature, inputs)
    return {alias: _array_for(value, expected[alias], signature) for alias, value in inputs.items()}


def check_outputs(signature: Signature, outputs: Sequence[str]) -> None:
    """Raise InvalidInputError if the signature lacks one of the outputs."""
    unknown = [name for name in outputs if name not in signature.outputs]
    if unknown:
        raise InvalidInputError(
            f"signature {signature.name!r} has no output {unknown[0]!r}; it has: {_names(signature.outputs)}"
        )


def order_outputs(outputs: Arrays, expected: Sequence[str]) -> Arrays:
    """The outputs in the expected order; others (of a newer signature) follow.

    Raises:
        ProtocolError: an output is missing: a truncated response can still parse.
    """
    try:
        return {name: outputs[name] for name in expected} | outputs
    except KeyError as error:
        received = ", ".join(map(repr, outputs)) or "none"
        raise ProtocolError(f"the response lacks output {error}; it has: {received}") from error


def _only_input(signature: Signature) -> str:
    required = [alias for alias in signature.inputs if alias not in signature.defaults]
    names = required or list(signature.inputs)
    if len(names) != 1:
        raise InvalidInputError(
            f"signature {signature.name!r} has {len(names)} inputs, {_names(signature.inputs)}: "
            "pass a dict from their names to values"
        )
    return names[0]


def _check_names(signature: Signature, inputs: Mapping[str, Any]) -> None:
    for alias in inputs:
        if alias not in signature.inputs:
            raise InvalidInputError(
                f"signature {signature.name!r} has no input {alias!r}; it takes: {_names(signature.inputs)}"
            )
    missing = [alias for alias in signature.inputs if alias not in inputs and alias not in signature.defaults]
    if missing:
        raise InvalidInputError(
            f"signature {signature.name!r} needs input {missing[0]!r}, which is missing; "
            f"it takes: {_names(signature.inputs)}"
        )


def _array_for(value: Any, info: TensorInfo, signature: Signature) -> Array:
    held = info.dtype.quantized_as
    if held and getattr(value, "dtype", None) != info.dtype.numpy:
        return _array_for(value, replace(info, dtype=held), signature).view(info.dtype.numpy)
    if isinstance(value, np.ndarray):
        array = value
        given = _dtype_of(array, info, signature)
        if given is not info.dtype:
            hint = f"convert it: array.astype({info.dtype.label!r})"
            if info.dtype is DType.DT_STRING:
                hint = "pass str or bytes"
            raise _mismatch(info, signature, f"a {array.dtype.name} array", hint)
        if array.dtype == object:
            array = _strings_of(array, info, signature)
    elif hasattr(value, "__array__") and not isinstance(value, np.generic):
        return _array_for(np.asarray(value), info, signature)
    else:
        array = _converted(value, info, signature)
    if not info.is_valid_shape(array.shape):
        hint = ""
        if info.shape and info.shape[0] is None and info.is_valid_shape((1, *array.shape)):
            hint = "the first dimension is the batch: wrap the value in a list, or pass array[None]"
        raise _mismatch(info, signature, f"shape {array.shape}", hint)
    return array


def _dtype_of(array: Array, info: TensorInfo, signature: Signature) -> DType:
    try:
        return DType.of(array.dtype)
    except InvalidInputError as error:
        raise _mismatch(info, signature, f"a {array.dtype.name} array", "convert it first") from error


def _converted(value: Any, info: TensorInfo, signature: Signature) -> Array:
    """Python values as an array of the signature's dtype, if it can hold them."""
    if info.dtype is DType.DT_STRING:
        return _strings(value, info, signature)
    expected = info.dtype.numpy
    try:
        natural = np.array(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise _mismatch(info, signature, f"{value!r:.60}", "all rows must have one length") from error
    if natural.size == 0:
        return natural.astype(expected)
    if natural.dtype.char == "B" and _has_bytes(value):
        raise _mismatch(info, signature, f"{value!r:.60}", "bytes are not numbers; pass an array")
    whole = whole_numbers(value, natural, expected)
    if whole is not None:
        return whole
    kind = natural.dtype.kind
    # numpy has no kind for bfloat16, so it counts as real
    is_integer, is_real = expected.kind in "iu", expected.kind != "c"
    if kind not in "biufc" or (kind == "c" and is_real):
        raise _mismatch(info, signature, f"{value!r:.60}")
    with np.errstate(all="ignore"):
        array = natural.astype(expected)
        if is_integer or expected.kind == "b":
            fits = _same_integers(natural, array, expected)
        else:
            fits = bool((np.isfinite(array) | ~np.isfinite(natural)).all())
    if not fits:
        raise _mismatch(
            info, signature, f"{value!r:.60}", f"it has values that {info.dtype.label} cannot hold"
        )
    return array


def whole_numbers(value: Any, natural: Array, expected: np.dtype[Any]) -> Array | None:
    """Exact integers from a list that numpy converts to float64; None if they are not integers or do not fit.

    numpy does so with lists where only some of the values need uint64.

    Args:
        value: the list.
        natural: its array, as numpy converts it.
        expected: the dtype to convert to; None is returned unless it is an integer dtype.
    """
    if expected.kind not in "iu" or natural.dtype.kind != "f":
        return None
    limits = np.iinfo(expected)
    whole = np.array(value, object)
    fits = all(type(one) is int and limits.min <= one <= limits.max for one in whole.reshape(-1))
    return whole.astype(expected) if fits else None


def _same_integers(natural: Array, array: Array, expected: np.dtype[Any]) -> bool:
    if natural.dtype.kind in "iu" and expected.kind in "iu":
        limits = np.iinfo(expected)
        return limits.min <= int(natural.min()) and int(natural.max()) <= limits.max
    return bool((array == natural).all())


def _strings(value: Any, info: TensorInfo, signature: Signature) -> Array:
    try:
        array = np.array(value, object)
        if array.size and set(map(type, array.reshape(-1).tolist())) <= _STRING_TYPES:
            return array
    except ValueError:
        pass
    # numpy takes a bytearray or memoryview for a list of numbers
    try:
        array = np.array(_with_bytes(value), object)
    except ValueError as error:
        raise _mismatch(info, signature, f"{value!r:.60}", "all rows must have one length") from error
    return _strings_of(array, info, signature)


def _has_bytes(value: Any) -> bool:
    """Whether there is a bytearray or memoryview among the values, which numpy takes for a list of uint8."""
    return isinstance(value, (bytearray, memoryview)) or (
        isinstance(value, (list, tuple)) and any(map(_has_bytes, value))
    )


def _with_bytes(value: Any) -> Any:
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return [_with_bytes(one) for one in value] if isinstance(value, (list, tuple)) else value


def _strings_of(array: Array, info: TensorInfo, signature: Signature) -> Array:
    """The object array with bytes instead of bytearray and memoryview."""
    values = array.reshape(-1).tolist()
    if set(map(type, values)) <= _STRING_TYPES:
        return array
    others = [value for value in values if not isinstance(value, (str, bytes))]
    for value in others:
        if not isinstance(value, (bytearray, memoryview)):
            raise _mismatch(info, signature, f"{type(value).__name__} {value!r:.60}", "pass str or bytes")
    if not others:
        return array
    converted = np.empty(len(values), object)
    converted[:] = [_with_bytes(value) for value in values]
    return converted.reshape(array.shape)


def encoding_error(signature: Signature, arrays: Arrays) -> InvalidInputError:
    """The error for arrays with a str that UTF-8 cannot represent."""
    for alias, array in arrays.items():
        if array.dtype.kind in "UO":
            for value in array.reshape(-1).tolist():
                if isinstance(value, str) and not is_encodable(value):
                    hint = "UTF-8 cannot represent its surrogates: pass bytes"
                    return _mismatch(signature.inputs[alias], signature, f"str {value!r:.60}", hint)
    return InvalidInputError(f"signature {signature.name!r}: an input cannot be encoded")


def _mismatch(info: TensorInfo, signature: Signature, given: str, hint: str = "") -> InvalidInputError:
    return InvalidInputError(
        f"input {info.name!r} of signature {signature.name!r}: expected {info.dtype.label} "
        f"{info.shape_text}, given {given}{f'; {hint}' if hint else ''}"
    )


def _names(infos: Mapping[str, TensorInfo]) -> str:
    return ", ".join(map(repr, infos)) or "none"
