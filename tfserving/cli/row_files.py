"""Rows of .npy and .npz files, read in blocks: the file may be larger than memory."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfserving.cli.call_inputs import FORMAT_ERRORS, npy_format
from tfserving.errors import InvalidInputError
from tfserving.wire.dtypes import Array

# Bytes of all arrays that are read at a time, at least one row.
_BLOCK_BYTES = 1_000_000
# The name of the array of an .npy file, which has none.
_BARE = ""


@dataclass(frozen=True)
class _Column:
    """An array of the file: its shape, dtype, order of the dimensions and CRC."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    crc: int

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize) * math.prod(self.shape[1:])


class RowFile:
    """The arrays of a file, whose first dimension are the rows.

    Args:
        path: an .npy file, for the only input of a signature, or an .npz file with an array for each input.

    Attributes:
        count: number of rows.

    Raises:
        InvalidInputError: the file cannot be read, or its arrays do not have the same number of rows, at
            least one.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.suffix not in (".npy", ".npz"):
            raise InvalidInputError(f"--input {path} is not an .npy or .npz file; convert it with numpy")
        with self._errors():
            self._columns = self._read_columns()
        counts = {name: column.shape[0] if column.shape else 0 for name, column in self._columns.items()}
        self.count = next(iter(counts.values()), 0)
        if self.count == 0:
            raise InvalidInputError(f"{path} has no rows; expected arrays whose first dimension are the rows")
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
            raise InvalidInputError(f"the arrays of {path} have different numbers of rows: {listed}")

    @property
    def fingerprint(self) -> list[list[Any]]:
        """Names, dtypes, shapes and CRCs of the arrays: the same for a copy of the file."""
        return [
            [name, column.dtype.str, list(column.shape), column.crc]
            for name, column in sorted(self._columns.items())
        ]

    def make_sample(self, count: int) -> Any:
        """Inputs for `infer` with the dtypes and shapes of up to `count` rows, filled with zeros."""
        rows = min(count, self.count)
        arrays = {name: np.zeros((rows, *one.shape[1:]), one.dtype) for name, one in self._columns.items()}
        return arrays.get(_BARE, arrays)

    def read_rows(self, start: int) -> Iterator[Any]:
        """Yield the rows from number `start`: dicts of arrays by name, or the arrays of an .npy file."""
        row_bytes = sum(column.row_bytes for column in self._columns.values())
        size = max(1, _BLOCK_BYTES // max(1, row_bytes))
        with self._errors(), ExitStack() as stack:
            blocks = {
                name: _read_blocks(stack.enter_context(self._open(name)), column, start, size)
                for name, column in self._columns.items()
            }
            for first in range(start, self.count, size):
                arrays = {name: next(block) for name, block in blocks.items()}
                for row in range(min(size, self.count - first)):
                    if _BARE in arrays:
                        yield arrays[_BARE][row, ...]
                    else:
                        yield {name: array[row, ...] for name, array in arrays.items()}

    def _read_columns(self) -> dict[str, _Column]:
        columns = {}
        if self._path.suffix == ".npy":
            crc = 0
            with self._open(_BARE) as file:
                while part := file.read(_BLOCK_BYTES):
                    crc = zlib.crc32(part, crc)
            crcs = {_BARE: crc}
        else:
            with zipfile.ZipFile(self._path) as archive:
                crcs = {info.filename.removesuffix(".npy"): info.CRC for info in archive.infolist()}
        for name, crc in crcs.items():
            with self._open(name) as file:
                columns[name] = _Column(*_read_header(file), crc)
        return columns

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        if self._path.suffix == ".npy":
            with self._path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as member:
                yield member

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidInputError(f"cannot read {self._path}: {error.strerror or error}") from error
        except (*FORMAT_ERRORS, KeyError) as error:
            suffix = self._path.suffix
            raise InvalidInputError(f"{self._path} is not a valid {suffix} file: {error}") from error


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    version = npy_format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format is not supported")
    shape, is_fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it has Python objects; save text and bytes with a dtype such as 'U' or 'S'")
    return shape, is_fortran, dtype


def _read_blocks(file: IO[bytes], column: _Column, start: int, size: int) -> Iterator[Array]:
    """Yield the rows from `start` in arrays of `size` rows; the last one may have fewer."""
    count = column.shape[0]
    if column.is_fortran and len(column.shape) > 1:  # its rows are not contiguous
        whole = npy_format.read_array(file)
        yield from (whole[first : first + size] for first in range(start, count, size))
        return
    _read_header(file)
    file.seek(start * column.row_bytes, os.SEEK_CUR)
    for first in range(start, count, size):
        rows = min(size, count - first)
        data = file.read(rows * column.row_bytes)
        if len(data) != rows * column.row_bytes:
            raise EOFError(f"it ends before row {first + rows} of {count}")
        shape = (rows, *column.shape[1:])
        yield np.frombuffer(data, column.dtype).reshape(shape) if data else np.zeros(shape, column.dtype)
