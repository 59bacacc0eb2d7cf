"""tfserving select: print the versions that the version policies of a models.config select."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, add_models_dir, print_diagnostics, read_text
from tfserving.cli.release_options import add_release_options, print_json
from tfserving.repository.config import from_message
from tfserving.repository.config_text import read_message
from tfserving.repository.selection import select_versions


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving select") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints NAME<TAB>VERSION<TAB>PATH for each version on disk that the version policies of a "
        "models.config select.",
        f"example:\n  {prog} --config models/models.config --models-dir models\n",
    )
    add_config(parser)
    add_models_dir(parser)
    add_release_options(parser, "json")
    return run_command(parser, argv, _select)


def _select(arguments: argparse.Namespace) -> int | None:
    text = read_text(arguments.config)
    if not print_diagnostics(arguments.config, text, arguments.models_dir):
        return MISUSE
    selected = select_versions(from_message(read_message(text)), arguments.models_dir)
    if arguments.json:
        print_json({"versions": [{**one._asdict(), "path": str(one.path)} for one in selected]})
        return None
    for one in selected:
        print(*one, sep="\t")
    return None
