"""tfserving select: print the versions that the policies of a models.config select."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, add_models_dir, print_diagnostics, read_text
from tfserving.repository import config, selection


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving select") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints NAME<TAB>VERSION<TAB>PATH for each version on disk that the policies of a models.config "
        "select.",
        f"example:\n  {prog} --config models/models.config --models-dir models\n",
    )
    add_config(parser)
    add_models_dir(parser)
    return run_command(parser, argv, _select)


def _select(arguments: argparse.Namespace) -> int | None:
    if not print_diagnostics(arguments.config, arguments.models_dir):
        return MISUSE
    text = read_text(arguments.config)
    is_json = config.looks_like_json(text)
    parsed = config.from_json(text) if is_json else config.parse(text, arguments.config)
    for version in selection.plan(parsed, arguments.models_dir):
        print(version)
    return None
