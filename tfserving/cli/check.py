"""tfserving check: check a models.config and the models that it names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, add_models_dir, print_diagnostics, read_text


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving check") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Checks a models.config and, with --models-dir, the models that it names. Prints each error and note "
        "with its line and a hint.",
        f"example:\n  {prog} --config models/models.config --models-dir models\n",
    )
    add_config(parser)
    add_models_dir(parser, optional=True)
    return run_command(parser, argv, _check)


def _check(arguments: argparse.Namespace) -> int | None:
    file, models_dir = arguments.config, arguments.models_dir
    if not print_diagnostics(file, read_text(file), models_dir):
        return MISUSE
    print(f"{file} and {models_dir}: no errors" if models_dir else f"{file}: no errors")
    return None
