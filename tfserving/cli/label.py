"""tfserving label: set and remove version labels."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_command import EXIT_STATUS, add_change_options, open_command
from tfserving.errors import InvalidInputError
from tfserving.release.rollout import plan_labels

_LABEL = re.compile(r"([^=\s/:]+)=(-?[0-9]{1,19})?", re.ASCII)


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving label") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Sets version labels, or removes them. A label can name only a version that is loaded.",
        f"examples:\n  {prog} digits stable=2\n  {prog} digits stable=3 canary=\n\n{EXIT_STATUS}",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument(
        "labels",
        metavar="LABEL=VERSION",
        nargs="+",
        help="a label and its version; without it, removes the label",
    )
    add_change_options(parser)

    def run(arguments: argparse.Namespace) -> None:
        labels = _parse(arguments.labels)
        with open_command(arguments, prog, argv) as command:
            facts = command.facts(arguments.name)
            command.apply(plan_labels(facts, labels), facts)

    return run_command(parser, argv, run)


def _parse(words: Sequence[str]) -> dict[str, int | None]:
    labels: dict[str, int | None] = {}
    for word in words:
        match = _LABEL.fullmatch(word)
        if not match:
            raise InvalidInputError(
                f"{word!r} is not LABEL=VERSION, such as stable=2, or LABEL= to remove it"
            )
        if match[1] in labels:
            raise InvalidInputError(f"{word!r} names label {match[1]} again; name each label once")
        labels[match[1]] = int(match[2]) if match[2] else None
    return labels
