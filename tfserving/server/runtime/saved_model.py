"""SavedModels on TensorFlow's own runtime. The one module of the server that imports TensorFlow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError, RepositoryError, TfServingError, UnsupportedError, error_for
from tfserving.repository.warmup_records import asked, read_warmup
from tfserving.server.core.servable import Arrays, check_dtypes
from tfserving.server.observability.prometheus_text import Registry
from tfserving.server.observability.runtime_metrics import RuntimeMetrics
from tfserving.server.runtime import gc_tuning
from tfserving.wire import messages
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import Signature, signatures_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RuntimeOptions:
    """How TensorFlow runs models.

    Attributes:
        tags: of the meta graph to load.
        intra_op_threads: that one operation may use; 0 leaves the number to TensorFlow.
        inter_op_threads: for operations of one call that can run side by side. 0 runs a call in the thread
            that makes it: calls run side by side all the same, and each saves two changes of thread.
        gpu_memory_fraction: the part of each GPU's memory to take; 0 lets it grow as needed.
        warmup: whether to answer the version's warmup records before it is available.
        warmup_iterations: how often each of them.
    """

    tags: tuple[str, ...] = ("serve",)
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    gpu_memory_fraction: float = 0.0
    warmup: bool = True
    warmup_iterations: int = 1


def load(
    model: str, version: int, path: Path, *, options: RuntimeOptions, metrics: RuntimeMetrics | None = None
) -> SavedModel:
    """Loads a version and answers its warmup records.

    Args:
        metrics: counts that, and the runs of the graph.

    Raises:
        RepositoryError: the files are no SavedModel with these tags.
        TfServingError: TensorFlow cannot restore it, or a warmup record fails; as in the real server such a
            version does not come into service.
    """
    metrics = metrics or RuntimeMetrics(Registry())
    began = time.perf_counter()
    try:
        saved_model = SavedModel(path, options, metrics)
    except Exception:
        metrics.load_failed(path)
        raise
    loaded = time.perf_counter()
    metrics.loaded(path, loaded - began)
    if options.warmup:
        try:
            count = saved_model.replay(read_warmup(path), options.warmup_iterations)
        except TfServingError as error:
            saved_model.close()
            raise type(error)(f"warmup of {model} version {version}: {error}", code=error.code) from error
        if count:
            metrics.warmed_up(path, count, time.perf_counter() - loaded)
            log.info("%s version %d: %d warmup requests answered", model, version, count)
    return saved_model


class SavedModel:
    """A SavedModel in a session of its own: exports of TensorFlow 1 and 2 alike, with tables and state."""

    def __init__(self, path: Path, options: RuntimeOptions, metrics: RuntimeMetrics) -> None:
        tf, CallableOptions = _tensorflow()  # noqa: N806 - a class

        self._errors = tf.errors
        self._callable_options = CallableOptions
        self._metrics = metrics
        self._in_caller_thread = not options.inter_op_threads
        # It announces every restored checkpoint, and that sessions are of TensorFlow 1.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.intra_op_threads,
            inter_op_parallelism_threads=options.inter_op_threads,
        )
        if options.gpu_memory_fraction:
            config.gpu_options.per_process_gpu_memory_fraction = options.gpu_memory_fraction
        else:
            config.gpu_options.allow_growth = True
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(
                    self._session, list(options.tags), str(path)
                )
        except Exception as error:
            self._session.close()
            _collector.tell()
            raise self._translated(error, path) from error
        self.signature_def_map = messages.SignatureDefMap()
        for name, signature in meta_graph.signature_def.items():
            self.signature_def_map.signature_def[name].ParseFromString(signature.SerializeToString())
        self.signatures: Mapping[str, Signature] = signatures_of(self.signature_def_map.signature_def)
        # Filters and optional inputs make many combinations; the bound keeps a caller from hoarding them.
        self._callable = lru_cache(256)(self._ordered_callable)
        self._sorted_callable = lru_cache(256)(self._make_callable)

    def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray[Any, Any]], outputs: Sequence[str]
    ) -> Arrays:
        """The named outputs; inputs must have the signature's names.

        Raises:
            InvalidInputError: another dtype than the signature's, or a shape that the graph refuses.
            TfServingError: the graph failed, with TensorFlow's own code and text.
        """
        check_dtypes(signature, inputs)
        call = self._callable(signature.name, tuple(inputs), tuple(outputs))
        began = time.perf_counter()
        try:
            values = call(*inputs.values())
        except Exception as error:
            raise self._translated(error) from error
        self._metrics.graph_ran(time.perf_counter() - began)
        return {
            alias: _as_array(value, signature.outputs[alias].dtype)
            for alias, value in zip(outputs, values, strict=True)
        }

    def replay(self, records: Any, iterations: int = 1) -> int:
        """Answers warmup records; returns how many there were.

        Raises:
            TfServingError: a record that cannot be answered.
        """
        count = 0
        for record in records:
            for name, inputs, outputs in asked(record):
                signature = self.signatures.get(name)
                if signature is None:
                    raise InvalidInputError(
                        f"a warmup record for signature {name!r}, which the model does not have"
                    )
                unknown = inputs.keys() ^ signature.inputs.keys()
                if unknown - signature.defaults.keys():
                    raise InvalidInputError(
                        f"a warmup record with inputs {sorted(inputs)}, not {sorted(signature.inputs)}"
                    )
                for _ in range(max(1, iterations)):
                    self.run(signature, {**signature.defaults, **inputs}, outputs or tuple(signature.outputs))
            count += 1
        return count

    def close(self) -> None:
        """Frees the session and its memory."""
        self._callable.cache_clear()
        self._sorted_callable.cache_clear()
        self._session.close()
        _collector.tell()

    def _ordered_callable(
        self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable[..., list[Any]]:
        """A callable for inputs and outputs in this order.

        Requests have theirs in any order, and each new callable means that TensorFlow prepares the graph once
        more, which takes as long as many calls: so there is one for all orders.
        """
        feeds, fetches = tuple(sorted(inputs)), tuple(sorted(outputs))
        call = self._sorted_callable(name, feeds, fetches)
        if (feeds, fetches) == (inputs, outputs):
            return call
        given = [inputs.index(alias) for alias in feeds]
        wanted = [fetches.index(alias) for alias in outputs]

        def reordered(*values: Any) -> list[Any]:
            results = call(*(values[index] for index in given))
            return [results[index] for index in wanted]

        return reordered

    def _make_callable(
        self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable[..., list[Any]]:
        signature = self.signatures[name]
        infos = [signature.inputs[alias] for alias in inputs], [signature.outputs[alias] for alias in outputs]
        for info in (*infos[0], *infos[1]):
            if not info.tensor_name:
                raise UnsupportedError(
                    f"{info.name!r} is a sparse tensor, which this server cannot feed or fetch"
                )
        options = self._callable_options(
            feed=[info.tensor_name for info in infos[0]], fetch=[info.tensor_name for info in infos[1]]
        )
        if self._in_caller_thread:
            options.run_options.inter_op_thread_pool = -1
        # The public make_callable() goes through Session.run: five times the cost, and it refuses shapes that
        # the graph takes, and the real server with it.
        made: Callable[..., list[Any]] = self._session._make_callable_from_options(options)
        return made

    def _translated(self, error: Exception, path: Path | None = None) -> TfServingError:
        """What TensorFlow raised as an error of ours."""
        if isinstance(error, self._errors.OpError):
            code = (
                messages.POOL.FindEnumTypeByName("tensorflow.error.Code")
                .values_by_number[error.error_code]
                .name
            )
            return error_for(code)(error.message, code=code)
        if path is not None:
            return RepositoryError(f"{path}: {error}")
        # Session callables raise these for values that cannot become the tensor that is fed
        if isinstance(error, (ValueError, TypeError)):
            return InvalidInputError(str(error))
        return TfServingError(f"{type(error).__name__}: {error}", code="INTERNAL")


_collector = gc_tuning.Collector()
_importing = threading.Lock()
_imported: list[Any] = []


def _tensorflow() -> Any:
    """The module, and the class CallableOptions."""
    with _importing:
        if not _imported:
            with gc_tuning.lasting():
                import tensorflow as tf
                from tensorflow.core.protobuf.config_pb2 import CallableOptions
            _imported.extend((tf, CallableOptions))
    return _imported


def _as_array(value: Any, dtype: DType) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    return np.asarray(value, object if dtype is DType.DT_STRING else None)
