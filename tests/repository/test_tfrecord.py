"""TFRecord framing without TensorFlow."""

from __future__ import annotations

import random
import struct

import pytest

from tfserving.errors import ProtocolError
from tfserving.repository import tfrecord

# RFC 3720, appendix B.4, and the usual check value.
KNOWN = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
]


@pytest.mark.parametrize(("data", "checksum"), KNOWN)
def test_crc32c_of_known_values(data, checksum):
    assert tfrecord.crc32c(data) == checksum


@pytest.mark.parametrize("size", [4095, 4096, 4097, 4160, 65_536, 100_003])
def test_crc32c_of_long_data_is_that_of_the_bytewise_definition(size):
    data = random.Random(size).randbytes(size)
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert tfrecord.crc32c(data) == crc ^ 0xFFFFFFFF


def test_records_come_back_as_they_were_written(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 100]
    assert tfrecord.write_records(tmp_path / "file", records) == 3
    assert list(tfrecord.read_records(tmp_path / "file")) == records


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "file").touch()
    assert list(tfrecord.read_records(tmp_path / "file")) == []


def test_a_file_cut_off_anywhere_inside_a_record_is_refused(tmp_path):
    path = tmp_path / "file"
    tfrecord.write_records(path, [b"first", b"second"])
    whole = path.read_bytes()
    first = 8 + 4 + len(b"first") + 4
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size == first:
            assert list(tfrecord.read_records(path)) == [b"first"]
        else:
            with pytest.raises(ProtocolError, match=r"record [12] is cut off"):
                list(tfrecord.read_records(path))


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "file"
    tfrecord.write_records(path, [b"data"])
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ProtocolError, match="record 1 has a wrong checksum"):
            list(tfrecord.read_records(path))


def test_an_absurd_length_is_refused_before_anything_is_read(tmp_path):
    path = tmp_path / "file"
    length = struct.pack("<Q", 2**62)
    path.write_bytes(length + struct.pack("<I", tfrecord.masked_crc32c(length)) + b"data")
    with pytest.raises(ProtocolError, match="cut off"):
        list(tfrecord.read_records(path))


@pytest.mark.tensorflow
def test_tensorflow_reads_what_we_write_and_writes_what_we_read(tmp_path):
    import tensorflow as tf

    records = [b"", b"abc", random.Random(1).randbytes(10_000)]
    tfrecord.write_records(tmp_path / "ours", records)
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "ours"))]
    assert read == records

    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()
    assert list(tfrecord.read_records(tmp_path / "theirs")) == records
