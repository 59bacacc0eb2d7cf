"""Measures the first request after startup and after a swap, with warmup records for its batch size."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

from benchmarks.report import Row, time_text
from benchmarks.server import servers
from benchmarks.server.benchmark_models import INPUTS
from benchmarks.server.repetitions import Repetitions
from tfserving.export.warmup_requests import generate_requests
from tfserving.repository.warmup_records import write_warmup
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import read_saved_model

_MODEL = "mobilenet"
# The batch sizes that are warmed up and requested; with batching, also the allowed ones.
_SIZES = (1, 8)
_TIMEOUT = 60.0


def first_calls(models: Path, directory: Path, repetitions: Repetitions) -> Iterator[Row]:
    """The first request after startup and after a version swap against the median, without and with batching.

    The warmup records are those of `tfserving warmup --batch-sizes 1,8`.
    """
    source = directory / "warm" / "1"
    shutil.copytree(models / _MODEL / "1", source)
    signatures = read_saved_model(source)
    write_warmup(source, generate_requests(_MODEL, signatures, len(_SIZES), batch_sizes=_SIZES))
    parameters = directory / "batching.config"
    allowed = " ".join(f"allowed_batch_sizes: {size}" for size in _SIZES)
    parameters.write_text(f"max_batch_size {{ value: {_SIZES[-1]} }} {allowed}")
    for batching, flags in (
        ("", ()),
        (", batching", ("--enable_batching=true", f"--batching_parameters_file={parameters}")),
    ):
        # The first latency and the median of each round.
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for number in range(repetitions.rounds):
            base_path = directory / f"first{len(flags)}-{number}"
            servers.publish_linked(source, base_path, 1)
            serving = (f"--model_name={_MODEL}", f"--model_base_path={base_path}")
            with servers.embedded(*serving, *flags) as server:
                _measure(server, "startup", repetitions.calls, found)
                servers.publish_linked(source, base_path, 2)
                server.wait_until_serving(_MODEL, 2)
                _measure(server, "swap", repetitions.calls, found)
        for (what, size), pairs in found.items():
            first = statistics.median(one for one, _ in pairs)
            median = statistics.median(one for _, one in pairs)
            ratio = statistics.median(one / other for one, other in pairs)
            measured = f"{time_text(first)} against {time_text(median)}"
            batch = f", batch of {size}" if size > 1 else ""
            name = f"first request after {what}, MobileNetV2 with warmup{batch}{batching}"
            yield Row(name, "median", measured, ratio, 1.5)


def _measure(
    server: servers.Server, what: str, calls: int, found: dict[tuple[str, int], list[tuple[float, float]]]
) -> None:
    """Add the first latency and the median of requests of each size, on an open connection."""
    name, shape = INPUTS[_MODEL]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        grpc.channel_ready_future(channel).result(_TIMEOUT)
        call = channel.unary_unary(services.PREDICT.path)
        for size in _SIZES:
            values = np.random.default_rng(0).random((size, *shape[1:]), np.float32)
            request = predict.encode_request(ModelSpec(_MODEL), {name: values})
            latencies = []
            for _ in range(calls):
                began = time.perf_counter()
                call(request, timeout=_TIMEOUT)
                latencies.append(time.perf_counter() - began)
            found.setdefault((what, size), []).append((latencies[0], statistics.median(latencies)))
