"""Metrics of what happens below the calls: loads, warmup, graph runs, batches.

Names, labels and buckets are those of TensorFlow (cc/saved_model/loader.cc, core/framework/metrics.cc) and of
TensorFlow Serving 2.20 (saved_model_warmup_util.cc, batching_session.cc, batching_util.h).
"""

from __future__ import annotations

from pathlib import Path

from tfserving.server.observability.prometheus_text import Registry, exponential

# Version directories whose series are kept; those go that were loaded longest ago.
_PATHS = 500

_BATCH_SIZES = exponential(1, 2, 14)


class RuntimeMetrics:
    """Loads, warmup and graph runs. Any thread may call."""

    def __init__(self, registry: Registry) -> None:
        self._attempts = registry.counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "Tries to load a version.",
            "model_path",
            "status",
            limit=_PATHS,
        )
        self._load_latency = registry.counter(
            ":tensorflow:cc:saved_model:load_latency",
            "Microseconds that successful loads took, warmup not included.",
            "model_path",
            limit=_PATHS,
        )
        self._run_seconds = registry.counter(
            ":tensorflow:core:graph_run_time_usecs", "Microseconds for which graphs ran."
        ).series()
        self._runs = registry.counter(":tensorflow:core:graph_runs", "Runs of a graph.").series()
        self._warmup_latency = registry.histogram(
            ":tensorflow:serving:model_warmup_latency",
            "Microseconds that the warmup of a version took.",
            "model_path",
            "status",
            bounds=exponential(10, 1.8, 33),
            limit=_PATHS,
        )
        self._warmup_records = registry.counter(
            ":tensorflow:serving:model_warmup_records_read",
            "Warmup records that were answered.",
            "model_path",
            limit=_PATHS,
        )

    def loaded(self, path: Path, seconds: float) -> None:
        """A version came into memory."""
        self._attempts.series(str(path), "success").add(1)
        self._load_latency.series(str(path)).add(round(seconds * 1e6))

    def load_failed(self, path: Path) -> None:
        """A version could not be loaded."""
        self._attempts.series(str(path), "fail").add(1)

    def warmed_up(self, path: Path, records: int, seconds: float) -> None:
        """A version answered its warmup records."""
        self._warmup_latency.series(str(path), "OK").observe(round(seconds * 1e6))
        self._warmup_records.series(str(path)).add(records)

    def graph_ran(self, seconds: float) -> None:
        """A graph ran, for a call, for a batch or for a warmup record."""
        self._runs.add(1)
        self._run_seconds.add(round(seconds * 1e6))


class BatchingMetrics:
    """Calls that are joined, and the batches that they become. Any thread may call."""

    def __init__(self, registry: Registry) -> None:
        self._input_size = registry.histogram(
            ":tensorflow:serving:batching_session:input_batch_size",
            "Rows in each call.",
            bounds=_BATCH_SIZES,
        ).series()
        self._padding = registry.histogram(
            ":tensorflow:serving:batching_session:padding_size",
            "Rows added to each batch, by its rows with them.",
            "execution_batch_size",
            bounds=_BATCH_SIZES,
            limit=_PATHS,
        )
        self._processed_size = registry.histogram(
            ":tensorflow:serving:batching_session:processed_batch_size",
            "Rows in each batch, those added included.",
            bounds=_BATCH_SIZES,
        ).series()
        self._queuing = registry.histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Microseconds that calls waited for their batch to run.",
            "thread_pool_name",
            bounds=exponential(100, 1.2, 52),
        ).series("")  # the real server makes its sessions without a name for the pool
        self._runs = registry.counter(
            ":tensorflow:serving:batching_session:wrapped_run_count", "Batches that ran."
        ).series()

    def arrived(self, rows: int) -> None:
        """A call of so many rows is to be joined with others."""
        self._input_size.observe(rows)

    def waited(self, seconds: float) -> None:
        """A call waited so long until its batch was taken out of the queue."""
        self._queuing.observe(round(seconds * 1e6))

    def ran(self, rows: int, size: int) -> None:
        """A batch ran, well or not: rows of its calls, and the same with padding."""
        self._processed_size.observe(size)
        self._padding.series(str(size)).observe(size - rows)
        self._runs.add(1)
