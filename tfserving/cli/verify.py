"""tfserving verify: load a version in a new process, run it and compare its outputs with expected ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfserving.cli.command import FAILED, new_parser, run_command
from tfserving.cli.connection_options import parse_seconds
from tfserving.cli.release_options import add_release_options, print_json, read_release_options
from tfserving.cli.verification_options import (
    DEFAULT_RUN_TIMEOUT,
    add_expect,
    print_differences,
    read_tolerance,
)
from tfserving.repository.selection import find_model_version


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving verify") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Verifies a version on disk: it is complete, and a new process loads it and replays its warmup "
        "records or, without any, runs each signature once with zeros. With --expect, its outputs are also "
        "compared with expected ones. Exits with 1 if something fails or differs.",
        f"examples:\n  {prog} digits\n  {prog} digits/3 --expect expected.npz --atol 0.001\n",
    )
    add = parser.add_argument
    add("model", metavar="NAME[/VERSION]", help="the model, by default its newest version")
    add_expect(parser)
    add(
        "--timeout",
        type=parse_seconds,
        default=DEFAULT_RUN_TIMEOUT,
        metavar="SECONDS",
        help="seconds for loading and running the version (default: %(default)g)",
    )
    add_release_options(parser, "models-dir", "json")
    return run_command(parser, argv, _verify, extra="export")


def _verify(arguments: argparse.Namespace) -> int | None:
    from tfserving.release.verification import verify_version

    options = read_release_options(arguments)
    tolerance = read_tolerance(arguments)
    selected = find_model_version(options.models_dir, arguments.model)
    result = verify_version(
        selected.path, expect=arguments.expect, tolerance=tolerance, timeout=options.timeout
    )
    if options.json:
        print_json({"model": selected.model, "version": selected.version, **result.as_json()})
    elif result.differences:
        print_differences(result.differences)
    for error in result.errors:
        print(f"{selected.path}: error: {error}", file=sys.stderr)
    if result.errors:
        return FAILED
    if not options.json:
        print(f"verified {selected.path}: {result.describe()}")
    return None
