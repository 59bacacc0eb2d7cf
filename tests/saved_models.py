"""Minimal SavedModels without TensorFlow: valid for every check on disk, but not loadable."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfserving.wire import messages


def saved_model(*ops: str, tags: tuple[str, ...] = ("serve",)) -> Any:
    """A SavedModel message with a graph of these operations."""
    model = messages.SavedModel(saved_model_schema_version=1)
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.extend(tags)
    graph.signature_def["serving_default"].method_name = "tensorflow/serving/predict"
    for op in ops:
        graph.graph_def.node.add(name=op.lower(), op=op)
    return model


def write_saved_model(path: Path, *, variables: bool = True) -> None:
    """Write a SavedModel, by default with one variable of 8 bytes."""
    path.mkdir(parents=True, exist_ok=True)
    ops = ("VarHandleOp", "RestoreV2") if variables else ("Placeholder",)
    (path / "saved_model.pb").write_bytes(saved_model(*ops).SerializeToString())
    if variables:
        (path / "variables").mkdir()
        (path / "variables" / "variables.index").write_bytes(variables_index({"weight": (0, 0, 8)}))
        (path / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(8))


def variables_index(entries: Mapping[str, tuple[int, int, int]], shards: int = 1) -> bytes:
    """The index of variables, each with its shard, and its offset and size in bytes."""
    header = messages.BundleHeaderProto(num_shards=shards).SerializeToString()
    rows = [(b"", header)]
    for name, (shard, offset, size) in sorted(entries.items()):
        entry = messages.BundleEntryProto(shard_id=shard, offset=offset, size=size)
        rows.append((name.encode(), entry.SerializeToString()))
    data = _block(rows)
    handle = _varint(0) + _varint(len(data) - 5)
    index = _block([(b"~", handle)])
    footer = handle + _varint(len(data)) + _varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _block(rows: list[tuple[bytes, bytes]]) -> bytes:
    """A block with one restart, without compression and with an empty checksum."""
    written = b"".join(
        _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value for key, value in rows
    )
    return written + struct.pack("<II", 0, 1) + bytes(5)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
