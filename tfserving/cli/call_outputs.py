"""The command's answers, to read and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfserving.client.rest_json import b64
from tfserving.client.types import VersionStatus
from tfserving.wire.dtypes import DType
from tfserving.wire.predict import Arrays


def arrays_as_text(arrays: Arrays) -> str:
    """Name, dtype, shape and values of each; strings as text where they are text."""
    return "\n".join(
        f"{name}: {DType.of(array.dtype).label} {array.shape}\n{_values(array)}"
        for name, array in arrays.items()
    )


def arrays_as_json(arrays: Arrays) -> str:
    """One object by name; bytes that are no text as {"b64": ...}, NaN and Infinity bare, complex as [re,
    im]."""
    return json.dumps({name: _plain(array.tolist()) for name, array in arrays.items()}, ensure_ascii=False)


def status_as_text(versions: Sequence[VersionStatus]) -> str:
    """A table, a line a version."""
    rows = [("VERSION", "STATE", "ERROR")] + [
        (
            str(one.version),
            one.state,
            "" if one.error_code == "OK" else f"{one.error_code}: {one.error_message}",
        )
        for one in versions
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{row[0]:>{first}}  {row[1]:{second}}  {row[2]}".rstrip() for row in rows)


def status_as_json(versions: Sequence[VersionStatus]) -> str:
    """A list of objects."""
    return json.dumps([one._asdict() for one in versions], ensure_ascii=False)


def _values(array: np.ndarray[Any, Any]) -> str:
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
        return b64(value)
