"""tfserving versions: print the versions of a model on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.config_file import add_models_dir
from tfserving.repository.model_names import check_name
from tfserving.repository.versions import list_versions, next_version


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving versions") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints the versions of a model on disk in ascending order, one per line.",
        f"example:\n  {prog} digits --models-dir models\n",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    add_models_dir(parser)
    parser.add_argument(
        "--next", action="store_true", help="print the number that the next version gets instead"
    )
    return run_command(parser, argv, _print_versions)


def _print_versions(arguments: argparse.Namespace) -> None:
    base_path = arguments.models_dir / check_name(arguments.name)
    for version in [next_version(base_path)] if arguments.next else list_versions(base_path):
        print(version)
