"""Compare `tfserving bench` with h2load: python -m benchmarks.load_generators [--quick] [--models DIR]

Both send the same request to the same embedded server, alternately in several rounds, with 1, 4 and 8
callers. --perf-analyzer compares it with perf_analyzer over gRPC as well. Prints the ratios of the medians,
and exits with 1 if one differs by more than 10 %. Needs requirements.txt and h2load (Debian: nghttp2-client).
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks import perf_analyzer
from benchmarks.report import Row, table, time_text
from benchmarks.server import h2load, servers
from benchmarks.server.benchmark_models import INPUTS
from tfserving.bench.load_connection import LoadTarget
from tfserving.bench.measurement import LevelResult, LoadLevel, LoadProgress, MeasurementOptions, measure
from tfserving.bench.quantiles import quantile

LIMIT = 0.1
# A frame of gRPC has a flag and a length before the message.
_GRPC_PREFIX = 5
# Seconds in which h2load starts.
_STARTING = 1.0


@dataclass(frozen=True)
class Round:
    """Requests per second and p99 in seconds of the other generator, and the result of tfserving bench."""

    rate: float
    p99: float
    result: LevelResult


@dataclass(frozen=True)
class Ratios:
    """The medians of tfserving bench divided by those of the other generator."""

    rate: float
    p99: float

    def agree(self, limit: float) -> bool:
        """Whether both differ from 1 by at most the limit."""
        return abs(self.rate - 1) <= limit and abs(self.p99 - 1) <= limit


# From a number of clients and seconds to requests per second and p99 in seconds.
Generator = Callable[[int, float], tuple[float, float]]


def measure_rounds(
    request: servers.Request, other: Generator, clients: int, seconds: float, count: int
) -> list[Round]:
    """Measure with both in turn."""
    rounds = []
    for _ in range(count):
        rate, p99 = other(clients, seconds)
        rounds.append(Round(rate, p99, _bench(request, clients, seconds)))
    return rounds


def compare_together(request: servers.Request, clients: int, seconds: float) -> Ratios:
    """Measure with both at the same time, so that both see the same server on the same busy machine."""
    with ThreadPoolExecutor(1) as pool:
        loads: list[Future[h2load.Load]] = []

        def start(progress: LoadProgress) -> None:
            if progress.phase == "measuring" and not loads:
                loads.append(pool.submit(h2load.run_for_seconds, request, seconds, clients))

        result = _bench(request, clients, seconds + _STARTING, start)
        load = loads[0].result()
    to_monotonic = time.monotonic() - time.time()
    starts = np.asarray(load.starts) + to_monotonic
    begin, end = starts[0], min(starts[-1], result.start + result.seconds)
    shared = (starts >= begin) & (starts < end)
    due = result.due + result.start
    ours = result.latencies[(due >= begin) & (due < end)]
    theirs = np.asarray(load.latencies)[shared]
    return Ratios(len(ours) / len(theirs), quantile(ours, 0.99) / quantile(theirs, 0.99))


def _bench(
    request: servers.Request,
    clients: int,
    seconds: float,
    on_progress: Callable[[LoadProgress], None] = lambda progress: None,
) -> LevelResult:
    url = urlsplit(request.url)
    port = url.port or 0
    target = LoadTarget(socket.AF_INET, ("127.0.0.1", port), f"127.0.0.1:{port}")
    body = request.body.read_bytes()
    prepared = (url.path, body if request.http1 else body[_GRPC_PREFIX:])
    options = MeasurementOptions(warmup=0.2 * seconds, duration=seconds, precision=1e-9, processes=1)
    level = LoadLevel(concurrency=clients)
    result = measure([target], not request.http1, [prepared], level, options, on_progress)
    if result.errors:
        raise RuntimeError(f"requests failed: {result.errors}")
    return result


def ratios_of(rounds: list[Round]) -> Ratios:
    """The ratios of the medians."""
    return Ratios(
        statistics.median(each.result.rate for each in rounds)
        / statistics.median(each.rate for each in rounds),
        statistics.median(each.result.quantile(0.99) for each in rounds)
        / statistics.median(each.p99 for each in rounds),
    )


def _run_h2load(request: servers.Request, clients: int, seconds: float) -> tuple[float, float]:
    load = h2load.run_for_seconds(request, seconds, clients)
    return load.rate, quantile(np.asarray(load.latencies), 0.99)


def _measure_rows(
    models: Path, directory: Path, count: int, seconds: float, analyzer: Path | None
) -> Iterator[tuple[bool, str]]:
    """Yield for each comparison whether both agree, and its rows of the table."""
    for model, callers in (("trivial", (1, 4, 8)), ("mobilenet", (1, 4))):
        with ExitStack() as stack:
            flags = (f"--model_name={model}", f"--model_base_path={models / model}")
            server = stack.enter_context(servers.embedded(*flags))
            for api, make in (("gRPC", servers.grpc_request), ("REST", servers.rest_request)):
                request = make(server, model, directory)
                others: dict[str, Generator] = {"h2load": partial(_run_h2load, request)}
                if analyzer is not None and api == "gRPC":
                    others["perf_analyzer"] = partial(_run_analyzer, analyzer, server.grpc_port, model)
                for clients in callers:
                    for name, other in others.items():
                        rounds = measure_rounds(request, other, clients, seconds, count)
                        yield _row(f"{model}, {api}, {clients} callers", name, rounds)


def _run_analyzer(program: Path, port: int, model: str, clients: int, seconds: float) -> tuple[float, float]:
    return perf_analyzer.run_for_seconds(program, port, model, *INPUTS[model], seconds, clients)


def _row(what: str, other: str, rounds: list[Round]) -> tuple[bool, str]:
    ratios = ratios_of(rounds)
    results = [each.result for each in rounds]
    rate = statistics.median(each.rate for each in results)
    p99 = statistics.median(each.quantile(0.99) for each in results)
    refused = sum(bool(each.refused) for each in results)
    busy = statistics.median(each.usage.busy for each in results)
    measured = (
        f"{rate:,.0f} calls/s, p99 {time_text(p99)}, busy {busy:.0%}, refused {refused} of {len(rounds)}"
    )
    rows = [
        Row(f"{what}: calls/s", other, measured, ratios.rate),
        Row(f"{what}: p99", other, "", ratios.p99),
    ]
    return ratios.agree(LIMIT), "\n".join(table(rows).splitlines()[2:])


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.load_generators", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure briefly, only to check that it runs")
    parser.add_argument("--models", type=Path, metavar="DIR", help="models that benchmark_models has written")
    parser.add_argument(
        "--perf-analyzer",
        type=Path,
        metavar="FILE",
        help="the program; benchmarks/perf_analyzer.py has details",
    )
    arguments = parser.parse_args()
    count, seconds = (1, 2.0) if arguments.quick else (5, 5.0)
    with tempfile.TemporaryDirectory() as temporary:
        models = arguments.models
        if models is None:
            models = Path(temporary) / "models"
            command = [sys.executable, "-m", "benchmarks.server.benchmark_models", str(models)]
            subprocess.run(command, cwd=servers.ROOT, check=True, capture_output=True)
        print(table([]))
        agreements = []
        for agrees, text in _measure_rows(models, Path(temporary), count, seconds, arguments.perf_analyzer):
            print(text, flush=True)
            agreements.append(agrees)
    return 0 if all(agreements) or arguments.quick else 1


if __name__ == "__main__":
    sys.exit(main())
