"""From what a caller has, numbers, lists, arrays, to the arrays that a signature wants.

Python values have no dtype, so they take the signature's, unless it cannot hold them: 1.5 is no int32, 300 no
uint8, "a" no float. A numpy array says what it is, so one of another dtype is refused, as the server would
(`Expects arg[0] to be float but double is provided`), but before it is sent and with its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError, NotFoundError, ProtocolError
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

Array = np.ndarray[Any, Any]


def choose(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature of that name, "" for the default one.

    Raises:
        NotFoundError: the model has none of that name; the error lists those that it has.
    """
    found = signatures.get(name or DEFAULT_SIGNATURE)
    if found is None:
        there = ", ".join(map(repr, signatures)) or "none"
        raise NotFoundError(
            f"no signature {name or DEFAULT_SIGNATURE!r}; the model has: {there} (choose with signature=)"
        )
    return found


def arrays_for(signature: Signature, inputs: Any) -> dict[str, Array]:
    """The inputs by name, each of the dtype that the signature wants and of a shape that fits.

    Args:
        signature: what the model takes.
        inputs: a mapping from names to values; or, for a signature with one input, just the value. Values are
            arrays, anything numpy reads as one (`__array__`), or Python numbers, strings, bytes and (nested)
            lists of them.

    Raises:
        InvalidInputError: a name, dtype, value or shape that does not fit; says which, what was expected and
            what was given.
    """
    if not isinstance(inputs, Mapping):
        inputs = {_only_input(signature): inputs}
    wanted = signature.inputs
    if inputs.keys() != wanted.keys():
        _check_names(signature, inputs)
    return {alias: _array_for(value, wanted[alias], signature) for alias, value in inputs.items()}


def check_outputs(signature: Signature, outputs: Sequence[str]) -> None:
    """Raises InvalidInputError when one of the wanted outputs is none of the signature's."""
    unknown = [name for name in outputs if name not in signature.outputs]
    if unknown:
        raise InvalidInputError(
            f"signature {signature.name!r} has no output {unknown[0]!r}; it has: {_names(signature.outputs)}"
        )


def in_order(results: dict[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
    """The results with the wanted outputs first; others (of a newer signature) follow.

    Raises:
        ProtocolError: a wanted output is not among them: bytes that broke off can still parse.
    """
    if len(results) == 1 and len(wanted) == 1 and wanted[0] in results:
        return results
    try:
        return {name: results[name] for name in wanted} | results
    except KeyError as error:
        there = ", ".join(map(repr, results)) or "none"
        raise ProtocolError(f"the answer lacks output {error}; it has: {there}") from error


def _only_input(signature: Signature) -> str:
    required = [alias for alias in signature.inputs if alias not in signature.defaults]
    names = required or list(signature.inputs)
    if len(names) != 1:
        raise InvalidInputError(
            f"signature {signature.name!r} has {len(names)} inputs, {_names(signature.inputs)}: "
            "give a mapping from their names to values"
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
            f"signature {signature.name!r} needs input {missing[0]!r}, which was not given; "
            f"it takes: {_names(signature.inputs)}"
        )


def _array_for(value: Any, info: TensorInfo, signature: Signature) -> Array:
    if isinstance(value, np.ndarray):
        array = value
        given = _dtype_of(array, info, signature)
        if given is not info.dtype:
            mend = f"convert it: array.astype({info.dtype.label!r})"
            if info.dtype is DType.DT_STRING:
                mend = "give str or bytes"
            raise _refusal(info, signature, f"a {array.dtype.name} array", mend)
        if array.dtype == object:
            _check_strings(array, info, signature)
    elif hasattr(value, "__array__") and not isinstance(value, np.generic):
        return _array_for(np.asarray(value), info, signature)
    else:
        array = _converted(value, info, signature)
    if not info.accepts(array.shape):
        mend = ""
        if info.shape and info.shape[0] is None and info.accepts((1, *array.shape)):
            mend = "the first dimension is the batch: wrap the value in a list, or give array[None]"
        raise _refusal(info, signature, f"shape {array.shape}", mend)
    return array


def _dtype_of(array: Array, info: TensorInfo, signature: Signature) -> DType:
    try:
        return DType.of(array.dtype)
    except InvalidInputError as error:
        raise _refusal(info, signature, f"a {array.dtype.name} array", "convert it first") from error


def _converted(value: Any, info: TensorInfo, signature: Signature) -> Array:
    """Python values as an array of the signature's dtype; only values that this dtype holds."""
    if info.dtype is DType.DT_STRING:
        return _strings(value, info, signature)
    wanted = info.dtype.numpy
    try:
        natural = np.array(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise _refusal(info, signature, f"{value!r:.60}", "are all of its rows of one length?") from error
    if natural.size == 0:
        return natural.astype(wanted)
    whole = whole_numbers(value, natural, wanted)
    if whole is not None:
        return whole
    kind = natural.dtype.kind
    # bfloat16 is of no kind that numpy knows
    is_integer, is_real = wanted.kind in "iu", wanted.kind != "c"
    if kind not in "biufc" or (kind == "c" and is_real):
        raise _refusal(info, signature, f"{value!r:.60}")
    with np.errstate(all="ignore"):
        array = natural.astype(wanted)
        if is_integer or wanted.kind == "b":
            fits = _same_integers(natural, array, wanted)
        else:
            fits = bool((np.isfinite(array) | ~np.isfinite(natural)).all())
    if not fits:
        raise _refusal(info, signature, f"{value!r:.60}", f"not all of it is a {info.dtype.label}")
    return array


def whole_numbers(value: Any, natural: Array, wanted: np.dtype[Any]) -> Array | None:
    """Integers that numpy reads as float64, exactly; None where they are none or do not fit.

    That is what it does with lists of which some values need uint64 and others do not.

    Args:
        value: what was given.
        natural: what numpy made of it.
        wanted: an integer dtype, or any other, for which there is nothing to do.
    """
    if wanted.kind not in "iu" or natural.dtype.kind != "f":
        return None
    limits = np.iinfo(wanted)
    whole = np.array(value, object)
    fits = all(type(one) is int and limits.min <= one <= limits.max for one in whole.reshape(-1))
    return whole.astype(wanted) if fits else None


def _same_integers(natural: Array, array: Array, wanted: np.dtype[Any]) -> bool:
    if natural.dtype.kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        return limits.min <= int(natural.min()) and int(natural.max()) <= limits.max
    return bool((array == natural).all())


def _strings(value: Any, info: TensorInfo, signature: Signature) -> Array:
    try:
        array = np.array(value, object)
    except ValueError as error:
        raise _refusal(info, signature, f"{value!r:.60}", "are all of its rows of one length?") from error
    _check_strings(array, info, signature)
    return array


def _check_strings(array: Array, info: TensorInfo, signature: Signature) -> None:
    for value in array.reshape(-1).tolist():
        if not isinstance(value, (str, bytes)):
            raise _refusal(info, signature, f"{type(value).__name__} {value!r:.60}", "give str or bytes")


def _refusal(info: TensorInfo, signature: Signature, given: str, mend: str = "") -> InvalidInputError:
    return InvalidInputError(
        f"input {info.name!r} of signature {signature.name!r}: expected {info.dtype.label} "
        f"{info.shape_text}, given {given}{f'; {mend}' if mend else ''}"
    )


def _names(infos: Mapping[str, TensorInfo]) -> str:
    return ", ".join(map(repr, infos)) or "none"
