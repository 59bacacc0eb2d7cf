"""numpy arrays to and from `tensorflow.TensorProto` with protobuf; `predict` is faster for whole messages."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.wire import limits, messages
from tfserving.wire.dtypes import Array, DType, as_wire_array

# numpy's limit for the bytes of an array, counted without the dimensions of size 0.
_MAX_COUNTED = 2**63 - 1

# The repeated field for the values of a dtype, if they are not in tensor_content (tensor.proto, tensor.cc).
VALUE_FIELDS: dict[DType, str] = {
    DType.DT_FLOAT: "float_val",
    DType.DT_DOUBLE: "double_val",
    DType.DT_INT8: "int_val",
    DType.DT_INT16: "int_val",
    DType.DT_INT32: "int_val",
    DType.DT_UINT8: "int_val",
    DType.DT_UINT16: "int_val",
    DType.DT_QINT8: "int_val",
    DType.DT_QUINT8: "int_val",
    DType.DT_QINT16: "int_val",
    DType.DT_QUINT16: "int_val",
    DType.DT_QINT32: "int_val",
    DType.DT_INT64: "int64_val",
    DType.DT_UINT32: "uint32_val",
    DType.DT_UINT64: "uint64_val",
    DType.DT_BOOL: "bool_val",
    DType.DT_COMPLEX64: "scomplex_val",
    DType.DT_COMPLEX128: "dcomplex_val",
    DType.DT_HALF: "half_val",
    DType.DT_BFLOAT16: "half_val",
    DType.DT_STRING: "string_val",
}
# The dtypes of the values in these fields, if they differ from the dtype of the tensor.
_FIELD_DTYPES = {
    **{dtype: "<i4" for dtype, name in VALUE_FIELDS.items() if name in ("int_val", "half_val")},
    DType.DT_COMPLEX64: "<f4",
    DType.DT_COMPLEX128: "<f8",
}


def to_proto(array: Array, *, tensor_content: bool = True) -> Any:
    """Convert an array to a `TensorProto`.

    Strings (`U`, `S` or object arrays of str and bytes; str is encoded as UTF-8) are always in `string_val`.
    Numbers are in `tensor_content`, or with `tensor_content=False` in the repeated field of their dtype, as
    in the responses of tensorflow_model_server by default.

    Raises:
        InvalidInputError: the dtype has no TensorFlow counterpart, or an object array has values other than
            str and bytes.
    """
    dtype = DType.of(array.dtype)
    proto = messages.TensorProto(dtype=int(dtype))
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype is DType.DT_STRING:
        proto.string_val.extend(_to_bytes(value) for value in array.reshape(-1).tolist())
        return proto
    array = as_wire_array(array)
    if tensor_content:
        proto.tensor_content = array.tobytes()
        return proto
    flat = array.reshape(-1)
    if dtype in (DType.DT_HALF, DType.DT_BFLOAT16):
        flat = flat.view("<u2")
    elif dtype.quantized_as:
        flat = flat.view(dtype.quantized_as.numpy)
    elif dtype is DType.DT_COMPLEX64:
        flat = flat.view("<f4")
    elif dtype is DType.DT_COMPLEX128:
        flat = flat.view("<f8")
    getattr(proto, VALUE_FIELDS[dtype]).extend(flat.tolist())
    return proto


def to_array(proto: Any) -> Array:
    """Convert a `TensorProto` to an array that owns its memory; strings as an object array of bytes.

    As in TensorFlow (tensor.cc, Tensor::FromProto), a repeated field that is shorter than the shape repeats
    its last value, an empty one means zeros, values beyond the shape are ignored, and so is everything for a
    shape without elements.

    Raises:
        ProtocolError: the dtype or shape is missing or unknown, or tensor_content does not fit the shape.
    """
    dtype = DType.from_number(proto.dtype)
    if dtype not in VALUE_FIELDS:
        raise ProtocolError(f"a tensor has the dtype number {proto.dtype}, which cannot be received")
    if proto.tensor_shape.unknown_rank:
        raise ProtocolError("a tensor has no shape (unknown_rank is set)")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = count_elements(shape, dtype)
    if not count:
        return np.empty(shape, dtype.numpy)
    if proto.tensor_content:
        if dtype is DType.DT_STRING:
            return _object_array(_split_strings(proto.tensor_content, count), shape)
        if len(proto.tensor_content) != count * dtype.numpy.itemsize:
            raise ProtocolError(
                f"{len(proto.tensor_content)} bytes for a {dtype.label} tensor of shape {shape}, "
                f"expected {count * dtype.numpy.itemsize}"
            )
        return np.frombuffer(proto.tensor_content, dtype.numpy).reshape(shape).copy()
    values = getattr(proto, VALUE_FIELDS[dtype])
    if dtype is DType.DT_STRING:
        fill = values[-1] if values else b""
        return _object_array([*values[:count], *[fill] * (count - len(values))], shape)
    raw = np.array(values, _FIELD_DTYPES.get(dtype) or dtype.numpy)
    if dtype in (DType.DT_COMPLEX64, DType.DT_COMPLEX128):
        raw = raw[: raw.size // 2 * 2].view(dtype.numpy)
    raw = raw[:count]
    if raw.size < count:
        fill = raw[-1] if raw.size else raw.dtype.type(0)
        raw = np.concatenate([raw, np.full(count - raw.size, fill, raw.dtype)])
    if dtype in (DType.DT_HALF, DType.DT_BFLOAT16):
        raw = raw.astype("<u2").view(dtype.numpy)
    elif raw.dtype != dtype.numpy:
        raw = raw.astype(dtype.numpy)
    return raw.reshape(shape)


def count_elements(shape: tuple[int, ...], dtype: DType) -> int:
    """The number of elements of a shape.

    Raises:
        ProtocolError: a negative dimension, more dimensions than an array can have, or more bytes than a
            message can have (a few bytes on the wire must not allocate memory without limit).
    """
    if len(shape) > limits.MAX_RANK:
        raise ProtocolError(f"a tensor has {len(shape)} dimensions, the limit is {limits.MAX_RANK}")
    if any(size < 0 for size in shape):
        raise ProtocolError(f"a tensor has the shape {shape}; sizes cannot be negative")
    count = math.prod(shape)
    itemsize = dtype.numpy.itemsize
    if (
        count * itemsize > limits.MAX_MESSAGE_BYTES
        or math.prod(filter(None, shape)) * itemsize > _MAX_COUNTED
    ):
        raise ProtocolError(f"a {dtype.label} tensor of shape {shape} exceeds the size of a message (2 GiB)")
    return count


def _object_array(values: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def _split_strings(data: bytes, count: int) -> list[bytes]:
    """Strings from tensor_content: all lengths as varints, then all bytes (tensor_coding.cc)."""
    lengths: list[int] = []
    position = 0
    while len(lengths) < count:
        length = shift = 0
        while True:
            if position >= len(data) or shift > 63:
                raise ProtocolError(f"tensor_content is too short for the lengths of {count} strings")
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if sum(lengths) != len(data) - position:
        raise ProtocolError("the size of tensor_content is not the sum of the lengths of its strings")
    ends = np.cumsum([position, *lengths]).tolist()
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def _to_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise InvalidInputError(
        f"a string tensor has a {type(value).__name__} ({value!r:.60}); pass str or bytes"
    )
