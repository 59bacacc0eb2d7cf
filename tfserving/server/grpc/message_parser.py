"""Parses messages so that a large one does not stop the other threads.

protobuf holds the interpreter lock while it parses: 64 MB of small fields take 4 s, in which no thread runs,
whichever thread parses. A large message is therefore merged from slices of its fields, which gives the same
message, and other threads run in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from tfserving.errors import ExhaustedError, InvalidInputError

# Bytes that are parsed without a break: up to 16 ms for the smallest fields.
SLICE_BYTES = 1 << 18

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class _Field(NamedTuple):
    """Where a field is: its tag begins at `start`, its content at `content`."""

    number: int
    wire_type: int
    start: int
    content: int
    end: int


def parse(kind: Any, data: bytes, max_fields: int) -> Any:
    """Parse a message of any size; to be called in a worker thread if it is larger than SLICE_BYTES.

    Args:
        kind: the class of the message.
        max_fields: limit of the fields of a large message that are sliced, in total; see
            --grpc_max_message_fields.

    Raises:
        InvalidInputError: the bytes are not such a message.
        ExhaustedError: the message has more than `max_fields` fields.
    """
    try:
        if len(data) <= SLICE_BYTES:
            return kind.FromString(data)
        message = kind()
        _Slicer(max_fields).merge(message, memoryview(data))
        return message
    except DecodeError as error:
        raise InvalidInputError(f"the request is not a {kind.DESCRIPTOR.full_name}: {error}") from error


class _Slicer:
    """Merges the fields of serialized messages slice by slice, and counts them."""

    def __init__(self, max_fields: int) -> None:
        self._max_fields = max_fields
        self._count = 0

    def merge(self, message: Any, data: memoryview) -> None:
        """Merge a serialized message; a field that is larger than a slice is merged field by field."""
        known = message.DESCRIPTOR.fields_by_number
        merged = 0
        for field in self._fields(data):
            descriptor = known.get(field.number)
            if _is_large_message(field, descriptor):
                _merge_slice(message, data[merged : field.start])
                self._merge_field(message, descriptor, data[field.content : field.end])
                merged = field.end
            elif field.end - merged > SLICE_BYTES:
                _merge_slice(message, data[merged : field.end])
                merged = field.end
        _merge_slice(message, data[merged:])

    def _merge_field(self, message: Any, descriptor: Any, data: memoryview) -> None:
        value = getattr(message, descriptor.name)
        if descriptor.message_type.GetOptions().map_entry:
            self._merge_entry(value, descriptor.message_type, data)
        elif isinstance(value, Message):
            value.SetInParent()
            self.merge(value, data)
        else:
            self.merge(value.add(), data)

    def _merge_entry(self, target: Any, descriptor: Any, data: memoryview) -> None:
        """Merge an entry of a map: its value replaces that of an earlier entry with the same key."""
        entry: Any = GetMessageClass(descriptor)()
        values = []
        for field in self._fields(data):
            if _is_large_message(field, descriptor.fields_by_number.get(field.number)):
                values.append(data[field.content : field.end])
            else:
                _merge_slice(entry, data[field.start : field.end])
        if descriptor.fields_by_name["value"].message_type is None:
            target[entry.key] = entry.value
            return
        target[entry.key].CopyFrom(entry.value)
        for value in values:
            self.merge(target[entry.key], value)

    def _fields(self, data: memoryview) -> Iterator[_Field]:
        end = 0
        while end < len(data):
            self._count += 1
            if self._count > self._max_fields:
                raise ExhaustedError(
                    f"the message has more than {self._max_fields} fields (--grpc_max_message_fields); send "
                    "fewer examples in a request"
                )
            start = end
            tag, content = _read_varint(data, start)
            content, end = _find_end(data, tag & 7, content)
            if end > len(data):
                raise DecodeError("a field is truncated")
            yield _Field(tag >> 3, tag & 7, start, content, end)


def _is_large_message(field: _Field, descriptor: Any) -> bool:
    is_message = field.wire_type == _BYTES and descriptor is not None and descriptor.message_type is not None
    return is_message and field.end - field.start > SLICE_BYTES


def _merge_slice(message: Any, data: memoryview) -> None:
    if data:
        message.MergeFromString(bytes(data))


def _find_end(data: memoryview, wire_type: int, position: int) -> tuple[int, int]:
    """The beginning of a field's content, and its end; the tag ends at `position`."""
    if wire_type == _BYTES:
        size, position = _read_varint(data, position)
        return position, position + size
    if wire_type == _VARINT:
        return position, _read_varint(data, position)[1]
    if wire_type in (_FIXED64, _FIXED32):
        return position, position + (8 if wire_type == _FIXED64 else 4)
    raise DecodeError(f"wire type {wire_type} is not expected")


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """A varint, and the position behind it."""
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        if position >= len(data):
            raise DecodeError("a field is truncated")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise DecodeError("a varint has more than 10 bytes")
