"""tfserving promote: make a version the one that callers without version or label get."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.connection_options import parse_milliseconds, parse_seconds
from tfserving.cli.release_command import EXIT_STATUS, ReleaseCommand, add_change_options, open_command
from tfserving.cli.release_options import parse_version
from tfserving.cli.verification_options import add_tolerance, read_tolerance
from tfserving.release.change import Step
from tfserving.release.live_check import plan_check
from tfserving.release.observation import Observation, check_metrics, observe
from tfserving.release.rollout import plan_promotion


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving promote") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Makes a version the one that callers without version or label get. The version before it stays "
        "loaded until the new one is available on every server; then labels that name it move, and it is "
        "unloaded.",
        f"examples:\n  {prog} digits 2 --message 'better on 7'\n"
        f"  {prog} digits 2 --check samples.npz --min-agreement 0.95\n"
        f"  {prog} digits 2 --observe 60 --max-error-rate 0.01 --max-p99-ms 50\n\n{EXIT_STATUS}",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument(
        "version", metavar="VERSION", type=parse_version, help="the version, which is on disk"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE.npz",
        help="first compare the outputs of both versions on each server, before callers get the new one; an "
        "array for each input, with the samples along the first dimension",
    )
    add_tolerance(parser)
    parser.add_argument(
        "--observe",
        type=parse_seconds,
        metavar="SECONDS",
        help="then watch the metrics of the servers for so long, and go back if a limit is exceeded",
    )
    parser.add_argument(
        "--max-error-rate", type=_parse_share, metavar="SHARE", help="share of calls that may fail (0 to 1)"
    )
    parser.add_argument(
        "--max-p99-ms", type=parse_milliseconds, metavar="MS", help="longest 99th percentile of the latency"
    )
    add_change_options(parser)

    def run(arguments: argparse.Namespace) -> None:
        limits = arguments.max_error_rate, arguments.max_p99_ms
        if (arguments.observe is None) != (limits == (None, None)):
            parser.error("--observe needs --max-error-rate or --max-p99-ms, and these need --observe")
        with open_command(arguments, prog, argv) as command:
            _promote(command, arguments)

    return run_command(parser, argv, run)


def _promote(command: ReleaseCommand, arguments: argparse.Namespace) -> None:
    name, version = arguments.name, arguments.version
    connections = command.session.connections
    facts = command.facts(name)
    first: tuple[Step, ...] = ()
    if arguments.check is not None:
        first = plan_check(facts, version, arguments.check, read_tolerance(arguments), connections)
    change = plan_promotion(facts, version, first=first, observe=_plan_observation(command, arguments))
    command.apply(change, facts)


def _plan_observation(command: ReleaseCommand, arguments: argparse.Namespace) -> Callable[[], None] | None:
    if arguments.observe is None:
        return None
    connections = command.session.connections
    check_metrics(connections)
    longest = arguments.max_p99_ms
    limits = Observation(arguments.observe, arguments.max_error_rate, longest and longest / 1000)
    report = command.session.report
    return partial(observe, connections, arguments.name, arguments.version, limits, report)


def _parse_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid share (0 to 1)")
    return share
