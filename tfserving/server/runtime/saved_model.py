"""SavedModels in TensorFlow sessions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tfserving.errors import (
    InvalidInputError,
    RepositoryError,
    TfServingError,
    UnsupportedError,
    error_class_for,
)
from tfserving.repository.warmup_records import read_warmup, unpack_requests
from tfserving.server.core.servable import (
    Inputs,
    NotKnownFastError,
    check_dtypes,
    complete_inputs,
    select_outputs,
)
from tfserving.server.futures import CompletedFuture
from tfserving.server.observability.prometheus_text import Registry
from tfserving.server.observability.runtime_metrics import RuntimeMetrics
from tfserving.server.request_context import RequestContext
from tfserving.server.runtime import op_libraries
from tfserving.server.runtime.low_priority import run_at_low_priority
from tfserving.server.runtime.session_graph import SessionGraphs
from tfserving.server.runtime.tensorflow_process import import_tensorflow
from tfserving.server.server_options import RuntimeOptions
from tfserving.wire import messages
from tfserving.wire.dtypes import Array, Arrays, DType
from tfserving.wire.signatures import Signature, signatures_of

log = logging.getLogger(__name__)

# Seconds of a run that the event loop may wait for: about what handing it to a thread takes.
FAST_SECONDS = 0.0002
_MAX_KINDS = 1024


def load(
    model: str, version: int, path: Path, *, options: RuntimeOptions, metrics: RuntimeMetrics | None = None
) -> SavedModel:
    """Loads a version and runs its warmup records.

    Args:
        metrics: counts loads, warmup and graph runs.

    Raises:
        RepositoryError: the directory is not a SavedModel with these tags.
        TfServingError: TensorFlow cannot restore it, or a warmup record fails. As in tensorflow_model_server,
            the version does not become available then.
    """
    metrics = metrics or RuntimeMetrics(Registry())
    started = time.perf_counter()
    try:
        saved_model = SavedModel(path, options, metrics)
    except Exception:
        metrics.count_failed_load(path)
        raise
    loaded = time.perf_counter()
    metrics.count_load(path, loaded - started)
    if options.warmup:
        try:
            count = saved_model.replay(model, read_warmup(path), options.warmup_iterations)
        except TfServingError as error:
            saved_model.close()
            raise type(error)(
                f"warmup of model {model!r} version {version}: {error}", code=error.code
            ) from error
        if count:
            metrics.count_warmup(path, count, time.perf_counter() - loaded)
            log.info("model %r version %d: %d warmup records", model, version, count)
    return saved_model


class SavedModel:
    """A SavedModel of TensorFlow 1 or 2 in its own session, with tables and state."""

    def __init__(self, path: Path, options: RuntimeOptions, metrics: RuntimeMetrics) -> None:
        runtime = import_tensorflow(options)
        tf = runtime.module

        self._errors = tf.errors
        self._callable_options = runtime.CallableOptions
        self._flushing_denormals = runtime.flushing_denormals
        self._metrics = metrics
        self._in_caller_thread = not options.inter_op_threads
        # Without this, TensorFlow logs every restored checkpoint and warns that sessions are deprecated.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.intra_op_threads,
            inter_op_parallelism_threads=options.inter_op_threads,
        )
        if options.gpu_memory_fraction:
            config.gpu_options.per_process_gpu_memory_fraction = options.gpu_memory_fraction
        else:
            config.gpu_options.allow_growth = True
        self._missing_ops: set[str] = set()
        # The graph in Python stays empty; see SessionGraphs
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            meta_graph = self._load_graph(path, list(options.tags), runtime.session_graphs)
        except Exception as error:
            self._session.close()
            raise self._translate(error, path) from error
        self.signature_def_map = messages.SignatureDefMap()
        for name, signature in meta_graph.signature_def.items():
            self.signature_def_map.signature_def[name].ParseFromString(signature.SerializeToString())
        self.signatures: Mapping[str, Signature] = signatures_of(self.signature_def_map.signature_def)
        # Output filters and optional inputs make many combinations, so callers must not fill the memory.
        self._callable = lru_cache(256)(self._ordered_callable)
        self._sorted_callable = lru_cache(256)(self._make_callable)
        # What runs take, by their signature, inputs, outputs and shapes.
        self._run_seconds: dict[tuple[object, ...], float] = {}

    def submit(
        self, context: RequestContext, signature: Signature, inputs: Inputs, outputs: Sequence[str]
    ) -> Future[Arrays]:
        """Runs the graph in the calling thread; see Servable.submit."""
        kind = (signature.name, *inputs, *outputs, *[array.shape for array in inputs.values()])
        if context.in_event_loop and self._run_seconds.get(kind, FAST_SECONDS) >= FAST_SECONDS:
            raise NotKnownFastError
        check_dtypes(signature, inputs)
        try:
            call = self._callable(signature.name, tuple(inputs), tuple(outputs))
            started = time.perf_counter()
            with self._flushing_denormals:
                values = call(*inputs.values())
        except TfServingError:
            raise
        except Exception as error:
            raise self._translate(error) from error
        context.run_seconds = time.perf_counter() - started
        self._note_speed(kind, context.run_seconds)
        self._metrics.count_graph_run(context.run_seconds)
        return CompletedFuture(
            {
                alias: _as_array(value, signature.outputs[alias].dtype)
                for alias, value in zip(outputs, values, strict=True)
            }
        )

    def replay(self, model: str, records: Iterable[Any], iterations: int = 1) -> int:
        """Runs warmup records; returns how many there were.

        Raises:
            TfServingError: a record does not fit the model, or the graph failed.
        """
        count = 0
        context = RequestContext()
        for record in records:
            for name, inputs, outputs in unpack_requests(record):
                signature = self.signatures.get(name)
                if signature is None:
                    raise InvalidInputError(
                        f"a warmup record is for signature {name!r}, which the model does not have"
                    )
                completed = complete_inputs(signature, inputs, model)
                selected = select_outputs(signature, outputs, model)
                self._prepare(name, tuple(completed), selected)
                for _ in range(iterations):
                    self.submit(context, signature, completed, selected)
            count += 1
        return count

    def _prepare(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """Creates a callable, for which TensorFlow optimizes the graph; this takes as long as many runs."""
        try:
            run_at_low_priority(self._callable, name, inputs, outputs)
        except TfServingError:
            raise
        except Exception as error:
            raise self._translate(error) from error

    def close(self) -> None:
        """Frees the session and its memory."""
        self._callable.cache_clear()
        self._sorted_callable.cache_clear()
        self._session.close()
        # The caches refer to this object, and the variables live as long as the session
        del self._session

    def _note_speed(self, kind: tuple[object, ...], seconds: float) -> None:
        """Moves what is known of a kind of run towards what one took; four fast runs make it fast.

        A longer run counts less: its time includes what the thread waited for others. The first runs may be
        those that compile the graph.
        """
        known = self._run_seconds.get(kind)
        if known is None:
            known = 8 * FAST_SECONDS
            if len(self._run_seconds) >= _MAX_KINDS:
                self._run_seconds.clear()
        seconds = min(seconds, 2 * FAST_SECONDS)
        self._run_seconds[kind] = known + (seconds - known) / (2 if seconds < known else 8)

    def _load_graph(self, path: Path, tags: list[str], graphs: SessionGraphs) -> Any:
        """Restores the model in the session; returns its `MetaGraphDef`."""
        from tensorflow.python.saved_model.loader_impl import SavedModelLoader

        meta_graph = SavedModelLoader(str(path)).get_meta_graph_def_from_tags(tags)
        self._missing_ops = op_libraries.load_libraries_for(meta_graph.graph_def)
        graphs.load(self._session, meta_graph, path)
        if self._missing_ops:
            log.warning("%s: some signatures may fail: %s", path, op_libraries.explain(self._missing_ops))
        return meta_graph

    def _ordered_callable(
        self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable[..., list[Any]]:
        """A callable for inputs and outputs in this order.

        Requests have any order, but for each new callable TensorFlow prepares the graph again, which takes as
        long as many runs. So one sorted callable serves all orders.
        """
        feeds, fetches = tuple(sorted(inputs)), tuple(sorted(outputs))
        call = self._sorted_callable(name, feeds, fetches)
        if (feeds, fetches) == (inputs, outputs):
            return call
        given = [inputs.index(alias) for alias in feeds]
        positions = [fetches.index(alias) for alias in outputs]

        def reordered(*values: Any) -> list[Any]:
            results = call(*(values[index] for index in given))
            return [results[index] for index in positions]

        return reordered

    def _make_callable(
        self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable[..., list[Any]]:
        signature = self.signatures[name]
        infos = [signature.inputs[alias] for alias in inputs], [signature.outputs[alias] for alias in outputs]
        for info in (*infos[0], *infos[1]):
            if not info.tensor_name:
                raise UnsupportedError(
                    f"{info.name!r} is a sparse tensor, which this server does not support"
                )
        options = self._callable_options(
            feed=[info.tensor_name for info in infos[0]], fetch=[info.tensor_name for info in infos[1]]
        )
        if self._in_caller_thread:
            options.run_options.inter_op_thread_pool = -1
        # The public make_callable() goes through Session.run: it costs five times as much, and rejects shapes
        # that the graph and tensorflow_model_server accept.
        made: Callable[..., list[Any]] = self._session._make_callable_from_options(options)
        return made

    def _translate(self, error: Exception, path: Path | None = None) -> TfServingError:
        """The TfServingError for an exception from TensorFlow."""
        if isinstance(error, self._errors.OpError):
            code = (
                messages.POOL.FindEnumTypeByName("tensorflow.error.Code")
                .values_by_number[error.error_code]
                .name
            )
            return error_class_for(code)(error.message + self._explain_missing_ops(error), code=code)
        if path is not None:
            return RepositoryError(f"{path}: {error}")
        # Session callables raise these for values that cannot be converted to the tensor
        if isinstance(error, (ValueError, TypeError)):
            return InvalidInputError(str(error))
        return TfServingError(f"{type(error).__name__}: {error}", code="INTERNAL")

    def _explain_missing_ops(self, error: Any) -> str:
        """What to add to the message of an error that missing ops caused, "" for other errors."""
        if not isinstance(error, self._errors.NotFoundError):
            return ""
        missing = {op for op in self._missing_ops if repr(op) in error.message}
        return f" ({op_libraries.explain(missing)})" if missing else ""


def _as_array(value: Any, dtype: DType) -> Array:
    if isinstance(value, np.ndarray):
        # TensorFlow returns quantized numbers as integers
        return value.view(dtype.numpy) if dtype.quantized_as else value
    return np.asarray(value, object if dtype is DType.DT_STRING else None)
