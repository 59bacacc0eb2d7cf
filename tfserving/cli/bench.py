"""tfserving bench: measure the throughput and the latency of a served model."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfserving import client
from tfserving.cli.command import FAILED, new_parser, run_command
from tfserving.cli.connection_options import (
    add_address_option,
    add_transport_options,
    address_of,
    metadata_of,
    parse_seconds,
    tls_of,
)
from tfserving.cli.load_options import (
    INPUT_DETAILS,
    add_input_options,
    check_input_options,
    make_workload,
    parse_positive,
)
from tfserving.client.options import DEFAULT_REST_PORT, DEFAULT_RPC_PORT, Retry
from tfserving.client.printable import escape_unprintable
from tfserving.errors import InvalidInputError

if TYPE_CHECKING:
    from tfserving.bench.load_results import LoadResults
    from tfserving.bench.measurement import LevelResult, LoadLevel, LoadProgress
    from tfserving.bench.workload import Workload
    from tfserving.client.blocking_client import BlockingClient

_DETAILS = f"""\
{INPUT_DETAILS}
load:
  --concurrency 1,2,4,8    so many callers; each sends the next request when it has a response
  --rate 100,200,400       so many requests per second; latencies count from the time when a request is due

Each level is measured until the 95 % confidence interval of p99 is narrow (--precision), or until --duration
is over. A level at which the load generator itself was the limit is refused: the results have no figures for
it, and the exit status is 1.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser("tfserving bench", "Measures the throughput and latency of a model.", _DETAILS)
    _add_arguments(parser)
    return run_command(parser, argv, _bench, extra="bench", interrupted="interrupted; nothing is reported")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_address_option(parser, f"127.0.0.1:{DEFAULT_RPC_PORT}", f"127.0.0.1:{DEFAULT_REST_PORT}")
    add("--model", metavar="NAME", required=True, help="name of the model")
    version = parser.add_mutually_exclusive_group()
    version.add_argument(
        "--version", type=int, metavar="N", help="version of the model (default: the newest)"
    )
    version.add_argument("--label", help="version label, for example stable")
    add_transport_options(parser)
    add_input_options(parser)
    add(
        "--concurrency", type=_counts, metavar="N,...", help="numbers of callers (default: 1,2,4,8 or --rate)"
    )
    add("--rate", type=_rates, metavar="R,...", help="requests per second")
    add(
        "--arrivals",
        choices=("poisson", "constant"),
        default="poisson",
        help="with --rate: random times between requests, or equal ones (default: %(default)s)",
    )
    add(
        "--warmup",
        type=parse_seconds,
        default=2.0,
        metavar="SECONDS",
        help="load before each measurement (default: %(default)g)",
    )
    add(
        "--duration",
        type=parse_seconds,
        default=30.0,
        metavar="SECONDS",
        help="the longest time for a level (default: %(default)g)",
    )
    add(
        "--precision",
        type=_percent,
        default=0.1,
        metavar="PERCENT",
        help="end a level when p99 is known to ± this share of it (default: 10)",
    )
    add(
        "--timeout",
        type=parse_seconds,
        default=60.0,
        metavar="SECONDS",
        help="a request without a response fails after this time (default: %(default)g)",
    )
    add(
        "--processes",
        type=parse_positive,
        metavar="N",
        help="processes that send requests (default: 1, and more if one is too busy, at most one per CPU)",
    )
    add("--json", action="store_true", help="print the results as JSON")
    add("--html", metavar="FILE", help="write the results with charts into one HTML file")


def _counts(text: str) -> list[int]:
    return [parse_positive(part) for part in text.split(",")]


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [0.0]
    if not all(0 < rate <= 1e6 for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers above 0, such as 100,200")
    return rates


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage above 0, at most 100")
    return value / 100


def _bench(arguments: argparse.Namespace) -> int:
    from tfserving.bench.load_results import LoadResults, as_json, as_table
    from tfserving.bench.measurement import MeasurementOptions, measure
    from tfserving.bench.targets import resolve_targets

    check_input_options(arguments)
    if arguments.html:
        _check_html(arguments.html)
    options = MeasurementOptions(
        warmup=arguments.warmup,
        duration=arguments.duration,
        precision=arguments.precision,
        timeout=arguments.timeout,
        is_poisson=arguments.arrivals == "poisson",
        processes=arguments.processes,
    )
    address, is_grpc = address_of(arguments), not arguments.rest
    headers = tuple(metadata_of(arguments).items())
    targets = resolve_targets(address, is_grpc=is_grpc, tls=tls_of(arguments), headers=headers)
    with _open_client(arguments, address) as model:
        workload = _prepare(arguments, model)
    requests = [(request.path, request.body) for request in workload.requests]
    progress = _ProgressLine()
    levels: list[LevelResult] = []
    for level in _levels(arguments):
        levels.append(measure(targets, is_grpc, requests, level, options, progress.show))
        progress.end(levels[-1])
    which = f" version {arguments.version}" if arguments.version is not None else ""
    which = f" label {arguments.label}" if arguments.label is not None else which
    api = "gRPC" if is_grpc else "REST"
    results = LoadResults(
        address, api, f"{arguments.model}{which}", workload.description, options, tuple(levels)
    )
    if arguments.html:
        _write_html(Path(arguments.html), results)
    text = json.dumps(as_json(results), indent=1) if arguments.json else as_table(results)
    print(escape_unprintable(text, keep="\n"))
    return FAILED if any(level.refused or not len(level.latencies) for level in levels) else 0


def _check_html(path: str) -> None:
    import matplotlib  # noqa: F401 - before the measurement

    directory = Path(path).absolute().parent
    if not os.access(directory, os.W_OK):
        raise InvalidInputError(f"--html {path}: cannot write to {directory}; pass another FILE")


def _open_client(arguments: argparse.Namespace, address: str) -> BlockingClient:
    client_class = client.TfRestClient if arguments.rest else client.TfRpcClient
    return client_class(
        address,
        arguments.model,
        timeout=arguments.timeout,
        retry=Retry(attempts=1),
        tls=tls_of(arguments),
        metadata=metadata_of(arguments),
        proxy=None,
    )


def _prepare(arguments: argparse.Namespace, model: BlockingClient) -> Workload:
    """Make the requests, and send the first one with the client, which explains errors."""
    from tfserving.wire.model_spec import ModelSpec

    signatures = model.metadata(version=arguments.version, label=arguments.label)
    spec = ModelSpec(arguments.model, arguments.version, arguments.label, arguments.signature)
    workload = make_workload(arguments, spec, signatures)
    first = workload.requests[0]
    model.infer(
        first.inputs,
        version=arguments.version,
        label=arguments.label,
        signature=first.signature or None,
    )
    return workload


def _levels(arguments: argparse.Namespace) -> list[LoadLevel]:
    from tfserving.bench.measurement import LoadLevel

    rates: list[float] = arguments.rate or []
    counts: list[int] = arguments.concurrency or ([] if rates else [1, 2, 4, 8])
    return [*(LoadLevel(concurrency=count) for count in counts), *(LoadLevel(rate=rate) for rate in rates)]


def _write_html(path: Path, results: LoadResults) -> None:
    from tfserving.bench.html_report import as_html

    try:
        path.write_text(as_html(results), encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"--html: cannot write {path}: {error.strerror or error}") from error


class _ProgressLine:
    """Intermediate results on stderr: one line that changes on a terminal, else a line per level."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._shown_at = 0.0

    def show(self, progress: LoadProgress) -> None:
        """Show an intermediate result, at most twice a second."""
        now = time.monotonic()
        if not self._is_terminal or now - self._shown_at < 0.5:
            return
        self._shown_at = now
        self._replace(_progress_text(progress))

    def end(self, result: LevelResult) -> None:
        """Show that a level is done."""
        seconds = f"{result.seconds:.1f} s"
        text = "refused" if result.refused else f"{result.rate:,.0f} calls/s"
        if self._is_terminal:
            self._replace("")
        else:
            print(f"{result.level.label}: {text} after {seconds}", file=sys.stderr, flush=True)

    def _replace(self, text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _progress_text(progress: LoadProgress) -> str:
    parts = [f"{progress.level.label}: {progress.phase}, {progress.seconds:.0f} s"]
    if progress.phase == "measuring" and progress.p99 is not None:
        parts.append(f"{progress.rate:,.0f} calls/s")
        exactness = ""
        if progress.interval is not None:
            exactness = f" ±{progress.interval.half_width(progress.p99):.0%}"
        parts.append(f"p99 {progress.p99 * 1e3:.3g} ms{exactness}")
    if progress.errors:
        parts.append(f"{progress.errors:,} errors")
    return ", ".join(parts)
