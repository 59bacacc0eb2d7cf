"""Arrays to and from the JSON of TensorFlow Serving's REST API.

In requests and responses NaN, Infinity and -Infinity are bare tokens, and bytes are `{"b64": "..."}`. orjson
is used if it is installed (about 15 times faster than `json` for a 600 kB tensor), except for values with
such tokens: it does not read them, and writes null.
"""

from __future__ import annotations

import base64
import binascii
import json
import operator
from typing import Any

import numpy as np

from tfserving.client.inputs import whole_numbers
from tfserving.errors import ProtocolError, UnsupportedError
from tfserving.wire.dtypes import Array, DType
from tfserving.wire.signatures import TensorInfo

_TO_LIST = operator.methodcaller("tolist")


def encode_json(value: Any, *, plain: bool) -> bytes:
    """Write dicts, lists, scalars and arrays; with `plain`, no number among them is NaN or infinite.

    Raises:
        UnicodeEncodeError: a str that UTF-8 cannot represent.
    """
    if plain:
        try:
            import orjson
        except ImportError:
            pass
        else:
            try:
                return orjson.dumps(value, default=_TO_LIST, option=orjson.OPT_SERIALIZE_NUMPY)
            except orjson.JSONEncodeError:
                pass  # json raises a more precise error
    return json.dumps(value, default=_TO_LIST, separators=(",", ":"), ensure_ascii=False).encode()


def decode_json(data: bytes) -> Any:
    """Read a response. Bytes of strings that are not UTF-8 become surrogates, as `from_json` expects.

    Raises:
        ProtocolError: the bytes are not JSON.
    """
    try:
        import orjson
    except ImportError:
        pass
    else:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # json also reads NaN and Infinity, and here strings that are not UTF-8
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            f"the response is not JSON ({len(data)} bytes, {error}): {data[:60]!r}"
        ) from error


def to_json(array: Array) -> tuple[Any, bool]:
    """A value for `encode_json`, and whether all of its numbers are finite.

    Raises:
        UnsupportedError: complex or quantized numbers, which JSON cannot represent.
    """
    dtype = DType.of(array.dtype)
    if dtype is DType.DT_STRING:
        return _strings(array.tolist()), True
    if array.dtype.kind == "c" or dtype.quantized_as:
        raise UnsupportedError(f"JSON cannot represent {dtype.label} numbers; use TfRpcClient")
    if dtype in (DType.DT_HALF, DType.DT_BFLOAT16):
        array = array.astype(np.float32)
    finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    if array.ndim == 0:
        return array.item(), finite
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")), finite


def _strings(value: Any) -> Any:
    if isinstance(value, list):
        return [_strings(item) for item in value]
    return value if isinstance(value, str) else encode_base64(value)


def encode_base64(value: bytes) -> dict[str, str]:
    """Bytes in the form of the REST API."""
    return {"b64": base64.b64encode(value).decode()}


def from_json(value: Any, info: TensorInfo) -> Array:
    """The array of an output with the dtype of the signature; strings as an object array of bytes.

    Raises:
        ProtocolError: the value has another kind, or is ragged.
    """
    try:
        array = _text(value) if info.dtype is DType.DT_STRING else _numbers(value, info)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise ProtocolError(
            f"output {info.name!r} of the response is not a {info.dtype.label} array: {value!r:.60}"
        ) from error
    if array.size == 0 and info.shape is not None and array.ndim < len(info.shape):
        # JSON has the same [] for the shapes (0, 3) and (0,)
        array = array.reshape(array.shape + tuple(size or 0 for size in info.shape[array.ndim :]))
    return array


def _numbers(value: Any, info: TensorInfo) -> Array:
    expected = info.dtype.numpy
    natural = np.array(value)
    whole = whole_numbers(value, natural, expected)
    if whole is not None:
        return whole
    kinds = {"b": "b", "i": "iu", "u": "iu"}.get(expected.kind, "iuf")
    if natural.size and natural.dtype.kind not in kinds:
        raise ValueError(natural.dtype)
    return natural.astype(expected)


def _text(value: Any) -> Array:
    array = np.array(_bytes(value), object)
    if not all(isinstance(item, bytes) for item in array.reshape(-1)):
        raise ValueError("ragged")
    return array


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    raise ValueError(value)
