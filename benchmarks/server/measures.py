"""The measures. What a row compares is measured alternately, in several rounds of one run."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.report import Row, compared, time_text
from benchmarks.server import h2load, servers
from benchmarks.server.first_calls import first_calls
from benchmarks.server.in_process import InProcess
from benchmarks.server.latency_probes import Prober, SlowLoad, measure_slow_model
from benchmarks.server.repetitions import Repetitions
from tests.process_usage import read_usage

# Seconds after which the memory of an unloaded version is free.
_SETTLED = 1.5


def throughput(models: Path, directory: Path, repetitions: Repetitions) -> Iterator[Row]:
    """Requests per second of a trivial model, against a minimal server and an empty gRPC handler."""
    with ExitStack() as stack:
        running = {
            "embedded": stack.enter_context(servers.embedded(*_model_flags("trivial", models))),
            "minimal": stack.enter_context(servers.minimal(models / "trivial" / "1")),
            "empty": stack.enter_context(servers.empty_handler()),
        }
        requests = {
            name: servers.grpc_request(server, "trivial", directory) for name, server in running.items()
        }
        requests["REST"] = servers.rest_request(running["embedded"], "trivial", directory)
        for clients in (8, 1):
            rates = _measure_rates(requests, clients, repetitions)
            what = f"requests per second, trivial model, {_count_clients(clients)}"
            minimal = "minimal server (`benchmarks/minimal_server.py`)"
            empty = "empty `grpc.aio` handler (`benchmarks/bare_server.py`)"
            limit = 1.3 if clients == 8 else None
            yield _compare_rates(what, minimal, rates["embedded"], rates["minimal"], limit)
            yield _compare_rates(what, empty, rates["embedded"], rates["empty"])
            yield _compare_rates(f"{what}, REST", "gRPC", rates["REST"], rates["embedded"])


def overhead(models: Path, directory: Path, repetitions: Repetitions) -> Iterator[Row]:
    """The latency of a MobileNetV2 in process, over gRPC and over REST.

    Also that of the minimal server, and of an empty gRPC handler that uses the CPU for the time of the model.
    It takes twice the rounds, since the speed of a machine can vary more than these latencies differ.
    """
    with ExitStack() as stack:
        embedded = stack.enter_context(servers.embedded(*_model_flags("mobilenet", models)))
        minimal = stack.enter_context(servers.minimal(models / "mobilenet" / "1"))
        in_process = stack.enter_context(InProcess("mobilenet", models / "mobilenet" / "1"))
        busy = in_process.measure(repetitions.calls)
        empty = stack.enter_context(servers.empty_handler(busy))
        requests = {
            "gRPC": servers.grpc_request(embedded, "mobilenet", directory),
            "minimal": servers.grpc_request(minimal, "mobilenet", directory),
            "empty": servers.grpc_request(empty, "mobilenet", directory),
            "REST": servers.rest_request(embedded, "mobilenet", directory),
            "REST, float32 digits": servers.rest_request(embedded, "mobilenet", directory, short=True),
        }
        h2load.run_requests(requests["gRPC"], 3)

        def measure(request: servers.Request) -> float:
            return statistics.median(h2load.run_requests(request, repetitions.calls).latencies)

        measures: dict[str, Callable[[], float]] = {
            "in process": lambda: in_process.measure(repetitions.calls)
        }
        measures |= {name: partial(measure, request) for name, request in requests.items()}
        times = _measure_alternately(measures, 2 * repetitions.rounds)
    model = times["in process"]
    yield compared("MobileNetV2 request, gRPC", "in process", times["gRPC"], model, 1.08)
    yield compared("MobileNetV2 request, minimal server", "in process", times["minimal"], model)
    transport = times["empty"] - busy
    yield compared("transport of the same 600 kB over gRPC", "in process", transport, model)
    for name, limit in (("REST", 1.5), ("REST, float32 digits", None)):
        size = requests[name].body.stat().st_size / 1e6
        what = f"MobileNetV2 request, {name}, {size:.1f} MB of JSON"
        yield compared(what, "gRPC", times[name], times["gRPC"], limit)


def batching(models: Path, directory: Path, repetitions: Repetitions) -> Iterator[Row]:
    """Requests per second of a model whose weights take longer to read than to multiply."""
    parameters = directory / "batching.config"
    parameters.write_text("max_batch_size { value: 16 }\nnum_batch_threads { value: 2 }\n")
    flags = ("--enable_batching=true", f"--batching_parameters_file={parameters}")
    serving = (*_model_flags("dense", models), "--grpc_max_threads=64")
    with servers.embedded(*serving, *flags) as on, servers.embedded(*serving) as off:
        what = "requests per second with batching, 4096x4096 matrix"
        yield _compare_servers(what, "without batching", (on, off), "dense", 16, directory, repetitions, 1.5)


def parallelism(models: Path, directory: Path, repetitions: Repetitions) -> Iterator[Row]:
    """Requests per second of a MobileNetV2 when each operation uses one CPU instead of all."""
    serving = _model_flags("mobilenet", models)
    one_cpu = "--tensorflow_intra_op_parallelism=1"
    with servers.embedded(*serving, one_cpu) as one, servers.embedded(*serving) as every:
        for clients in (1, 4):
            what = f"requests per second, MobileNetV2, {one_cpu}"
            yield _compare_servers(
                what, "all CPUs", (one, every), "mobilenet", clients, directory, repetitions
            )


def memory(models: Path, directory: Path, repetitions: Repetitions) -> Iterator[Row]:
    """Memory, threads and files of the server while versions of a MobileNetV2 are swapped."""
    base_path = directory / "swapped"
    source = models / "mobilenet" / "1"
    begin, end = repetitions.swaps
    servers.publish_linked(source, base_path, 1)
    usages = []
    with servers.embedded("--model_name=mobilenet", f"--model_base_path={base_path}") as server:
        request = servers.grpc_request(server, "mobilenet", directory)
        for swap in range(1, end + 1):
            servers.publish_linked(source, base_path, swap + 1)
            server.wait_until_serving("mobilenet", swap + 1)
            shutil.rmtree(base_path / str(swap))
            h2load.run_requests(request, 2)
            time.sleep(_SETTLED)
            usage = read_usage(server.process.pid)
            usages.append((usage.resident, usage.threads, usage.files))
    swaps = np.arange(begin, end + 1)
    resident, threads, files = np.array(usages[begin - 1 :]).T.tolist()
    slope = float(np.polyfit(swaps, resident, 1)[0])
    measured = f"{resident[0]:.0f} MB to {resident[-1]:.0f} MB, {slope:+.2f} MB per swap"
    yield Row(f"memory, swaps {begin} to {end} of a MobileNetV2", "1 MB per swap", measured, slope, 1.0)
    for what, counts in (("threads", threads), ("open files and sockets", files)):
        measured = f"{counts[0]:.0f} to {counts[-1]:.0f}"
        yield Row(f"{what}, the same swaps", "no growth", measured, counts[-1] / counts[0], 1.0)


def delays(models: Path, directory: Path, repetitions: Repetitions) -> Iterator[Row]:
    """The latency of other requests while more clients than the server has threads call a slow model."""
    config = directory / "slow.config"
    entries = (
        f'config {{ name: "{name}" base_path: "{models / name}" model_platform: "tensorflow" }}'
        for name in ("slow", "trivial")
    )
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    threads, clients = 4, 8
    flags = (
        f"--model_config_file={config}",
        f"--grpc_max_threads={threads}",
        "--enable_grpc_healthcheck_service",
    )
    seconds = 4 * repetitions.seconds
    idle: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    with servers.embedded(*flags) as server, Prober(server) as prober:
        prober.measure(min(seconds, 1.0))
        slow = measure_slow_model(server)
        for _ in range(repetitions.rounds):
            for latencies, slow_clients in ((idle, 0), (busy, clients)):
                with SlowLoad(server, slow_clients):
                    time.sleep(min(seconds, 0.5))
                    for name, values in prober.measure(seconds).items():
                        latencies.setdefault(name, []).extend(values)
    for name, latencies in busy.items():
        usual = statistics.median(idle[name])
        delay = max(latencies) - usual
        measured = (
            f"median {time_text(statistics.median(latencies))}, "
            f"99th percentile {time_text(np.quantile(latencies, 0.99))}, "
            f"maximum {time_text(max(latencies))}; idle median {time_text(usual)}; slow model {slow:.1f} s"
        )
        what = f"longest delay while a slow model is busy, {clients} clients, {threads} threads: {name}"
        yield Row(what, "50 ms", measured, delay / 0.05, 1.0)


def _count_clients(number: int) -> str:
    return f"{number} client{'s' * (number > 1)}"


def _compare_rates(what: str, baseline: str, ours: float, theirs: float, limit: float | None = None) -> Row:
    return Row(what, baseline, f"{ours:,.0f} against {theirs:,.0f}", ours / theirs, limit, at_least=True)


def _compare_servers(
    what: str,
    baseline: str,
    pair: tuple[servers.Server, servers.Server],
    model: str,
    clients: int,
    directory: Path,
    repetitions: Repetitions,
    limit: float | None = None,
) -> Row:
    """Compare the requests per second of the first server with those of the second."""
    names = ("ours", "theirs")
    requests = {
        name: servers.grpc_request(server, model, directory) for name, server in zip(names, pair, strict=True)
    }
    rates = _measure_rates(requests, clients, repetitions)
    return _compare_rates(
        f"{what}, {_count_clients(clients)}", baseline, *(rates[name] for name in names), limit
    )


def _measure_rates(
    requests: dict[str, servers.Request], clients: int, repetitions: Repetitions
) -> dict[str, float]:
    """Measure the requests per second of each server."""

    def measure(request: servers.Request) -> float:
        return h2load.run_for_seconds(request, repetitions.seconds, clients).rate

    measures = {name: partial(measure, request) for name, request in requests.items()}
    return _measure_alternately(measures, repetitions.rounds)


def _measure_alternately(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median of each measure."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return {name: statistics.median(values) for name, values in figures.items()}


def _model_flags(model: str, models: Path) -> tuple[str, ...]:
    return f"--model_name={model}", f"--model_base_path={models / model}"


MEASURES = {
    measure.__name__: measure
    for measure in (throughput, overhead, batching, parallelism, first_calls, memory, delays)
}
