"""The reader of variables.index: files of TensorFlow's layout, and damaged ones."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.saved_models import variables_index
from tfserving.errors import ProtocolError
from tfserving.repository.variables_index import read_shard_sizes

SMALL = variables_index({"a": (0, 0, 8), "long/name": (1, 300, 5), "z": (1, 0, 300)}, shards=3)

# Written by TensorFlow 2.20: tf.raw_ops.SaveV2 of float32 [2, 3] as "w" and of int64 [1] as "w/step".
BY_TENSORFLOW = bytes.fromhex(
    "00000608011a02080100011377080112081202080212020803281835cff45f7c0105112f737465700809120412020801"
    "2018280835290398070000000001000000002930f35d000000000100000000c0f2a1b000010278004100000000010000"
    "00008dbda1c04608530e00000000000000000000000000000000000000000000000000000000000000000000000057fb"
    "808b247547db"
)


def test_reads_the_end_of_the_last_value_of_each_shard() -> None:
    assert read_shard_sizes(SMALL) == [8, 305, 0]


def test_reads_a_file_of_tensorflow() -> None:
    assert read_shard_sizes(BY_TENSORFLOW) == [32]


def test_does_not_read_a_compressed_index() -> None:
    compressed = bytearray(SMALL)
    # The type of the first block is before its checksum and the second block.
    position = SMALL.index(b"~") - 3 - 5
    assert compressed[position] == 0
    compressed[position] = 1
    assert read_shard_sizes(bytes(compressed)) is None


@given(st.integers(0, len(BY_TENSORFLOW) - 1), st.integers(0, 255))
def test_a_changed_byte_raises_only_a_protocol_error(position: int, byte: int) -> None:
    changed = bytearray(BY_TENSORFLOW)
    changed[position] = byte
    with contextlib.suppress(ProtocolError):
        read_shard_sizes(bytes(changed))


@pytest.mark.parametrize("size", [0, 47, 48, len(BY_TENSORFLOW) - 1])
def test_rejects_a_truncated_file(size: int) -> None:
    with pytest.raises(ProtocolError, match="truncated or damaged"):
        read_shard_sizes(BY_TENSORFLOW[:size])
