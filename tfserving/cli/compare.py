"""tfserving compare: compare the outputs and latencies of two versions of a model."""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfserving.cli.command import FAILED, new_parser, run_command
from tfserving.cli.connection_options import add_security_options, parse_seconds
from tfserving.cli.release_options import add_release_options, print_json, read_release_options
from tfserving.cli.text_table import print_table
from tfserving.cli.verification_options import (
    add_shape,
    add_tolerance,
    print_differences,
    read_shapes,
    read_tolerance,
)
from tfserving.client.addresses import parse_address
from tfserving.client.options import DEFAULT_RPC_PORT
from tfserving.client.printable import escape_unprintable
from tfserving.errors import InvalidInputError
from tfserving.repository.model_names import check_name
from tfserving.repository.selection import find_model_version

if TYPE_CHECKING:
    from tfserving.release.comparison import Comparison, Target

_TIMEOUT = 120.0
_ROUNDS = 3
_SAMPLES = 16

_DETAILS = """\
A and B, each one of:
  3                   version 3 on disk or, with --server, on that server
  HOST:PORT/3         version 3 on a server (gRPC port)
  HOST:PORT/stable    the version with this label on a server
  HOST:PORT           the version that callers get who name neither

examples:
  {prog} digits 2 3 --samples 100
  {prog} digits 2 3 --server 127.0.0.1:8500 --data samples.npz --min-agreement 0.99
  {prog} digits 10.0.0.1:8500 10.0.0.2:8500 --data samples.npz --png digits.png
"""


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving compare") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Sends the same samples to two versions of a model, and prints the differences of their outputs and "
        "their latencies. A version on disk runs in a new process. Exits with 1 if outputs differ by more "
        "than the tolerances, or a request fails.",
        _DETAILS.format(prog=prog),
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="the model")
    add("first", metavar="A", help="a version (see below)")
    add("second", metavar="B", help="the version to compare it with")
    samples = parser.add_mutually_exclusive_group()
    samples.add_argument(
        "--data",
        metavar="FILE.npz",
        help="samples: one array per input, with its name, and the samples along the first dimension",
    )
    samples.add_argument(
        "--samples",
        type=int,
        default=_SAMPLES,
        metavar="N",
        help="number of random samples, made from the signature (default: %(default)s)",
    )
    add("--signature", metavar="NAME", help="signature to call (default: the one that has the inputs)")
    add_shape(parser)
    add_tolerance(parser)
    add(
        "--rounds",
        type=int,
        default=_ROUNDS,
        metavar="N",
        help="how often each sample is sent to measure latencies, after a first time (default: %(default)s)",
    )
    add("--png", type=Path, metavar="FILE", help="write a chart of values and latencies; needs matplotlib")
    add("--server", metavar="HOST:PORT", help="the server of A and B that are only numbers")
    add_security_options(parser)
    add(
        "--timeout",
        type=parse_seconds,
        default=_TIMEOUT,
        metavar="SECONDS",
        help="seconds for a request, and for loading and running a version on disk (default: %(default)g)",
    )
    add_release_options(parser, "models-dir", "json")
    return run_command(parser, argv, _compare, extra="export")


def _compare(arguments: argparse.Namespace) -> int | None:
    from tfserving.release.comparison import compare_versions

    if arguments.png is not None and importlib.util.find_spec("matplotlib") is None:
        raise InvalidInputError("--png needs matplotlib; run: pip install 'tfserving-toolkit[plot]'")
    options = read_release_options(arguments)
    name = check_name(arguments.name)
    comparison = compare_versions(
        name,
        _parse_target(name, arguments.first, arguments.server, options.models_dir),
        _parse_target(name, arguments.second, arguments.server, options.models_dir),
        data=arguments.data,
        samples=arguments.samples,
        shapes=read_shapes(arguments),
        signature=arguments.signature,
        tolerance=read_tolerance(arguments),
        rounds=arguments.rounds,
        timeout=options.timeout,
        tls=options.tls,
        metadata=options.metadata,
    )
    if arguments.png is not None:
        from tfserving.release.comparison_plot import plot_comparison

        plot_comparison(comparison, arguments.png)
    if options.json:
        print_json(comparison.as_json())
    else:
        _print(comparison)
    for error in comparison.errors:
        print(escape_unprintable(f"{name}: error: {error}"), file=sys.stderr)
    return None if comparison.is_match else FAILED


def _parse_target(name: str, text: str, server: str | None, models_dir: Path) -> Target:
    from tfserving.release.comparison import DiskVersion, ServedVersion

    if re.fullmatch("[0-9]+", text):
        if server is None:
            return DiskVersion(find_model_version(models_dir, f"{name}/{text}").path)
        return ServedVersion(str(parse_address(server, DEFAULT_RPC_PORT)), version=int(text))
    address, slash, chosen = text.partition("/")
    if ":" not in address or (slash and not chosen):
        raise InvalidInputError(f"{text!r} is not a version; write a number, HOST:PORT or HOST:PORT/VERSION")
    parsed = str(parse_address(address, DEFAULT_RPC_PORT))
    if re.fullmatch("[0-9]+", chosen):
        return ServedVersion(parsed, version=int(chosen))
    return ServedVersion(parsed, label=chosen or None)


def _print(comparison: Comparison) -> None:
    first, second = (run.target for run in comparison.runs)
    count = comparison.samples
    print(
        f"{comparison.model}: {first} and {second}, signature {escape_unprintable(comparison.signature)}, "
        f"{count} sample{'s' * (count != 1)}\n"
    )
    if comparison.outputs:
        print_differences(comparison.outputs)
        print()
    rows = []
    for run, latency in zip(comparison.runs, comparison.latencies, strict=True):
        if latency is not None:
            times = (_format_ms(1000 * seconds) for seconds in (latency.median, latency.p99))
            rows.append((run.target, latency.requests, *times))
    if rows:
        print_table(("LATENCY", "REQUESTS", "MEDIAN", "P99"), rows)
        print()
    if comparison.is_match:
        print("the versions match")


def _format_ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 999.5 else f"{value:.0f} ms"
