"""numpy arrays to and from `tensorflow.TensorProto` with protobuf; `predict` is faster for whole messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.wire import messages
from tfserving.wire.dtypes import Array, Arrays, DType, as_wire_array
from tfserving.wire.limits import MAX_MESSAGE_BYTES, MAX_RANK, FillLimit

if TYPE_CHECKING:
    from tfserving.wire.signatures import TensorInfo

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
_COMPLEX = frozenset((DType.DT_COMPLEX64, DType.DT_COMPLEX128))
# The dtypes of their bits, for dtypes that numbers cannot be assigned to.
_RAW_DTYPES = {
    **{dtype: held.numpy for dtype in VALUE_FIELDS if (held := dtype.quantized_as) is not None},
    DType.DT_HALF: np.dtype("<u2"),
    DType.DT_BFLOAT16: np.dtype("<u2"),
}

# Values that are converted at a time: each is a Python object until it is in the array.
_PIECE = 1 << 16

_WRONG_SUM = "has a tensor_content whose size is not the sum of the lengths of its strings"


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
    """Convert a `TensorProto` to an array; see `to_arrays`."""
    try:
        header = _read_header(proto)
        _check_filled(header.filled_bytes, FillLimit())
        return _read_values(proto, header)
    except ProtocolError as error:
        raise ProtocolError(f"a tensor {error}") from error


def to_arrays(
    protos: Mapping[str, Any],
    infos: Mapping[str, TensorInfo] | None = None,
    limit: FillLimit = FillLimit(),  # noqa: B008 - immutable
) -> Arrays:
    """Convert `TensorProto`s to arrays that own their memory; strings become object arrays of bytes.

    As in TensorFlow (tensor.cc, Tensor::FromProto), a repeated field that is shorter than the shape repeats
    its last value, an empty one means zeros, values beyond the shape are ignored, and so is everything for a
    shape without elements. All tensors are checked before the first array is allocated.

    Args:
        infos: the tensors that are accepted; None accepts any. A tensor whose values are not all given must
            have the dtype and rank in its `TensorInfo`. Others take no more memory than the message allows:
            the servable checks their dtypes, and the graph their shapes, as in tensorflow_model_server.
        limit: how many bytes may be filled with values that are not given.

    Raises:
        ProtocolError: the dtype or shape is missing or unknown, tensor_content does not fit the shape, or the
            limit is exceeded.
        InvalidInputError: `infos` does not have the tensor, or has another dtype or rank.
    """
    headers: dict[str, _Header] = {}
    filled_bytes = 0
    for alias, proto in protos.items():
        try:
            header = headers[alias] = _read_header(proto)
            if infos is not None:
                _check_info(header, alias, infos)
            filled_bytes += header.filled_bytes
            _check_filled(filled_bytes, limit)
        except ProtocolError as error:
            raise ProtocolError(f"tensor {alias!r} {error}") from error
    arrays: Arrays = {}
    for alias, header in headers.items():
        try:
            arrays[alias] = _read_values(protos[alias], header)
        except ProtocolError as error:
            raise ProtocolError(f"tensor {alias!r} {error}") from error
    return arrays


@dataclass(frozen=True)
class _Header:
    """A `TensorProto` except its values. `given` is the number of values in the repeated field of the dtype,
    or `count` if they are in tensor_content."""

    dtype: DType
    shape: tuple[int, ...]
    count: int
    given: int

    @property
    def filled_bytes(self) -> int:
        """The size of the array if some of its values are not given, else 0."""
        return self.count * self.dtype.numpy.itemsize if self.given < self.count else 0


def _read_header(proto: Any) -> _Header:
    dtype = DType.from_number(proto.dtype)
    if dtype not in VALUE_FIELDS:
        raise ProtocolError(f"has the dtype number {proto.dtype}, which cannot be received")
    if proto.tensor_shape.unknown_rank:
        raise ProtocolError("has no shape (unknown_rank is set)")
    dims = proto.tensor_shape.dim
    if len(dims) > MAX_RANK:
        raise ProtocolError(f"has {len(dims)} dimensions, the limit is {MAX_RANK}")
    shape = tuple(dim.size for dim in dims)
    count = count_elements(shape, dtype)
    if proto.tensor_content:
        return _Header(dtype, shape, count, count)
    given = len(getattr(proto, VALUE_FIELDS[dtype]))
    return _Header(dtype, shape, count, given // 2 if dtype in _COMPLEX else given)


def _check_info(header: _Header, alias: str, infos: Mapping[str, TensorInfo]) -> None:
    info = infos.get(alias)
    if info is None:
        raise InvalidInputError(
            f"input {alias!r} does not exist; the signature takes {', '.join(map(repr, infos)) or 'nothing'}"
        )
    if not header.filled_bytes:
        return
    if info.dtype is not header.dtype:
        raise InvalidInputError(
            f"input {alias!r} of the signature is {info.dtype.label}, the request has {header.dtype.label}"
        )
    if info.shape is not None and len(info.shape) != len(header.shape):
        raise InvalidInputError(
            f"input {alias!r} has {header.given} values for the shape {header.shape}, and the signature "
            f"has the shape {info.shape_text}; send all values, or a shape of this rank"
        )


def _check_filled(filled_bytes: int, limit: FillLimit) -> None:
    if filled_bytes > limit.bytes:
        raise ProtocolError(
            f"has fewer values than its shape; such tensors of a message may have {limit.bytes} bytes"
            + (f" ({limit.flag})" if limit.flag else "")
            + f", these have {filled_bytes}: send all values"
        )


def _read_values(proto: Any, header: _Header) -> Array:
    dtype, shape, count = header.dtype, header.shape, header.count
    if not count:
        return np.empty(shape, dtype.numpy)
    if proto.tensor_content:
        if dtype is DType.DT_STRING:
            return _split_strings(proto.tensor_content, count).reshape(shape)
        if len(proto.tensor_content) != count * dtype.numpy.itemsize:
            raise ProtocolError(
                f"has {len(proto.tensor_content)} bytes for the dtype {dtype.label} and the shape {shape}, "
                f"expected {count * dtype.numpy.itemsize}"
            )
        return np.frombuffer(proto.tensor_content, dtype.numpy).reshape(shape).copy()
    array = np.empty(count, dtype.numpy)
    # the array as it is filled: without the names of quantized dtypes, and with the bits of 16-bit floats
    raw = array.view(_RAW_DTYPES[dtype]) if dtype in _RAW_DTYPES else array
    values = getattr(proto, VALUE_FIELDS[dtype])
    given = min(header.given, count)
    width = 2 if dtype in _COMPLEX else 1
    for start in range(0, given, _PIECE):
        stop = min(start + _PIECE, given)
        piece = values[start * width : stop * width]
        if dtype is DType.DT_STRING:
            raw[start:stop] = piece
        else:
            numbers = np.array(piece, _FIELD_DTYPES.get(dtype) or dtype.numpy)
            raw[start:stop] = numbers.view(dtype.numpy) if width == 2 else numbers
    if given < count:
        raw[given:] = raw[given - 1] if given else b"" if dtype is DType.DT_STRING else 0
    return array.reshape(shape)


def count_elements(shape: tuple[int, ...], dtype: DType) -> int:
    """The number of elements of a shape.

    Raises:
        ProtocolError: a negative dimension, or more bytes than a message can have.
    """
    if any(size < 0 for size in shape):
        raise ProtocolError(f"has the shape {shape}; sizes cannot be negative")
    count = math.prod(shape)
    itemsize = dtype.numpy.itemsize
    if count * itemsize > MAX_MESSAGE_BYTES or math.prod(filter(None, shape)) * itemsize > _MAX_COUNTED:
        raise ProtocolError(
            f"has the dtype {dtype.label} and the shape {shape}, which exceeds the size of a message (2 GiB)"
        )
    return count


def _split_strings(data: bytes, count: int) -> Array:
    """Strings from tensor_content: all lengths as varints, then all bytes (tensor_coding.cc)."""
    if count > len(data):  # before anything is allocated for them
        raise ProtocolError(f"has a tensor_content that is too short for {count} strings")
    strings = np.empty(count, object)
    lengths = np.empty(count, np.int64)
    position = 0
    for index in range(count):
        length = shift = 0
        while True:
            if position >= len(data) or shift > 63:
                raise ProtocolError(f"has a tensor_content that is too short for {count} strings")
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if length > len(data):
            raise ProtocolError(_WRONG_SUM)
        lengths[index] = length
    if int(lengths.sum()) != len(data) - position:
        raise ProtocolError(_WRONG_SUM)
    for index in range(count):
        end = position + int(lengths[index])
        strings[index] = data[position:end]
        position = end
    return strings


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
