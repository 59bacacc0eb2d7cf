"""tfserving show: print the signatures of a SavedModel."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.repository.completeness import check_version_dir, find_notes
from tfserving.wire.signatures import describe, read_saved_model


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving show") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints the signatures of a SavedModel: names, dtypes and shapes of inputs and outputs. Also prints "
        "notes about what makes calls fail, such as functions that need XLA.",
        f"example:\n  {prog} models/digits/1\n",
    )
    parser.add_argument("directory", metavar="DIR", help="the SavedModel, for example models/digits/1")
    return run_command(parser, argv, _show)


def _show(arguments: argparse.Namespace) -> None:
    check_version_dir(arguments.directory)
    print(describe(read_saved_model(arguments.directory)))
    for message, hint in find_notes(arguments.directory):
        print(f"note: the model {message}; {hint}", file=sys.stderr)
