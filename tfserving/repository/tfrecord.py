"""TFRecord files without TensorFlow, the file format of warmup records.

A record is `length (uint64) · masked CRC-32C of the length (uint32) · data · masked CRC-32C of the data
(uint32)`, little-endian (tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import google_crc32c

from tfserving.errors import ProtocolError

_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write `records` to `path`; an existing file is replaced."""
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + _FOOTER.pack(masked_crc32c(length)))
            file.write(record + _FOOTER.pack(masked_crc32c(record)))


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of `path`.

    Raises:
        ProtocolError: the file ends within a record, or a checksum does not match. Both are errors in
            TensorFlow Serving as well (tensorflow/core/lib/io/record_reader.cc).
        OSError: the file is not readable.
    """
    with path.open("rb") as file:
        number = 0
        remaining = path.stat().st_size
        while header := file.read(_HEADER.size):
            number += 1
            where = f"{path}: record {number}"
            remaining -= len(header) + _FOOTER.size
            if len(header) < _HEADER.size:
                raise ProtocolError(f"{where} is truncated; write the file again")
            length, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                raise ProtocolError(
                    f"{where} has a wrong checksum; the file is damaged or not a TFRecord file"
                )
            if length > remaining:
                raise ProtocolError(f"{where} is truncated; write the file again")
            remaining -= length
            data, footer = file.read(length), file.read(_FOOTER.size)
            if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
                raise ProtocolError(f"{where} has a wrong checksum; the file is damaged, write it again")
            yield data


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C of `data`, rotated and shifted as TFRecord stores it."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF
