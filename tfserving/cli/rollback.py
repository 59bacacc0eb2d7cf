"""tfserving rollback: go back to the version that was promoted before."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_command import EXIT_STATUS, add_change_options, open_command
from tfserving.cli.release_options import parse_version
from tfserving.release.rollout import choose_rollback_version, plan_promotion


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving rollback") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Goes back to the version that was promoted before, by the history in MODELS_DIR/.history.jsonl. A "
        "second rollback goes one step further. During a canary, it ends the canary.",
        f"examples:\n  {prog} digits\n  {prog} digits --to 1 --message 'wrong on 7'\n\n{EXIT_STATUS}",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument(
        "--to", metavar="VERSION", type=parse_version, help="this version, whatever the history says"
    )
    add_change_options(parser)

    def run(arguments: argparse.Namespace) -> None:
        with open_command(arguments, prog, argv) as command:
            facts = command.facts(arguments.name)
            version = arguments.to
            if version is None:
                version = choose_rollback_version(facts, command.session.history.read())
            command.apply(plan_promotion(facts, version, operation="rollback"), facts)

    return run_command(parser, argv, run)
