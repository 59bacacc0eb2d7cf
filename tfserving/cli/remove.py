"""tfserving remove: serve a model no longer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_command import EXIT_STATUS, add_change_options, open_command
from tfserving.release.rollout import plan_removal


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving remove") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Removes a model from models.config, and waits until no server serves it. Its versions stay on disk.",
        f"example:\n  {prog} ranker\n\n{EXIT_STATUS}",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    add_change_options(parser)

    def run(arguments: argparse.Namespace) -> None:
        with open_command(arguments, prog, argv) as command:
            command.apply(plan_removal(command.facts(arguments.name), command.config))

    return run_command(parser, argv, run)
