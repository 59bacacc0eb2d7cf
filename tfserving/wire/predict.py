"""PredictRequest and PredictResponse to and from numpy, for about the cost of one memcpy.

Both messages have a model spec and a map from names to tensors. Writing joins cached heads with the bytes of
the arrays. Reading scans the tags, and takes views where a tensor is only a dtype, a shape and one run of raw
values. protobuf parses every other message, invalid ones included, so it alone decides what is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.wire import huge_pages, limits, messages, tensors
from tfserving.wire.dtypes import Array, Arrays, DType, as_wire_array
from tfserving.wire.limits import FillLimit
from tfserving.wire.message_layout import Layout, Layouts, TensorSpan
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature

T = TypeVar("T")

_FILL_LIMIT = FillLimit()


@dataclass(frozen=True)
class PredictCall:
    """A PredictRequest whose signature has not been looked up.

    Attributes:
        spec: the model.
        tensors: the inputs by alias, either all as arrays or all as `TensorProto`s.
        outputs: the aliases of the outputs to return (empty: all).
    """

    spec: ModelSpec
    tensors: Mapping[str, Any]
    outputs: tuple[str, ...] = ()
    is_decoded: bool = False

    def read(
        self, signature: Signature | None = None, fill_limit: FillLimit = _FILL_LIMIT
    ) -> Mapping[str, Array]:
        """The inputs by alias. Arrays may be read-only views of the message.

        Args:
            signature: inputs that are still to be converted must have the names, dtypes and ranks in it.

        Raises:
            ProtocolError, InvalidInputError: see `tensors.to_arrays`.
        """
        if self.is_decoded:
            return self.tensors
        return tensors.to_arrays(self.tensors, signature.inputs if signature else None, fill_limit)


def encode_request(spec: ModelSpec, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> bytes:
    """A serialized `PredictRequest`; numbers are sent as `tensor_content`, strings as `string_val`.

    Raises:
        InvalidInputError: a dtype that TensorFlow lacks, or a message of 2 GiB or more.
    """
    return RequestWriter(spec, outputs).write(inputs)


class RequestWriter:
    """Writes requests for one spec and selection of outputs; caches what they have in common.

    Args:
        spec, outputs: see `encode_request`.
    """

    def __init__(self, spec: ModelSpec, outputs: Sequence[str] = ()) -> None:
        self._head = _spec_field(spec, _REQUEST_SPEC)
        self._tail = b"".join(_delimited(_REQUEST_FILTER, name.encode()) for name in outputs)
        self._size = len(self._head) + len(self._tail)
        # the bytes before the values of an array, by its name, dtype and shape
        self._heads: dict[tuple[str, np.dtype[Any], tuple[int, ...]], bytes] = {}

    def write(self, inputs: Mapping[str, Array]) -> bytes:
        """See `encode_request`."""
        return self.write_cached(inputs) or self._write(inputs)

    def write_cached(self, inputs: Mapping[str, Any]) -> bytes | None:
        """The same as `write` if every input is an array with a name, dtype and shape written before, else
        None."""
        heads = self._heads
        parts: list[Any] = [self._head]
        size = self._size
        for alias, array in inputs.items():
            if type(array) is not np.ndarray:
                return None
            head = heads.get((alias, array.dtype, array.shape))
            if head is None or not array.flags.c_contiguous:
                return None
            parts.append(head)
            parts.append(array)
            size += len(head) + array.nbytes
        parts.append(self._tail)
        return _joined(parts) if size > huge_pages.MEDIUM else b"".join(parts)

    def _write(self, inputs: Mapping[str, Array]) -> bytes:
        parts: list[Any] = [self._head]
        for alias, array in inputs.items():
            entry = _entry(_REQUEST_MAP, alias, array, True)
            if len(entry) == 2 and entry[1] is array:
                if len(self._heads) >= _CACHE_SIZE:
                    self._heads.clear()
                self._heads[alias, array.dtype, array.shape] = entry[0]
            parts += entry
        parts.append(self._tail)
        return _joined(parts)


def encode_response(spec: ModelSpec, outputs: Mapping[str, Array], *, tensor_content: bool = False) -> bytes:
    """A serialized `PredictResponse`, by default with values in `float_val` and similar fields.

    tensorflow_model_server does so unless --enable_serialization_as_tensor_content is set.

    Raises:
        InvalidInputError: a message of 2 GiB or more.
    """
    parts: list[Any] = []
    for alias, array in outputs.items():
        parts += _entry(_RESPONSE_MAP, alias, array, tensor_content)
    parts.append(_spec_field(spec, _RESPONSE_SPEC))
    return _joined(parts)


def _parse(kind: Any, data: bytes) -> Any:
    return kind.FromString(data)


def decode_request(data: bytes, parse: Callable[[Any, bytes], Any] = _parse) -> PredictCall:
    """Decode a serialized `PredictRequest`, up to the conversion of tensors in `PredictCall.read`.

    Args:
        parse: parses a message of the given class, if protobuf has to.

    Raises:
        ProtocolError: the bytes are not a PredictRequest.
    """
    layout = _request_layouts.find(data) or _scan(data, _REQUEST_SPEC, _REQUEST_MAP, _REQUEST_FILTER)
    if layout is not None:
        return PredictCall(layout.spec, layout.arrays(data, copy=False), layout.names, is_decoded=True)
    return _parsed(
        messages.PredictRequest,
        data,
        lambda message: PredictCall(
            ModelSpec.from_message(message.model_spec), dict(message.inputs), tuple(message.output_filter)
        ),
        parse,
    )


def peek_model(data: bytes) -> str:
    """The model of a serialized `PredictRequest`, "" if it does not begin with its spec.

    Takes about a microsecond, so a request can be dispatched to the worker pool of its model before it is
    decoded.
    """
    try:
        if data[0] == _REQUEST_SPEC:
            start, end = _span(data, 1, len(data))
            return _read_spec(data[start:end]).name
    except (_NotPlainError, IndexError):
        pass
    return ""


def decode_response(data: bytes) -> tuple[ModelSpec, Arrays]:
    """The spec and the outputs of a serialized `PredictResponse`; arrays do not share the memory of `data`.

    Raises:
        ProtocolError: the bytes are not a PredictResponse, or a tensor in it is inconsistent.
    """
    layout = _response_layouts.find(data) or _scan(data, _RESPONSE_SPEC, _RESPONSE_MAP, None)
    if layout is not None:
        return layout.spec, layout.arrays(data, copy=True)
    return _parsed(
        messages.PredictResponse,
        data,
        lambda message: (ModelSpec.from_message(message.model_spec), tensors.to_arrays(message.outputs)),
    )


# Tags (field number << 3 | wire type) of the two messages; all of these are length-delimited.
_REQUEST_SPEC, _REQUEST_MAP, _REQUEST_FILTER = 0x0A, 0x12, 0x1A
_RESPONSE_MAP, _RESPONSE_SPEC = 0x0A, 0x12
# Tags of a map entry and of a TensorProto.
_KEY, _VALUE = 0x0A, 0x12
_DTYPE, _SHAPE, _CONTENT = 0x08, 0x12, 0x22
# Repeated fields whose packed form is the bytes of the array.
_PACKED = {DType.DT_FLOAT: 0x2A, DType.DT_DOUBLE: 0x32, DType.DT_COMPLEX64: 0x4A, DType.DT_COMPLEX128: 0x62}
_PACKED_TAGS = {tag: dtype for dtype, tag in _PACKED.items()}

_request_layouts = Layouts()
_response_layouts = Layouts()

# Limits of the caches, so that a caller that always sends new shapes does not grow them: entries, and the
# bytes of a key.
_CACHE_SIZE = 1024
_CACHED_BYTES = 512


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(tag: int, payload: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(payload)) + payload


@lru_cache(_CACHE_SIZE)
def _spec_field(spec: ModelSpec, tag: int) -> bytes:
    return _delimited(tag, spec.to_message().SerializeToString())


@lru_cache(_CACHE_SIZE)
def _head(
    map_tag: int, alias: str, dtype: DType, shape: tuple[int, ...], nbytes: int, value_tag: int
) -> bytes:
    """The bytes of a map entry before the tensor's raw values."""
    shape_message = messages.TensorShapeProto()
    for size in shape:
        shape_message.dim.add(size=size)
    tensor = bytes((_DTYPE, dtype)) + _delimited(_SHAPE, shape_message.SerializeToString())
    if nbytes:
        tensor += bytes((value_tag,)) + _varint(nbytes)
    key = _delimited(_KEY, alias.encode())
    value = bytes((_VALUE,)) + _varint(len(tensor) + nbytes) + tensor
    return bytes((map_tag,)) + _varint(len(key) + len(value) + nbytes) + key + value


def _entry(map_tag: int, alias: str, array: Array, tensor_content: bool) -> Sequence[Any]:
    dtype = DType.of(array.dtype)
    value_tag = _CONTENT if tensor_content else _PACKED.get(dtype)
    if dtype is DType.DT_STRING or value_tag is None:
        tensor = tensors.to_proto(array, tensor_content=tensor_content).SerializeToString()
        return (_delimited(map_tag, _delimited(_KEY, alias.encode()) + _delimited(_VALUE, tensor)),)
    _check_size(array.nbytes)  # before a copy is made
    array = as_wire_array(array)
    head = _head(map_tag, alias, dtype, array.shape, array.nbytes, value_tag)
    if not array.nbytes:
        return (head,)
    # ml_dtypes arrays do not support the buffer protocol
    return (head, array.view("<u2") if dtype is DType.DT_BFLOAT16 else array)


def _joined(parts: list[Any]) -> bytes:
    size = 0
    for part in parts:
        size += len(part) if isinstance(part, bytes) else part.nbytes
    _check_size(size)
    return huge_pages.join_buffers(parts, size)


def _check_size(size: int) -> None:
    if size > limits.MAX_MESSAGE_BYTES:
        raise InvalidInputError(
            f"the message has {size} bytes, protobuf's limit is {limits.MAX_MESSAGE_BYTES} (2 GiB); "
            "split the batch"
        )


def _parsed(
    kind: Any, data: bytes, read: Callable[[Any], T], parse: Callable[[Any, bytes], Any] = _parse
) -> T:
    try:
        return read(parse(kind, data))
    # UnicodeDecodeError: protobuf 4 checks strings only when they are read
    except (messages.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(
            f"the message is not a valid {kind.DESCRIPTOR.full_name} ({len(data)} bytes): {error}"
        ) from error


class _NotPlainError(Exception):
    """The scan does not support the form of these bytes; protobuf must parse them."""


def _scan(data: bytes, spec_tag: int, map_tag: int, names_tag: int | None) -> Layout | None:
    """The layout of a message, which is then cached; None if protobuf must parse the message."""
    spec: ModelSpec | None = None
    spans: dict[str, TensorSpan] = {}
    names: list[str] = []
    try:
        position = 0
        while position < len(data):
            tag = data[position]
            start, position = _span(data, position + 1, len(data))
            if tag == map_tag:
                span = _scan_entry(data, start, position)
                if span.alias in spans:
                    return None
                spans[span.alias] = span
            elif tag == spec_tag and spec is None:
                spec = _read_spec(data[start:position])
            elif tag == names_tag:
                names.append(data[start:position].decode())
            else:
                return None
    except (_NotPlainError, IndexError, UnicodeDecodeError):
        return None
    layout = Layout(spec or ModelSpec(""), tuple(names), tuple(spans.values()))
    (_response_layouts if names_tag is None else _request_layouts).add(data, layout)
    return layout


def _span(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Start and end of a length-delimited payload; its length is at `position`."""
    size = data[position]
    position += 1
    if size > 0x7F:
        size &= 0x7F
        shift = 7
        while True:
            byte = data[position]
            position += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise _NotPlainError
    if position + size > end:
        raise _NotPlainError
    return position, position + size


def _scan_entry(data: bytes, position: int, end: int) -> TensorSpan:
    if position == end or data[position] != _KEY:
        raise _NotPlainError
    start, position = _span(data, position + 1, end)
    alias = data[start:position].decode()
    if position >= end or data[position] != _VALUE:
        raise _NotPlainError
    position, stop = _span(data, position + 1, end)
    if stop != end:
        raise _NotPlainError
    return TensorSpan(alias, *_scan_tensor(data, position, end))


def _scan_tensor(data: bytes, position: int, end: int) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    # dtype, shape, values: every protobuf library writes them in this order
    if end - position < 2 or data[position] != _DTYPE or data[position + 1] > 0x7F:
        raise _NotPlainError
    dtype = DType.from_number(data[position + 1])
    position += 2
    if position >= end or data[position] != _SHAPE:
        raise _NotPlainError
    start, position = _span(data, position + 1, end)
    if position - start > _CACHED_BYTES:
        raise _NotPlainError
    shape = _read_shape(data[start:position])
    if position >= end:
        raise _NotPlainError
    value_tag = data[position]
    start, position = _span(data, position + 1, end)
    if position != end or dtype in (DType.DT_STRING, DType.DT_INVALID, DType.DT_RESOURCE, DType.DT_VARIANT):
        raise _NotPlainError
    if value_tag != _CONTENT and _PACKED_TAGS.get(value_tag) is not dtype:
        raise _NotPlainError
    numpy_dtype = dtype.numpy
    if math.prod(shape) * numpy_dtype.itemsize != position - start:
        raise _NotPlainError
    return numpy_dtype, shape, start, position


@lru_cache(_CACHE_SIZE)
def _read_shape(data: bytes) -> tuple[int, ...]:
    try:
        message = messages.TensorShapeProto.FromString(data)
    except messages.DecodeError:
        raise _NotPlainError from None
    shape = tuple(dim.size for dim in message.dim)
    if message.unknown_rank or len(shape) > limits.MAX_RANK or any(size <= 0 for size in shape):
        raise _NotPlainError
    return shape


def _read_spec(data: bytes) -> ModelSpec:
    return _read_short_spec(data) if len(data) <= _CACHED_BYTES else _read_short_spec.__wrapped__(data)


@lru_cache(_CACHE_SIZE)
def _read_short_spec(data: bytes) -> ModelSpec:
    try:
        return ModelSpec.from_message(messages.ModelSpec.FromString(data))
    except messages.DecodeError:
        raise _NotPlainError from None
