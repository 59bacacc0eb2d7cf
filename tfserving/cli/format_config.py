"""tfserving format: print a models.config in text format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, print_diagnostics, read_text
from tfserving.repository.config_text import ConfigSyntaxError, format_message, is_json, read_message


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
    file = arguments.config
    text = read_text(file)
    try:
        message = read_message(text)
    except ConfigSyntaxError:
        print_diagnostics(file, text)
        return MISUSE
    if is_json(text):
        print(f"{prog}: note: converted {file} from JSON", file=sys.stderr)
    print(format_message(message), end="")
    return None
