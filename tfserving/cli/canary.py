"""tfserving canary: load a version beside the promoted one, and label both."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_command import EXIT_STATUS, add_change_options, open_command
from tfserving.cli.release_options import parse_version
from tfserving.release.rollout import plan_canary


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving canary") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Loads a version beside the promoted one, and labels them canary and stable. Callers without label "
        "or version get the highest version that is loaded. If that would be the canary, the command needs "
        "--labels-in-use.",
        f"examples:\n  {prog} digits 2 --labels-in-use\n\n"
        "Afterwards, `tfserving promote` ends the canary with the new version, `tfserving rollback` with the "
        f"old one.\n\n{EXIT_STATUS}",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument(
        "version", metavar="VERSION", type=parse_version, help="the version, which is on disk"
    )
    parser.add_argument(
        "--labels-in-use",
        action="store_true",
        help="all callers use labels, so none gets the canary by default",
    )
    add_change_options(parser)

    def run(arguments: argparse.Namespace) -> None:
        with open_command(arguments, prog, argv) as command:
            facts = command.facts(arguments.name)
            change = plan_canary(facts, arguments.version, labels_in_use=arguments.labels_in_use)
            command.apply(change, facts)

    return run_command(parser, argv, run)
