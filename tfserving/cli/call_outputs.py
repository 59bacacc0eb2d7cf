"""Responses as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfserving.client.printable import escape_unprintable
from tfserving.client.rest_json import encode_base64
from tfserving.client.types import VersionStatus
from tfserving.wire.dtypes import Array, Arrays, DType


def arrays_as_text(arrays: Arrays) -> str:
    """Name, dtype, shape and values of each array; bytes as text if they are UTF-8."""
    return "\n".join(
        f"{escape_unprintable(name)}: {DType.of(array.dtype).label} {array.shape}\n{_values(array)}"
        for name, array in arrays.items()
    )


def arrays_as_json(arrays: Arrays) -> str:
    """An object by name; bytes as text or {"b64": ...}, complex as [re, im], NaN and Infinity bare."""
    return json.dumps({name: _plain(array.tolist()) for name, array in arrays.items()}, ensure_ascii=False)


def status_as_text(versions: Sequence[VersionStatus]) -> str:
    """A table with one version per line."""
    rows = [("VERSION", "STATE", "ERROR")] + [
        (
            str(status.version),
            status.state,
            "" if status.error_code == "OK" else f"{status.error_code}: {status.error_message}",
        )
        for status in versions
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        escape_unprintable(f"{row[0]:>{first}}  {row[1]:{second}}  {row[2]}".rstrip()) for row in rows
    )


def status_as_json(versions: Sequence[VersionStatus]) -> str:
    """A list with one object per version."""
    return json.dumps([status._asdict() for status in versions], ensure_ascii=False)


def _values(array: Array) -> str:
    if array.dtype == object:
        return json.dumps(_plain(array.tolist()), ensure_ascii=False)
    return np.array2string(array, separator=", ", suppress_small=True)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, complex):
        return [value.real, value.imag]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return encode_base64(value)
