"""Runs calls that arrive together as one, as tensorflow_model_server does with --enable_batching.

Calls of one signature are joined along the first dimension of their inputs, run once, and the outputs are cut
apart again (batching_session.cc of TensorFlow Serving 2.20). Different from there: an empty batch is answered
at once, calls whose shapes differ wait for others of their own shape instead of failing together, and when a
batch fails each of its calls is run alone, so that one bad call spoils no other.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from tfserving.errors import (
    ConfigError,
    FailedPreconditionError,
    InvalidInputError,
    TfServingError,
    UnavailableError,
)
from tfserving.server.core.servable import Arrays, Loader, Servable, check_dtypes
from tfserving.server.observability.prometheus_text import Registry
from tfserving.server.observability.runtime_metrics import BatchingMetrics
from tfserving.wire import messages
from tfserving.wire.signatures import Signature

# In the directory of a version, with --enable_per_model_batching_parameters.
MODEL_PARAMETERS_FILE = "batching_params.pbtxt"

_CPUS = os.cpu_count() or 1

Inputs = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class BatchingParameters:
    """How calls are joined; names and defaults are those of the batching parameters file.

    Attributes:
        max_batch_size: rows of a call, and of a batch, at the most.
        batch_timeout_micros: microseconds that a batch waits to be filled once a thread is free.
        max_enqueued_batches: batches of a version that may wait; more are refused.
        num_batch_threads: batches of a version that run at the same time.
        allowed_batch_sizes: sizes that batches are padded to; empty: any.
        pad_variable_length_inputs: whether inputs of different sizes are padded to join one batch.
        split_large: whether a call of more rows than max_execution_batch_size is cut into several.
        max_execution_batch_size: with split_large, rows in a batch; 0 stands for max_batch_size.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = _CPUS
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    split_large: bool = False
    max_execution_batch_size: int = 0

    @property
    def limit(self) -> int:
        """Rows that one run of the model takes at the most."""
        return (self.split_large and self.max_execution_batch_size) or self.max_batch_size


def read_parameters(path: str | Path) -> BatchingParameters:
    """The parameters in a file in protobuf text format (`BatchingParameters`).

    Raises:
        ConfigError: the file cannot be read, does not parse, or contradicts itself.
    """
    message = messages.BatchingParameters()
    try:
        text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"batching parameters {path}: {error}") from error
    given: dict[str, Any] = {}
    for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
        if message.HasField(name):
            given[name] = getattr(message, name).value
            if given[name] < (0 if name == "batch_timeout_micros" else 1):
                raise ConfigError(f"batching parameters {path}: {name} is {given[name]}")
    parameters = BatchingParameters(
        **given,
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        split_large=message.enable_large_batch_splitting.value,
        max_execution_batch_size=message.max_execution_batch_size.value,
    )
    if not 0 <= parameters.max_execution_batch_size <= parameters.max_batch_size:
        raise ConfigError(
            f"batching parameters {path}: max_execution_batch_size is {parameters.max_execution_batch_size}: "
            f"it cannot be larger than max_batch_size, {parameters.max_batch_size}"
        )
    sizes = parameters.allowed_batch_sizes
    if sizes and (sorted(set(sizes)) != list(sizes) or sizes[0] < 1 or sizes[-1] != parameters.limit):
        raise ConfigError(
            f"batching parameters {path}: allowed_batch_sizes {list(sizes)} must rise, and end with "
            f"{parameters.limit}, the largest batch"
        )
    return parameters


@dataclass(eq=False)
class _Task:
    """A call, or a part of one: its inputs, its rows and where the answer goes."""

    inputs: Inputs
    rows: int
    answer: Future[Arrays] = field(default_factory=Future)
    arrived: float = 0.0


@dataclass(eq=False)
class _Batch:
    """Calls that will run together. `due` is when it runs at the latest once a thread is free."""

    owner: BatchingServable
    signature: Signature
    outputs: tuple[str, ...]
    due: float
    tasks: list[_Task] = field(default_factory=list)
    rows: int = 0
    full: bool = False


class BatchScheduler:
    """Threads that run the batches of a version; the batch that was begun first goes first.

    The real server shares its threads between all models, and there a slow one keeps the others waiting.

    Args:
        threads: how many batches run at the same time. Threads come when batches wait and stay until `close`.
        metrics: counts calls and batches.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        threads: int,
        *,
        metrics: BatchingMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = threads
        self._clock = clock
        self.metrics = metrics or BatchingMetrics(Registry())
        self._waiting: deque[_Batch] = deque()
        self._open: dict[Any, _Batch] = {}
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def close(self) -> None:
        """Lets the threads end; no batch waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def submit(self, owner: BatchingServable, key: Any, make: Callable[[float], _Batch], task: _Task) -> None:
        """Adds a call to the open batch of its key, or begins one.

        Raises:
            UnavailableError: as many batches of the owner wait as may.
        """
        parameters = owner.parameters
        with self._changed:
            batch = self._open.get(key)
            if batch is None or batch.rows + task.rows > parameters.limit:
                if batch is not None:
                    self._fill(key)
                if owner.enqueued >= parameters.max_enqueued_batches:
                    raise UnavailableError(
                        f"{owner.enqueued} batches wait already, as many as max_enqueued_batches allows: "
                        "call again later"
                    )
                batch = self._open[key] = make(self._clock() + parameters.batch_timeout_micros / 1e6)
                self._waiting.append(batch)
                owner.enqueued += 1
            task.arrived = self._clock()
            batch.tasks.append(task)
            batch.rows += task.rows
            if batch.rows >= parameters.limit:
                self._fill(key)
            if self._idle < len(self._waiting) and self._threads < self._limit:
                self._hire()
            self._changed.notify()

    def _fill(self, key: Any) -> None:
        self._open.pop(key).full = True

    def _hire(self) -> None:
        self._idle += 1
        self._threads += 1
        threading.Thread(target=self._run, name=f"batch-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Waits for a batch and runs it; False once closed."""
        with self._changed:
            batch = self._take()
            if batch is None:
                self._threads -= 1
                return False
            self._idle -= 1
        taken = self._clock()
        for task in batch.tasks:
            self.metrics.waited(taken - task.arrived)
        batch.owner.run_batch(batch)
        with self._changed:
            self._idle += 1
        return True

    def _take(self) -> _Batch | None:
        """Waits for a batch that is full or due, and takes it out; None once closed."""
        while not self._closed:
            now = self._clock()
            for batch in self._waiting:
                if batch.full or batch.due <= now:
                    self._waiting.remove(batch)
                    for key, opened in self._open.items():
                        if opened is batch:
                            del self._open[key]
                            break
                    batch.owner.enqueued -= 1
                    return batch
            due = min((batch.due for batch in self._waiting), default=None)
            self._changed.wait(None if due is None else max(0.0, due - now))
        return None


class BatchingServable:
    """A servable whose calls are joined."""

    def __init__(self, servable: Servable, parameters: BatchingParameters, scheduler: BatchScheduler) -> None:
        self._servable = servable
        self.parameters = parameters
        self._scheduler = scheduler
        self.enqueued = 0  # batches that wait; the scheduler's to change
        self.signatures = servable.signatures
        self.signature_def_map = servable.signature_def_map

    def run(self, signature: Signature, inputs: Inputs, outputs: Sequence[str]) -> Arrays:
        """As the servable's own `run`; blocks until the batch has run.

        Raises:
            InvalidInputError: an input without a first dimension, or with another than its siblings', or more
                rows than a batch may have.
            FailedPreconditionError: an output whose first dimension is not that of the batch.
            UnavailableError: too many batches wait.
        """
        try:
            check_dtypes(signature, inputs)
        except InvalidInputError as error:
            # the real server finds this when it merges tensors, and calls it an error of its own
            raise TfServingError(str(error), code="INTERNAL") from error
        rows = _rows(inputs)
        if not rows:
            return self._servable.run(signature, inputs, outputs)
        self._scheduler.metrics.arrived(rows)
        limit, most = self.parameters.limit, self.parameters.max_batch_size
        if rows > most:
            raise InvalidInputError(
                f"{rows} rows in a call, but max_batch_size is {most}: send them in parts"
            )
        tasks: list[_Task] = []
        try:
            for start in range(0, rows, limit):
                part = inputs
                if rows > limit:
                    part = {name: array[start : start + limit] for name, array in inputs.items()}
                task = _Task(part, min(limit, rows - start))
                self._submit(signature, task, tuple(outputs))
                tasks.append(task)
        finally:
            # whatever becomes of the call, its parts run, and only a call keeps the servable from being freed
            for task in tasks:
                task.answer.exception()
        answers = [task.answer.result() for task in tasks]
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}

    def close(self) -> None:
        """Frees the servable and its threads; no call is waiting by then, since each holds a pin."""
        self._scheduler.close()
        self._servable.close()

    def _submit(self, signature: Signature, task: _Task, outputs: tuple[str, ...]) -> None:
        pad = self.parameters.pad_variable_length_inputs
        shapes = tuple((name, array.ndim if pad else array.shape[1:]) for name, array in task.inputs.items())
        key = (self, signature.name, outputs, shapes)
        self._scheduler.submit(self, key, lambda due: _Batch(self, signature, outputs, due), task)

    def run_batch(self, batch: _Batch) -> None:
        """Runs a batch and answers its calls; raises nothing. For the scheduler."""
        try:
            self._run_together(batch)
        except Exception as error:  # noqa: BLE001 - handed to the callers, who wait for it
            if len(batch.tasks) == 1:
                batch.tasks[0].answer.set_exception(error)
                return
            for task in batch.tasks:
                self.run_batch(_Batch(self, batch.signature, batch.outputs, 0.0, [task], task.rows))

    def _run_together(self, batch: _Batch) -> None:
        rows = batch.rows
        size = next((size for size in self.parameters.allowed_batch_sizes if size >= rows), rows)
        inputs = {
            name: _joined([task.inputs[name] for task in batch.tasks], size) for name in batch.tasks[0].inputs
        }
        self._scheduler.metrics.ran(rows, size)
        outputs = self._servable.run(batch.signature, inputs, batch.outputs)
        for name, array in outputs.items():
            if not array.ndim or array.shape[0] != size:
                raise FailedPreconditionError(
                    f"output {name!r} of signature {batch.signature.name!r} has shape {array.shape} for a "
                    f"batch of {size}: batching needs the batch as the first dimension of every output"
                )
        start = 0
        for task in batch.tasks:
            task.answer.set_result(
                {name: array[start : start + task.rows] for name, array in outputs.items()}
            )
            start += task.rows


@dataclass(frozen=True)
class BatchingLoader:
    """A loader whose servables join calls.

    `per_model` reads the parameters of each version from its own file, where it has one, and leaves versions
    without it unbatched; only the threads are then taken from the parameters given here.
    """

    load: Loader
    parameters: BatchingParameters
    metrics: BatchingMetrics | None = None
    per_model: bool = False

    def __call__(self, model: str, version: int, path: Path) -> Servable:
        """Loads a version; raises as the loader within does, and ConfigError for a bad parameters file."""
        parameters = self.parameters
        if self.per_model:
            if not (path / MODEL_PARAMETERS_FILE).exists():
                return self.load(model, version, path)
            parameters = read_parameters(path / MODEL_PARAMETERS_FILE)
        scheduler = BatchScheduler(self.parameters.num_batch_threads, metrics=self.metrics)
        return BatchingServable(self.load(model, version, path), parameters, scheduler)


def _rows(inputs: Inputs) -> int:
    """The first dimension that all inputs share."""
    sizes = {}
    for name, array in inputs.items():
        if not array.ndim:
            raise InvalidInputError(
                f"input {name!r} is a scalar: with batching on, inputs need a batch dimension"
            )
        sizes[name] = array.shape[0]
    if len(set(sizes.values())) > 1:
        raise InvalidInputError(f"with batching on, inputs share their first dimension; these have {sizes}")
    return next(iter(sizes.values()), 0)


def _joined(arrays: list[np.ndarray[Any, Any]], size: int) -> np.ndarray[Any, Any]:
    """Arrays one after the other, padded to `size` rows with the first one's first row.

    Where other dimensions differ each array is padded to the largest with its own first element, as the real
    server does (batching_util.cc).
    """
    if len({array.shape[1:] for array in arrays}) > 1:
        shape = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [_padded(array, shape) for array in arrays]
    missing = size - sum(len(array) for array in arrays)
    if missing:
        arrays = [*arrays, np.repeat(arrays[0][:1], missing, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _padded(array: np.ndarray[Any, Any], shape: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if tuple(array.shape[1:]) == tuple(shape):
        return array
    if not array.size:
        raise InvalidInputError("an empty input cannot be padded to the size of others in its batch")
    padded = np.full((len(array), *shape), array.flat[0], array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    return padded
