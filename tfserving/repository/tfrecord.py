"""TFRecord files without TensorFlow: the framing that TensorFlow Serving's warmup requests are kept in.

A record is `length (uint64) · masked CRC-32C of the length (uint32) · data · masked CRC-32C of the data
(uint32)`, little-endian (tensorflow/core/lib/io/record_writer.h). The checksum is computed with numpy, many
stretches of the data side by side: byte by byte, a megabyte would take a tenth of a second.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfserving.errors import ProtocolError

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_SIDE_BY_SIDE = 4096  # shorter data goes byte by byte: setting numpy up would cost more


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Writes `records` to `path`, replacing what is there; returns how many there were."""
    count = 0
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + _FOOTER.pack(masked_crc32c(length)))
            file.write(record)
            file.write(_FOOTER.pack(masked_crc32c(record)))
            count += 1
    return count


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of `path`.

    Raises:
        ProtocolError: the file ends inside a record, or a checksum does not fit. TensorFlow Serving takes
            either for an error as well (tensorflow/core/lib/io/record_reader.cc).
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        number = 0
        remaining = path.stat().st_size
        while header := file.read(_HEADER.size):
            number += 1
            where = f"{path}: record {number}"
            remaining -= len(header) + _FOOTER.size
            if len(header) < _HEADER.size:
                raise ProtocolError(f"{where} is cut off: write the file again")
            length, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                raise ProtocolError(f"{where} has a wrong checksum: not a TFRecord file, or a damaged one")
            if length > remaining:
                raise ProtocolError(f"{where} is cut off: write the file again")
            remaining -= length
            data, footer = file.read(length), file.read(_FOOTER.size)
            if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
                raise ProtocolError(f"{where} has a wrong checksum: the file is damaged, write it again")
            yield data


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C of `data`, rotated and shifted as TFRecord stores it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of `data`."""
    if len(data) < _SIDE_BY_SIDE:
        return _bytewise(0xFFFFFFFF, data) ^ 0xFFFFFFFF

    # About as many stretches as each is long; what does not fit is taken first, byte by byte.
    length = int(len(data) ** 0.5)
    odd = len(data) % length
    crc = _bytewise(0xFFFFFFFF, data[:odd])
    columns = np.frombuffer(data, np.uint8, offset=odd).reshape(-1, length).T
    stretches = np.zeros(columns.shape[1], np.uint32)
    for column in columns:
        stretches = _TABLE[(stretches ^ column) & 0xFF] ^ (stretches >> np.uint32(8))

    # Checksums are linear: that of `a + b` is that of `a` moved over len(b) zeros, xor that of `b`.
    over_zeros = _zeros_operator(length)
    for stretch in stretches.tolist():
        crc = _apply(over_zeros, crc) ^ stretch
    return crc ^ 0xFFFFFFFF


def _make_table() -> NDArray[np.uint32]:
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _make_table()
_TABLE_LIST: list[int] = _TABLE.tolist()

_Operator = tuple[list[int], list[int], list[int], list[int]]


def _bytewise(crc: int, data: bytes) -> int:
    table = _TABLE_LIST
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _zeros_operator(length: int) -> _Operator:
    """What `length` zero bytes do to a checksum, as one table for each of its four bytes."""
    values = np.arange(256, dtype=np.uint32)
    tables = np.stack([values << np.uint32(shift) for shift in (0, 8, 16, 24)])
    for _ in range(length):
        tables = _TABLE[tables & 0xFF] ^ (tables >> np.uint32(8))
    first, second, third, fourth = tables.tolist()
    return first, second, third, fourth


def _apply(operator: _Operator, crc: int) -> int:
    first, second, third, fourth = operator
    return first[crc & 0xFF] ^ second[(crc >> 8) & 0xFF] ^ third[(crc >> 16) & 0xFF] ^ fourth[crc >> 24]
