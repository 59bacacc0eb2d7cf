"""Outputs of many rows on their way to an .npz file; what was done before an interrupt is kept.

The rows are saved in files of the directory OUTPUT.partial, each written under another name and renamed, so
that a command that is killed leaves only complete ones. The last step joins them, and renames the result.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tfserving.cli.call_inputs import npy_format
from tfserving.cli.call_outputs import as_npz_array, save_arrays
from tfserving.client.types import RowResult
from tfserving.errors import FailedPreconditionError, InvalidInputError, TfServingError
from tfserving.wire.dtypes import Array, Arrays

# Rows are saved when their outputs have so many bytes, or so many seconds after those before them.
_SAVE_BYTES, _SAVE_SECONDS = 16_000_000, 5.0
_CHUNK = re.compile(r"(\d{12})-(\d{12})\.npz")
_JOB, _JOINED, _FAILURES = "job.json", "joined.tmp", "failures"
# Before the names of outputs in the files of the directory.
_OUTPUT = "output:"


class PartialOutput:
    """Collects the results of rows in order. A context manager, which saves the rows when it is left.

    Args:
        output: the .npz file.
        job: what the outputs depend on, as JSON; rows of another job are not continued.
        count: number of rows of the input.
        clock: monotonic time in seconds.

    Attributes:
        directory: where the rows are until the file is complete.
        rows: number of rows so far, including those of earlier commands.
        failures: for each row that failed "row", "code" and "message".

    Raises:
        InvalidInputError: the directory belongs to another job or command, or cannot be created.
    """

    def __init__(
        self,
        output: Path,
        job: dict[str, Any],
        count: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = output.with_name(f"{output.name}.partial")
        self.rows = 0
        self.failures: list[dict[str, Any]] = []
        self._output = output
        self._count = count
        self._clock = clock
        # dtype and shape of a row, by output
        self._layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._names: frozenset[str] | None = None
        self._chunks: list[Path] = []
        self._pending: list[RowResult] = []
        self._pending_bytes = 0
        with _errors(self.directory, InvalidInputError):
            self.directory.mkdir(exist_ok=True)
            self._lock = os.open(self.directory, os.O_RDONLY)
            try:
                self._take(job)
            except BaseException:
                os.close(self._lock)
                raise
        self._saved_at = clock()

    def __enter__(self) -> PartialOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self.directory.exists():
                self._save()
                if not self.rows:
                    shutil.rmtree(self.directory)
        finally:
            os.close(self._lock)

    def add(self, result: RowResult) -> None:
        """Add the result of the next row.

        Raises:
            FailedPreconditionError: its outputs do not fit those of earlier rows, or cannot be written.
        """
        if result.outputs is None:
            error = result.error
            code = error.code if error else ""
            self.failures.append({"row": self.rows, "code": code, "message": str(error)})
        else:
            self._check_names(result.outputs)
        self._pending.append(result)
        self._pending_bytes += sum(array.nbytes for array in (result.outputs or {}).values())
        self.rows += 1
        if self._pending_bytes >= _SAVE_BYTES or self._clock() - self._saved_at >= _SAVE_SECONDS:
            self._save()

    def finish(self) -> None:
        """Write the file, and OUTPUT.errors.jsonl if rows failed; remove the directory.

        Raises:
            TfServingError: all rows failed, or the file cannot be written.
        """
        self._save()
        failures = self._output.with_name(f"{self._output.name}.errors.jsonl")
        with _errors(self._output, FailedPreconditionError):
            if self.failures:
                lines = "".join(f"{json.dumps(failure)}\n" for failure in self.failures)
                _replace(failures, self.directory / "errors.tmp", lambda file: file.write(lines.encode()))
            else:
                failures.unlink(missing_ok=True)
            if self._layout:
                _replace(self._output, self.directory / _JOINED, self._write_joined)
            shutil.rmtree(self.directory)
        if not self._layout:
            raise TfServingError(
                f"all {self._count} rows failed, {self._output} was not written; "
                f"row 0: {self.failures[0]['message']}",
                code=self.failures[0]["code"],
            )

    def _take(self, job: dict[str, Any]) -> None:
        """Lock the directory, and load what an earlier command has saved."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInputError(
                f"another command writes {self._output}; wait for it, or pass another --output"
            ) from error
        for path in self.directory.glob("*.tmp"):
            path.unlink()
        path = self.directory / _JOB
        content = json.dumps(job, sort_keys=True)
        if not path.exists():
            _replace(path, self.directory / "job.tmp", lambda file: file.write(content.encode()))
        elif path.read_text(encoding="utf-8") != content:
            raise InvalidInputError(
                f"{self.directory} has rows of another input, model or signature; "
                "to continue, repeat that command; to start again, remove the directory"
            )
        for path in sorted(self.directory.iterdir()):
            match = _CHUNK.fullmatch(path.name)
            if match and int(match[1]) == self.rows:
                self._load(path)
                self.rows = int(match[2])

    def _load(self, path: Path) -> None:
        with np.load(path) as chunk:
            self.failures += json.loads(chunk[_FAILURES].tobytes())
            for key in chunk.files:
                if key != _FAILURES:
                    self._extend_layout(key.removeprefix(_OUTPUT), chunk[key])
        self._names = frozenset(self._layout) or None
        self._chunks.append(path)

    def _save(self) -> None:
        """Write the pending rows to a file of their own."""
        results, self._pending, self._pending_bytes = self._pending, [], 0
        self._saved_at = self._clock()
        if not results:
            return
        first = self.rows - len(results)
        path = self.directory / f"{first:012}-{self.rows:012}.npz"
        try:
            chunk = self._make_chunk(first, [one.outputs for one in results if one.outputs is not None])
            with _errors(path, FailedPreconditionError):
                _replace(path, self.directory / "chunk.tmp", lambda file: save_arrays(file, chunk))
        except BaseException:
            self.rows = first
            raise
        self._chunks.append(path)

    def _make_chunk(self, first: int, done: list[Arrays]) -> Arrays:
        failures = [failure for failure in self.failures if failure["row"] >= first]
        chunk: Arrays = {_FAILURES: np.frombuffer(json.dumps(failures).encode(), np.uint8)}
        for name in done[0] if done else ():
            array = _stack(name, [outputs[name] for outputs in done])
            self._extend_layout(name, array)
            chunk[_OUTPUT + name] = array
        return chunk

    def _check_names(self, outputs: Arrays) -> None:
        if self._names is None:
            self._names = frozenset(outputs)
        elif self._names != outputs.keys():
            names, expected = ", ".join(outputs), ", ".join(sorted(self._names))
            raise FailedPreconditionError(
                f"row {self.rows} has the outputs {names}, earlier rows have {expected}: the model has "
                "changed; pass --version to use one version, or --output NAME"
            )

    def _extend_layout(self, name: str, rows: Array) -> None:
        dtype, shape = self._layout.setdefault(name, (rows.dtype, rows.shape[1:]))
        if dtype.kind == rows.dtype.kind == "S":
            dtype = max(dtype, rows.dtype, key=lambda one: one.itemsize)
        if (dtype if dtype.kind == "S" else rows.dtype, rows.shape[1:]) != (dtype, shape):
            raise _make_layout_error(name, f"{rows.dtype} {rows.shape[1:]}", f"{dtype} {shape}")
        self._layout[name] = dtype, shape

    def _write_joined(self, file: Any) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, (dtype, shape) in self._layout.items():
                header = {
                    "descr": npy_format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (self._count, *shape),
                }
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    npy_format.write_array_header_1_0(member, header)
                    for rows in self._read_chunks(name, dtype, shape):
                        member.write(rows.tobytes())

    def _read_chunks(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[Array]:
        """Yield the rows of an output; those that failed are NaN, or zeros or empty without NaN."""
        failed = {failure["row"] for failure in self.failures}
        fill: Any = np.nan if dtype.kind in "fc" else np.zeros((), dtype)
        for path in self._chunks:
            match = _CHUNK.fullmatch(path.name)
            assert match is not None
            numbers = range(int(match[1]), int(match[2]))
            is_done = np.array([number not in failed for number in numbers])
            rows = np.full((len(numbers), *shape), fill, dtype)
            if is_done.any():
                with np.load(path) as chunk:
                    rows[is_done] = chunk[_OUTPUT + name]
            yield rows


def _stack(name: str, rows: list[Array]) -> Array:
    kinds = sorted({f"{row.dtype} {row.shape}" for row in rows})
    if len(kinds) > 1:
        raise _make_layout_error(name, kinds[1], kinds[0])
    return as_npz_array(name, np.stack(rows))


def _make_layout_error(name: str, given: str, expected: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"output {name!r} is {given} for some rows and {expected} for others, which does not fit in one "
        "array; omit it with --output NAME, or use infer_many in Python"
    )


def _replace(path: Path, temporary: Path, write: Callable[[Any], Any]) -> None:
    """Write a file completely, to the disk, before it gets its name."""
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def _errors(path: Path, error_class: type[TfServingError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise error_class(f"cannot write {path}: {error.strerror or error}") from error
