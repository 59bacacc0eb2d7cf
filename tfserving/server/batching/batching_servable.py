"""A queue in front of a servable that runs requests together, as tensorflow_model_server does with
--enable_batching.

Requests of one signature are joined along the first dimension of their inputs, run once, and the outputs are
split again (batching_session.cc of TensorFlow Serving 2.20). Unlike tensorflow_model_server, an empty
request is not queued, requests of different shapes wait for others of their own shape instead of failing
together, and if a batch fails, its halves run, and theirs, so that one bad request does not fail others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfserving.errors import (
    ExhaustedError,
    FailedPreconditionError,
    InvalidInputError,
    TfServingError,
    UnavailableError,
)
from tfserving.server.batching.padding import count_rows, join_batch
from tfserving.server.batching.parameters import BatchingParameters, read_parameters
from tfserving.server.core.servable import Inputs, Loader, Servable, check_dtypes
from tfserving.server.futures import attempt, gather, then
from tfserving.server.observability.prometheus_text import Registry
from tfserving.server.observability.runtime_metrics import BatchingMetrics
from tfserving.server.request_context import RequestContext
from tfserving.wire.dtypes import Arrays
from tfserving.wire.signatures import Signature

log = logging.getLogger(__name__)

# Seconds after which it tries again if the system did not let it start a thread.
RETRY_SECONDS = 1.0

# In the directory of a version, with --enable_per_model_batching_parameters.
MODEL_PARAMETERS_FILE = "batching_params.pbtxt"


@dataclass(eq=False)
class _Part:
    """A request, or a part of a large one, in a batch."""

    inputs: Inputs
    rows: int
    enqueued: float
    result: Future[Arrays] = field(default_factory=Future)


@dataclass(eq=False)
class _Batch:
    """Requests that run together. `due` is when it runs at the latest if a thread is idle."""

    key: _Key
    signature: Signature
    outputs: tuple[str, ...]
    due: float
    parts: list[_Part] = field(default_factory=list)
    rows: int = 0
    full: bool = False


# Requests with equal keys can be joined: signature, outputs, and the shapes of the inputs by alias.
_Key = tuple[str, tuple[str, ...], tuple[tuple[str, object], ...]]


class BatchingServable:
    """A servable whose requests are batched. A pending request holds no thread.

    Args:
        servable: runs the batches.
        parameters: how requests are batched.
        threads: how many batches run at the same time. Threads start when batches wait and end in `close`.
        metrics: counts requests and batches; None for no metrics.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        servable: Servable,
        parameters: BatchingParameters,
        *,
        threads: int,
        metrics: BatchingMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.signatures = servable.signatures
        self.signature_def_map = servable.signature_def_map
        self._servable = servable
        self._parameters = parameters
        self._max_threads = threads
        self._metrics = metrics or BatchingMetrics(Registry())
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[_Batch] = deque()
        self._open: dict[_Key, _Batch] = {}
        self._threads = 0
        self._idle = 0
        self._start_from = 0.0  # when a thread may be started again
        self._closed = False

    def submit(
        self, context: RequestContext, signature: Signature, inputs: Inputs, outputs: Sequence[str]
    ) -> Future[Arrays]:
        """See Servable.submit.

        Raises:
            InvalidInputError: an input has no first dimension or another than the others, or the request has
                more rows than a batch may have.
            FailedPreconditionError: the first dimension of an output is not that of the batch.
            UnavailableError: too many batches are waiting.
            NotKnownFastError: an empty request runs now, and see Servable.submit.
        """
        try:
            check_dtypes(signature, inputs)
        except InvalidInputError as error:
            # tensorflow_model_server notices this when it merges the tensors, and returns INTERNAL
            raise TfServingError(str(error), code="INTERNAL") from error
        rows = count_rows(inputs)
        if not rows:
            return self._servable.submit(context, signature, inputs, outputs)
        self._metrics.count_request(rows)
        if rows > self._parameters.max_batch_size:
            raise InvalidInputError(
                f"the request has {rows} rows, but max_batch_size is {self._parameters.max_batch_size}: "
                "split it"
            )
        started = self._clock()
        future = self._enqueue_all(signature, inputs, tuple(outputs), rows)

        def record_run(_: Future[Arrays]) -> None:
            context.run_seconds = self._clock() - started

        future.add_done_callback(record_run)
        return future

    def close(self) -> None:
        """Ends the threads and frees the servable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._servable.close()

    def _enqueue_all(
        self, signature: Signature, inputs: Inputs, outputs: tuple[str, ...], rows: int
    ) -> Future[Arrays]:
        limit = self._parameters.max_rows
        if rows <= limit:
            return self._enqueue(signature, inputs, outputs, rows)
        futures: list[Future[Arrays]] = []
        for start in range(0, rows, limit):
            part = {name: array[start : start + limit] for name, array in inputs.items()}
            futures.append(attempt(self._enqueue, signature, part, outputs, min(limit, rows - start)))
            if futures[-1].done() and futures[-1].exception():
                break  # the parts before it run: the request is done, and the servable unused, after them

        def concatenate(parts: list[Arrays]) -> Arrays:
            return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

        return then(gather(futures), concatenate)

    def _enqueue(
        self, signature: Signature, inputs: Inputs, outputs: tuple[str, ...], rows: int
    ) -> Future[Arrays]:
        """Adds a part to the open batch of its key, or starts a batch."""
        pad = self._parameters.pad_variable_length_inputs
        shapes = tuple((name, array.ndim if pad else array.shape[1:]) for name, array in inputs.items())
        key = (signature.name, outputs, shapes)
        with self._changed:
            if not self._threads and not self._start_thread():
                raise ExhaustedError("no thread can be started for batches; raise the limit of threads")
            now = self._clock()
            batch = self._open.get(key)
            if batch is not None and batch.rows + rows > self._parameters.max_rows:
                self._seal(batch)
                batch = None
            if batch is None:
                if len(self._waiting) >= self._parameters.max_enqueued_batches:
                    raise UnavailableError(
                        f"the queue is full ({len(self._waiting)} batches wait, max_enqueued_batches); "
                        "retry later"
                    )
                due = now + self._parameters.batch_timeout_micros / 1e6
                batch = self._open[key] = _Batch(key, signature, outputs, due)
                self._waiting.append(batch)
            part = _Part(inputs, rows, now)
            batch.parts.append(part)
            batch.rows += rows
            if batch.rows >= self._parameters.max_rows:
                self._seal(batch)
            if self._idle < len(self._waiting) and self._threads < self._max_threads:
                self._start_thread()
            self._changed.notify()
        return part.result

    def _seal(self, batch: _Batch) -> None:
        batch.full = True
        del self._open[batch.key]

    def _start_thread(self) -> bool:
        """Start one if the system permits it; return whether it did."""
        now, name = self._clock(), f"batch-{self._threads + 1}"
        if now < self._start_from:
            return False
        try:
            threading.Thread(target=self._run_batches, name=name, daemon=True).start()
        except RuntimeError as error:
            self._start_from = now + RETRY_SECONDS
            log.error("there is no further thread for batches: %s; raise the limit of threads", error)
            return False
        self._idle += 1
        self._threads += 1
        return True

    def _run_batches(self) -> None:
        while self._run_next():
            with self._changed:
                self._idle += 1

    def _run_next(self) -> bool:
        """Runs the next batch; False once the queue is closed.

        Separate from the loop, so that a thread that waits for a batch has no reference to the last one.
        """
        batch = self._take()
        if batch is None:
            return False
        now = self._clock()
        for part in batch.parts:
            self._metrics.count_wait(now - part.enqueued)
        self._run(batch)
        return True

    def _take(self) -> _Batch | None:
        """Waits for a batch that is full or due; None once closed."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                batch = next((batch for batch in self._waiting if batch.full or batch.due <= now), None)
                if batch is not None:
                    self._waiting.remove(batch)
                    if not batch.full:
                        self._seal(batch)
                    self._idle -= 1
                    return batch
                due = min((batch.due for batch in self._waiting), default=None)
                self._changed.wait(None if due is None else max(0.0, due - now))
        return None

    def _run(self, batch: _Batch) -> None:
        """Runs a batch and completes the futures of its parts; raises nothing."""
        try:
            outputs = self._run_together(batch)
        except Exception as error:  # noqa: BLE001 - raised by the future
            if len(batch.parts) == 1:
                batch.parts[0].result.set_exception(error)
                return
            middle = len(batch.parts) // 2
            for parts in (batch.parts[:middle], batch.parts[middle:]):
                rows = sum(part.rows for part in parts)
                self._run(_Batch(batch.key, batch.signature, batch.outputs, batch.due, parts, rows))
            return
        start = 0
        for part in batch.parts:
            end = start + part.rows
            part.result.set_result({name: array[start:end] for name, array in outputs.items()})
            start = end

    def _run_together(self, batch: _Batch) -> Arrays:
        size = self._parameters.padded_size(batch.rows)
        inputs = {
            name: join_batch([part.inputs[name] for part in batch.parts], size)
            for name in batch.parts[0].inputs
        }
        self._metrics.count_batch(batch.rows, size)
        outputs = self._servable.submit(RequestContext(), batch.signature, inputs, batch.outputs).result()
        for name, array in outputs.items():
            if not array.ndim or array.shape[0] != size:
                raise FailedPreconditionError(
                    f"output {name!r} of signature {batch.signature.name!r} has shape {array.shape} for a "
                    f"batch of {size}: with batching, the first dimension of every output must be the batch"
                )
        return outputs


@dataclass(frozen=True)
class BatchingLoader:
    """A loader whose servables batch their requests.

    Attributes:
        load: loads the servable behind the queue.
        parameters: for all versions; with `per_model`, only its num_batch_threads counts.
        metrics: counts requests and batches; None for no metrics.
        per_model: whether each version has its own parameters file; versions without one are not batched.
    """

    load: Loader
    parameters: BatchingParameters
    metrics: BatchingMetrics | None = None
    per_model: bool = False

    def __call__(self, model: str, version: int, path: Path) -> Servable:
        """Loads a version; raises as `load` does, and ConfigError for an invalid parameters file."""
        parameters = self.parameters
        if self.per_model:
            if not (path / MODEL_PARAMETERS_FILE).exists():
                return self.load(model, version, path)
            parameters = read_parameters(path / MODEL_PARAMETERS_FILE)
        return BatchingServable(
            self.load(model, version, path),
            parameters,
            threads=self.parameters.num_batch_threads,
            metrics=self.metrics,
        )
