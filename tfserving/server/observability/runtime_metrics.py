"""Metrics of loads, warmup, graph runs and batches.

Names, labels and buckets are those of TensorFlow (cc/saved_model/loader.cc, core/framework/metrics.cc) and of
TensorFlow Serving 2.20 (saved_model_warmup_util.cc, batching_session.cc, batching_util.h).
"""

from __future__ import annotations

from pathlib import Path

from tfserving.server.observability.prometheus_text import Registry, exponential_bounds

# How many version directories keep their series; those that were loaded first are dropped first.
_PATHS = 500

MICROSECONDS = exponential_bounds(10, 1.8, 33)
_BATCH_SIZES = exponential_bounds(1, 2, 14)


class RuntimeMetrics:
    """Loads, warmup and graph runs. Thread-safe."""

    def __init__(self, registry: Registry) -> None:
        self._attempts = registry.counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "Attempts to load a version.",
            "model_path",
            "status",
            limit=_PATHS,
        )
        self._load_latency = registry.counter(
            ":tensorflow:cc:saved_model:load_latency",
            "Microseconds that successful loads took, without warmup.",
            "model_path",
            limit=_PATHS,
        )
        self._run_seconds = registry.counter(
            ":tensorflow:core:graph_run_time_usecs", "Microseconds that graphs ran."
        ).series()
        self._runs = registry.counter(":tensorflow:core:graph_runs", "Graph runs.").series()
        self._warmup_latency = registry.histogram(
            ":tensorflow:serving:model_warmup_latency",
            "Microseconds that the warmup of a version took.",
            "model_path",
            "status",
            bounds=MICROSECONDS,
            limit=_PATHS,
        )
        self._warmup_records = registry.counter(
            ":tensorflow:serving:model_warmup_records_read",
            "Warmup records that were run.",
            "model_path",
            limit=_PATHS,
        )

    def count_load(self, path: Path, seconds: float) -> None:
        """Counts a version that was loaded."""
        self._attempts.series(str(path), "success").add(1)
        self._load_latency.series(str(path)).add(round(seconds * 1e6))

    def count_failed_load(self, path: Path) -> None:
        """Counts a load that failed."""
        self._attempts.series(str(path), "fail").add(1)

    def count_warmup(self, path: Path, records: int, seconds: float) -> None:
        """Counts the warmup of a version."""
        self._warmup_latency.series(str(path), "OK").observe(round(seconds * 1e6))
        self._warmup_records.series(str(path)).add(records)

    def count_graph_run(self, seconds: float) -> None:
        """Counts a run for a request, a batch or a warmup record."""
        self._runs.add(1)
        self._run_seconds.add(round(seconds * 1e6))


class BatchingMetrics:
    """Requests that are batched, and their batches. Thread-safe."""

    def __init__(self, registry: Registry) -> None:
        self._input_size = registry.histogram(
            ":tensorflow:serving:batching_session:input_batch_size",
            "Rows in each request.",
            bounds=_BATCH_SIZES,
        ).series()
        self._padding = registry.histogram(
            ":tensorflow:serving:batching_session:padding_size",
            "Padding rows in each batch, by its size with padding.",
            "execution_batch_size",
            bounds=_BATCH_SIZES,
            limit=_PATHS,
        )
        self._processed_size = registry.histogram(
            ":tensorflow:serving:batching_session:processed_batch_size",
            "Rows in each batch, with padding.",
            bounds=_BATCH_SIZES,
        ).series()
        self._queuing = registry.histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Microseconds that requests waited for their batch to run.",
            "thread_pool_name",
            bounds=exponential_bounds(100, 1.2, 52),
        ).series("")  # tensorflow_model_server does not name the pool of its sessions
        self._runs = registry.counter(
            ":tensorflow:serving:batching_session:wrapped_run_count", "Batches that ran."
        ).series()

    def count_request(self, rows: int) -> None:
        """Counts a request with the given number of rows."""
        self._input_size.observe(rows)

    def count_wait(self, seconds: float) -> None:
        """Counts the seconds that a request waited in the queue."""
        self._queuing.observe(round(seconds * 1e6))

    def count_batch(self, rows: int, size: int) -> None:
        """Counts a batch that ran, whether or not it failed: its rows without and with padding."""
        self._processed_size.observe(size)
        self._padding.series(str(size)).observe(size - rows)
        self._runs.add(1)
