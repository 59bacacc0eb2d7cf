"""Responses as text, as JSON and as .npz files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfserving.cli.call_inputs import npy_format
from tfserving.client.printable import escape_unprintable
from tfserving.client.rest_json import encode_base64
from tfserving.client.types import VersionStatus
from tfserving.errors import InvalidInputError, UnsupportedError
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


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write the arrays to an .npz file, which is complete as soon as it has its name.

    Raises:
        InvalidInputError: the file cannot be written.
    """
    saved = {name: as_npz_array(name, array) for name, array in arrays.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            save_arrays(temporary, saved)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error


def save_arrays(file: Path | IO[bytes], arrays: Arrays) -> None:
    """As `numpy.savez`, for arrays with any name."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy_format.write_array(member, array, allow_pickle=False)


def as_npz_array(name: str, array: Array) -> Array:
    """The array in a dtype that an .npz file can hold: strings as bytes of one length, bfloat16 as float32.

    Raises:
        UnsupportedError: a string ends in a NUL byte, which numpy drops.
    """
    if array.dtype == object:
        if any(value.endswith(b"\0") for value in array.reshape(-1).tolist()):
            raise UnsupportedError(
                f"output {name!r} has a string that ends in a NUL byte, which an .npz file cannot hold; "
                "omit it with --output NAME, or use the client in Python"
            )
        return array.astype("S")
    return array.astype(np.float32) if DType.of(array.dtype) is DType.DT_BFLOAT16 else array


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
