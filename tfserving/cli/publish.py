"""tfserving publish: export a model, verify the version, and only then give it its number."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.connection_options import parse_seconds
from tfserving.cli.export import add_export_arguments, run_export
from tfserving.cli.release_options import print_json
from tfserving.cli.verification_options import (
    DEFAULT_RUN_TIMEOUT,
    add_expect,
    print_differences,
    read_tolerance,
)
from tfserving.errors import ExportError

if TYPE_CHECKING:
    from tfserving.release.verification import Verification


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving publish") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Exports a model as a version, verifies it and then renames it into place: a new process loads it "
        "and replays its warmup records or, without any, runs each signature once with zeros. With --expect, "
        "its outputs are also compared with expected ones. A failure leaves nothing behind.",
        f"examples:\n  {prog} model.keras --name digits --warmup 2\n"
        f"  {prog} /tmp/saved_model --name ranker --expect expected.npz\n",
    )
    add_export_arguments(parser)
    add_expect(parser)
    parser.add_argument(
        "--timeout",
        type=parse_seconds,
        default=DEFAULT_RUN_TIMEOUT,
        metavar="SECONDS",
        help="seconds for loading and running the version (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return run_command(
        parser,
        argv,
        lambda arguments: _publish(arguments, prog),
        extra="export",
        interrupted="interrupted, nothing was published",
    )


def _publish(arguments: argparse.Namespace, prog: str) -> None:
    from tfserving.export.samples import load_samples
    from tfserving.release.verification import verify_version

    tolerance = read_tolerance(arguments)
    expect = None if arguments.expect is None else load_samples(arguments.expect)
    results: list[Verification] = []

    def check(staging: Path) -> None:
        result = verify_version(staging, expect=expect, tolerance=tolerance, timeout=arguments.timeout)
        if result.errors:
            raise ExportError(f"the version is not published: {'; '.join(result.errors)}")
        results.append(result)

    path = run_export(arguments, prog, check)
    (result,) = results
    if arguments.json:
        print_json(
            {"model": path.parent.name, "version": int(path.name), "path": str(path), **result.as_json()}
        )
        return
    if result.differences:
        print_differences(result.differences)
    print(f"published {path}: {result.describe()}")
