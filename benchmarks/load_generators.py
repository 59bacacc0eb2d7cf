"""Compare `tfserving bench` with h2load: python -m benchmarks.load_generators [--quick] [--models DIR]

Both send the same request to the same embedded server at the same time, each with the same number of callers,
and are compared over the same seconds: the speed of a server changes from one minute to the next by more
than two generators differ. --perf-analyzer compares bench with perf_analyzer over gRPC as well. Prints the
ratios of each round, and exits with 1 if a median differs from 1 by more than 10 %. Needs requirements.txt
and h2load (Debian: nghttp2-client).
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np

from benchmarks import perf_analyzer
from benchmarks.interrupts import run_interruptible
from benchmarks.report import time_text
from benchmarks.server import h2load, servers
from benchmarks.server.benchmark_models import INPUTS
from tfserving.bench.load_connection import LoadTarget
from tfserving.bench.measurement import LevelResult, LoadLevel, LoadProgress, MeasurementOptions, measure
from tfserving.bench.quantiles import quantile

LIMIT = 0.1
# A frame of gRPC has a flag and a length before the message.
_GRPC_PREFIX = 5
# Seconds in which h2load and perf_analyzer start and end.
_H2LOAD_STARTS, _ANALYZER_STARTS = 1.0, 3.0
# Callers of each generator.
_CALLERS = {"trivial": (1, 4), "mobilenet": (1,)}

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Comparison:
    """What `tfserving bench` and another generator measured in the same seconds.

    Attributes:
        rate, other_rate: requests per second.
        p99, other_p99: of the latency, in seconds.
        refused: why bench refuses to report its figures; "" if it does not.
    """

    rate: float
    other_rate: float
    p99: float
    other_p99: float
    refused: str = ""


@dataclass(frozen=True)
class Ratios:
    """Of each comparison: figures of `tfserving bench` divided by those of the other generator."""

    rate: Sequence[float]
    p99: Sequence[float]

    @classmethod
    def of(cls, comparisons: Sequence[Comparison]) -> Ratios:
        return cls(
            [each.rate / each.other_rate for each in comparisons],
            [each.p99 / each.other_p99 for each in comparisons],
        )

    def agree(self, limit: float) -> bool:
        """Whether both medians differ from 1 by at most the limit."""
        return all(abs(statistics.median(ratios) - 1) <= limit for ratios in (self.rate, self.p99))


def compare_with_h2load(request: servers.Request, clients: int, seconds: float) -> Comparison:
    """Send the same load with both, and compare the requests that were sent while both did."""
    result, load = _measure_beside(
        request, clients, seconds + _H2LOAD_STARTS, lambda: h2load.run_for_seconds(request, seconds, clients)
    )
    starts = np.asarray(load.starts) + (time.monotonic() - time.time())
    begin, end = starts[0], min(starts[-1], result.start + result.seconds)
    theirs = np.asarray(load.latencies)[(starts >= begin) & (starts < end)]
    return _compare(result, begin, end, len(theirs) / (end - begin), quantile(theirs, 0.99))


def compare_with_perf_analyzer(
    request: servers.Request, program: Path, port: int, model: str, clients: int, seconds: float
) -> Comparison:
    """As `compare_with_h2load`: perf_analyzer reports no single requests, and ends with its measurement."""

    def run() -> tuple[float, float, float]:
        name, shape = INPUTS[model]
        rate, p99 = perf_analyzer.run_for_seconds(program, port, model, name, shape, seconds, clients)
        return rate, p99, time.monotonic()

    result, (rate, p99, end) = _measure_beside(request, clients, seconds + _ANALYZER_STARTS, run)
    return _compare(result, end - seconds, end, rate, p99)


def _compare(
    result: LevelResult, begin: float, end: float, other_rate: float, other_p99: float
) -> Comparison:
    """Compare with the requests that bench sent between two times of time.monotonic()."""
    due = result.due + result.start
    latencies = result.latencies[(due >= begin) & (due < end)]
    seconds = min(end, result.start + result.seconds) - max(begin, result.start)
    return Comparison(
        len(latencies) / seconds, other_rate, quantile(latencies, 0.99), other_p99, result.refused
    )


def _measure_beside(
    request: servers.Request, clients: int, seconds: float, other: Callable[[], _Result]
) -> tuple[LevelResult, _Result]:
    """Measure with bench while another generator runs, which starts when the measurement begins."""
    with ThreadPoolExecutor(1) as pool:
        results: list[Future[_Result]] = []

        def start(progress: LoadProgress) -> None:
            if progress.phase == "measuring" and not results:
                results.append(pool.submit(other))

        result = _bench(request, clients, seconds, start)
        return result, results[0].result()


def _bench(
    request: servers.Request,
    clients: int,
    seconds: float,
    on_progress: Callable[[LoadProgress], None],
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


def _measure_rows(
    models: Path, directory: Path, count: int, seconds: float, analyzer: Path | None
) -> Iterator[tuple[bool, str]]:
    """Yield for each load whether both agree, and its row of the table."""
    for model, callers in _CALLERS.items():
        with ExitStack() as stack:
            flags = (f"--model_name={model}", f"--model_base_path={models / model}")
            server = stack.enter_context(servers.embedded(*flags))
            for api, make in (("gRPC", servers.grpc_request), ("REST", servers.rest_request)):
                request = make(server, model, directory)
                others: dict[str, Callable[[int, float], Comparison]] = {
                    "h2load": partial(compare_with_h2load, request)
                }
                if analyzer is not None and api == "gRPC":
                    others["perf_analyzer"] = partial(
                        compare_with_perf_analyzer, request, analyzer, server.grpc_port, model
                    )
                for clients in callers:
                    for name, compare in others.items():
                        found = [compare(clients, seconds) for _ in range(count)]
                        yield _row(f"{model}, {api}, {clients}", name, found)


def _row(load: str, other: str, comparisons: Sequence[Comparison]) -> tuple[bool, str]:
    ratios = Ratios.of(comparisons)
    rate = statistics.median(each.rate for each in comparisons)
    p99 = statistics.median(each.p99 for each in comparisons)
    refused = sum(bool(each.refused) for each in comparisons)
    cells = [load, other, f"{rate:,.0f}", time_text(p99), _ratios(ratios.rate), _ratios(ratios.p99)]
    return ratios.agree(LIMIT), f"| {' | '.join([*cells, str(refused)])} |"


def _ratios(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


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
    count, seconds = (1, 2.0) if arguments.quick else (3, 20.0)
    with tempfile.TemporaryDirectory() as temporary:
        models = arguments.models
        if models is None:
            models = Path(temporary) / "models"
            command = [sys.executable, "-m", "benchmarks.server.benchmark_models", str(models)]
            subprocess.run(command, cwd=servers.ROOT, check=True, capture_output=True)
        print("| load, callers of each | with | calls/s | p99 | ratio of calls/s | ratio of p99 | refused |")
        print("|---|---|---|---|---|---|---|")
        agreements = []
        for agrees, text in _measure_rows(models, Path(temporary), count, seconds, arguments.perf_analyzer):
            print(text, flush=True)
            agreements.append(agrees)
    return 0 if all(agreements) or arguments.quick else 1


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
