"""Compare `tfserving bench` with h2load: python -m benchmarks.load_generators [--quick] [--models DIR]

Both send the same request to the same embedded server, alternately in several rounds, with 1, 4 and 8
callers. Prints the ratios of the medians, and exits with 1 if one differs by more than 10 %. Needs
requirements.txt and h2load (Debian: nghttp2-client).
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
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.report import Row, table, time_text
from benchmarks.server import h2load, servers
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
    """Requests per second and p99 in seconds of h2load, and those of tfserving bench with the rest."""

    rate: float
    p99: float
    result: LevelResult


@dataclass(frozen=True)
class Ratios:
    """The medians of tfserving bench divided by those of h2load."""

    rate: float
    p99: float

    def agree(self, limit: float) -> bool:
        """Whether both differ from 1 by at most the limit."""
        return abs(self.rate - 1) <= limit and abs(self.p99 - 1) <= limit


def measure_rounds(request: servers.Request, clients: int, seconds: float) -> Iterator[Round]:
    """Measure with both in turn, as often as the caller takes a round."""
    while True:
        load = h2load.run_for_seconds(request, seconds, clients)
        result = _bench(request, clients, seconds)
        yield Round(load.rate, quantile(np.asarray(load.latencies), 0.99), result)


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


def _measure_rows(models: Path, directory: Path, count: int, seconds: float) -> Iterator[tuple[bool, str]]:
    for model, callers in (("trivial", (1, 4, 8)), ("mobilenet", (1, 4))):
        with ExitStack() as stack:
            flags = (f"--model_name={model}", f"--model_base_path={models / model}")
            server = stack.enter_context(servers.embedded(*flags))
            for api, make in (("gRPC", servers.grpc_request), ("REST", servers.rest_request)):
                request = make(server, model, directory)
                for clients in callers:
                    found = measure_rounds(request, clients, seconds)
                    rounds = [next(found) for _ in range(count)]
                    yield _row(f"{model}, {api}, {clients} callers", rounds)


def _row(what: str, rounds: list[Round]) -> tuple[bool, str]:
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
        Row(f"{what}: calls/s", "h2load", measured, ratios.rate),
        Row(f"{what}: p99", "h2load", "", ratios.p99),
    ]
    return ratios.agree(LIMIT), "\n".join(table(rows).splitlines()[2:])


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.load_generators", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure briefly, only to check that it runs")
    parser.add_argument("--models", type=Path, metavar="DIR", help="models that benchmark_models has written")
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
        for agrees, text in _measure_rows(models, Path(temporary), count, seconds):
            print(text, flush=True)
            agreements.append(agrees)
    return 0 if all(agreements) or arguments.quick else 1


if __name__ == "__main__":
    sys.exit(main())
