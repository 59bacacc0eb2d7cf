"""tfserving traffic: print and set the shares of the gateway's groups of model servers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.gateway_dir import add_gateway_dir
from tfserving.cli.release_options import add_release_options, print_json
from tfserving.errors import InvalidInputError
from tfserving.gateway.traffic_weights import read_weights, write_weights

_WEIGHT = re.compile(r"([^=]+)=([0-9]{1,9})")


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving traffic") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints and sets the percentage of the traffic that each group of model servers gets. "
        "A change takes effect within a second.",
        f"examples:\n  {prog} show\n  {prog} set stable=95 canary=5\n  {prog} set stable=100\n",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    show = actions.add_parser("show", help="print the percentage of each group", allow_abbrev=False)
    change = actions.add_parser("set", help="set the percentages", allow_abbrev=False)
    change.add_argument(
        "weights",
        metavar="GROUP=PERCENT",
        nargs="+",
        help="a group and its percentage, an integer; all add up to 100, and other groups get 0",
    )
    for action, run in ((show, _show), (change, _set)):
        add_gateway_dir(action)
        add_release_options(action, "json")
        action.set_defaults(run=run)
    return run_command(parser, argv, lambda arguments: arguments.run(arguments))


def _show(arguments: argparse.Namespace) -> None:
    _print(read_weights(arguments.gateway_dir), arguments)


def _set(arguments: argparse.Namespace) -> None:
    _print(write_weights(arguments.gateway_dir, _parse(arguments.weights)), arguments)


def _parse(words: Sequence[str]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for word in words:
        match = _WEIGHT.fullmatch(word)
        if not match:
            raise InvalidInputError(
                f"{word!r} is not GROUP=PERCENT with an integer from 0 to 100, such as canary=5"
            )
        if match[1] in weights:
            raise InvalidInputError(f"{word!r} names group {match[1]} again; name each group once")
        weights[match[1]] = int(match[2])
    return weights


def _print(weights: dict[str, int], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json({"weights": weights})
        return
    for name, weight in weights.items():
        print(f"{name} {weight}")
