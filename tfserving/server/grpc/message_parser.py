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

# A string or number takes less memory than a message.
_VALUES_PER_FIELD = 4

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class _Field(NamedTuple):
    """Where a field is, or several short ones: the tag begins at `start`, the content at `content`."""

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
        return parse_slices(kind, data, max_fields)
    except DecodeError as error:
        raise InvalidInputError(f"the request is not a {kind.DESCRIPTOR.full_name}: {error}") from error


def parse_slices(kind: Any, data: bytes, max_fields: int) -> Any:
    """Parse a message as `parse` does, but raise protobuf's DecodeError for bytes that are not one."""
    if len(data) <= SLICE_BYTES:
        return kind.FromString(data)
    message = kind()
    _Slicer(max_fields).merge(message, memoryview(data))
    return message


class _Slicer:
    """Merges the fields of serialized messages slice by slice, and counts them."""

    def __init__(self, max_fields: int) -> None:
        self._max_fields = max_fields
        self._values = 0

    def merge(self, message: Any, data: memoryview) -> None:
        """Merge a serialized message; a field that is larger than a slice is merged field by field."""
        known = message.DESCRIPTOR.fields_by_number
        merged = 0
        for field in self._fields(data, known):
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
        known = descriptor.fields_by_number
        for field in self._fields(data, known):
            if _is_large_message(field, known.get(field.number)):
                values.append(data[field.content : field.end])
            else:
                _merge_slice(entry, data[field.start : field.end])
        if descriptor.fields_by_name["value"].message_type is None:
            target[entry.key] = entry.value
            return
        target[entry.key].CopyFrom(entry.value)
        for value in values:
            self.merge(target[entry.key], value)

    def _fields(self, data: memoryview, known: Any) -> Iterator[_Field]:
        """The fields of a message; short ones with the same tag are yielded together, up to a slice.

        Args:
            known: the message's descriptors of fields by number.
        """
        end = 0
        while end < len(data):
            start = end
            tag, content = _read_varint(data, start)
            count, end = _skip_short_fields(data, start, tag)
            if not count:
                count = 1
                content, end = _find_end(data, tag & 7, content)
            self._count(count, known.get(tag >> 3))
            if end > len(data):
                raise DecodeError("a field is truncated")
            yield _Field(tag >> 3, tag & 7, start, content, end)

    def _count(self, fields: int, descriptor: Any) -> None:
        is_value = descriptor is not None and descriptor.message_type is None
        self._values += fields * (1 if is_value else _VALUES_PER_FIELD)
        if self._values > _VALUES_PER_FIELD * self._max_fields:
            raise ExhaustedError(
                f"the message has more than {self._max_fields} fields (--grpc_max_message_fields); send "
                "fewer examples or strings in a request"
            )


def _skip_short_fields(data: memoryview, position: int, tag: int) -> tuple[int, int]:
    """The number of short fields with a tag from `position` on, and the position behind them.

    Takes a tenth of the time of the general code. A short field has a tag and a length of one byte each, or
    four bytes.
    """
    count = 0
    end = min(len(data), position + SLICE_BYTES)
    if tag < 128 and tag & 7 == _BYTES:
        while position + 1 < end and data[position] == tag:
            size = data[position + 1]
            if size > 127 or position + 2 + size > end:
                break
            position += 2 + size
            count += 1
    elif tag < 128 and tag & 7 == _FIXED32:
        while position + 5 <= end and data[position] == tag:
            position += 5
            count += 1
    return count, position


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
