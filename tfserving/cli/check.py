"""tfserving check: check a models.config and the models that it names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, add_models_dir, print_diagnostics


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
    if not print_diagnostics(arguments.config, arguments.models_dir):
        return MISUSE
    checked = [arguments.config, *filter(None, [arguments.models_dir])]
    print(f"{' and '.join(checked)}: no errors")
    return None
