"""tfserving format: print a models.config in text format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, print_diagnostics, read_text
from tfserving.repository import config


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving format") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints a models.config in protobuf text format, the only format that servers read. Converts JSON.",
        f"example:\n  {prog} --config models.json > models/models.config\n",
    )
    add_config(parser)
    return run_command(parser, argv, lambda arguments: _format(arguments, prog))


def _format(arguments: argparse.Namespace, prog: str) -> int | None:
    text = read_text(arguments.config)
    is_json = config.looks_like_json(text)
    try:
        message = config.parse_json(text) if is_json else config.parse_message(text)
    except config.ConfigSyntaxError:
        print_diagnostics(arguments.config, None)
        return MISUSE
    if is_json:
        print(f"{prog}: note: {arguments.config} is JSON and was converted", file=sys.stderr)
    print(config.message_to_text(message), end="")
    return None
