"""tfserving promote: make a version the one that callers without version or label get."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_command import EXIT_STATUS, add_change_options, open_command
from tfserving.release.rollout import plan_promotion


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving promote") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Makes a version the one that callers without version or label get. The version before it stays "
        "loaded until the new one is available on every server; then labels that name it move, and it is "
        "unloaded.",
        f"example:\n  {prog} digits 2 --message 'better on 7'\n\n{EXIT_STATUS}",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument("version", metavar="VERSION", type=int, help="the version, which is on disk")
    add_change_options(parser)

    def run(arguments: argparse.Namespace) -> None:
        with open_command(arguments, prog, argv) as command:
            facts = command.facts(arguments.name)
            command.apply(plan_promotion(facts, arguments.version), facts)

    return run_command(parser, argv, run)
