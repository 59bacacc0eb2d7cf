"""What check, format and select share: their arguments and the diagnostics of a models.config."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tfserving.errors import ConfigError, RepositoryError
from tfserving.repository.config_text import read_config_text
from tfserving.repository.diagnostics import Diagnostic, has_errors
from tfserving.repository.lint import lint


def add_config(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare --config."""
    parser.add_argument(
        "--config", required=not optional, metavar="FILE", help="a models.config in text format or JSON"
    )


def add_models_dir(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare --models-dir."""
    text = "the model repository, /models in a base_path"
    if optional:
        text += "; without it, only the file is checked"
    parser.add_argument("--models-dir", type=Path, required=not optional, metavar="DIR", help=text)


def read_text(file: str) -> str:
    """The content of a configuration file.

    Raises:
        ConfigError: the file is not readable.
    """
    try:
        return read_config_text(file)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error


def find_diagnostics(text: str, models_dir: Path | None = None) -> tuple[Diagnostic, ...]:
    """The diagnostics of a configuration.

    Raises:
        RepositoryError: `models_dir` is not a directory.
    """
    if models_dir is not None and not models_dir.is_dir():
        raise RepositoryError(
            f"--models-dir {models_dir} is not a directory; name the one that contains NAME/VERSION"
        )
    return lint(text, models_dir)


def print_diagnostics(file: str, text: str, models_dir: Path | None = None) -> bool:
    """Print the diagnostics of `file`, whose content is `text`, to stderr; returns whether it has no error.

    Raises:
        RepositoryError: `models_dir` is not a directory.
    """
    diagnostics = find_diagnostics(text, models_dir)
    for diagnostic in diagnostics:
        print(diagnostic.format(file), file=sys.stderr)
    return not has_errors(diagnostics)
