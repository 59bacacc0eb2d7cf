"""TFRecord framing without TensorFlow."""

from __future__ import annotations

import random
import struct

import pytest

from tfserving.errors import ProtocolError
from tfserving.repository import tfrecord


# The check value of CRC-32C (RFC 3720), masked as crc32c.h of TensorFlow does.
def test_the_checksum_is_crc32c_masked():
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert tfrecord.masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_reads_the_records_that_were_written(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 100]
    tfrecord.write_records(tmp_path / "file", records)
    assert list(tfrecord.read_records(tmp_path / "file")) == records


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "file").touch()
    assert list(tfrecord.read_records(tmp_path / "file")) == []


def test_rejects_a_file_truncated_within_a_record(tmp_path):
    path = tmp_path / "file"
    tfrecord.write_records(path, [b"first", b"second"])
    whole = path.read_bytes()
    first = 8 + 4 + len(b"first") + 4
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size == first:
            assert list(tfrecord.read_records(path)) == [b"first"]
        else:
            with pytest.raises(ProtocolError, match=r"record [12] is truncated"):
                list(tfrecord.read_records(path))


def test_detects_a_flipped_bit_in_every_byte(tmp_path):
    path = tmp_path / "file"
    tfrecord.write_records(path, [b"data"])
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ProtocolError, match="record 1 has a wrong checksum"):
            list(tfrecord.read_records(path))


def test_rejects_a_length_beyond_the_end_of_the_file(tmp_path):
    path = tmp_path / "file"
    length = struct.pack("<Q", 2**62)
    path.write_bytes(length + struct.pack("<I", tfrecord.masked_crc32c(length)) + b"data")
    with pytest.raises(ProtocolError, match="truncated"):
        list(tfrecord.read_records(path))


@pytest.mark.tensorflow
def test_writes_and_reads_the_same_files_as_tensorflow(tmp_path):
    import tensorflow as tf

    records = [b"", b"abc", random.Random(1).randbytes(10_000)]
    tfrecord.write_records(tmp_path / "ours", records)
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "ours"))]
    assert read == records

    with tf.io.TFRecordWriter(str(tmp_path / "tensorflow")) as writer:
        for record in records:
            writer.write(record)
    assert (tmp_path / "tensorflow").read_bytes() == (tmp_path / "ours").read_bytes()
    assert list(tfrecord.read_records(tmp_path / "tensorflow")) == records
