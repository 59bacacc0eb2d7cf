"""The index of a SavedModel's variables, `variables/variables.index`, without TensorFlow.

It is a sorted string table, as in LevelDB: a BundleHeaderProto under the empty name and a BundleEntryProto
for each variable (tensorflow/core/util/tensor_bundle/tensor_bundle.cc, tensorflow/core/lib/io/format.cc).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tfserving.errors import ProtocolError
from tfserving.wire import messages

_FOOTER_SIZE = 48
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_UNCOMPRESSED = 0


def read_shard_sizes(index: bytes) -> list[int] | None:
    """The size in bytes that each shard of the variables has at least, in the order of the shards.

    None if the index is compressed, which no TensorFlow since 1.1 does.

    Raises:
        ProtocolError: `index` is truncated, or not an index of variables.
    """
    if len(index) < _FOOTER_SIZE or not index.endswith(_MAGIC):
        raise ProtocolError("the index of the variables is truncated or damaged; copy it again")
    try:
        return _read_shard_sizes(index)
    except (IndexError, struct.error, messages.DecodeError) as error:
        raise ProtocolError("the index of the variables is damaged; copy it again") from error


def _read_shard_sizes(index: bytes) -> list[int] | None:
    _, position = _read_handle(index, len(index) - _FOOTER_SIZE)
    (offset, size), _ = _read_handle(index, position)
    sizes: list[int] = []
    for _, handle in _read_block(index, offset, size):
        (offset, size), _ = _read_handle(handle, 0)
        if index[offset + size] != _UNCOMPRESSED:
            return None
        for name, value in _read_block(index, offset, size):
            if not name:
                sizes = [0] * messages.BundleHeaderProto.FromString(value).num_shards
            else:
                entry = messages.BundleEntryProto.FromString(value)
                sizes[entry.shard_id] = max(sizes[entry.shard_id], entry.offset + entry.size)
    return sizes


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, position = _read_varint(data, position)
    size, position = _read_varint(data, position)
    return (offset, size), position


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = data[offset : offset + size]
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    end = size - 4 - 4 * restarts
    position, key = 0, b""
    while position < end:
        shared, position = _read_varint(block, position)
        rest, position = _read_varint(block, position)
        length, position = _read_varint(block, position)
        # A key omits what it shares with the one before.
        key = key[:shared] + block[position : position + rest]
        position += rest
        yield key, block[position : position + length]
        position += length


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
