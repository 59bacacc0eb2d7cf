"""What check, format and select share: their arguments and the diagnostics of a models.config."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tfserving.errors import ConfigError, RepositoryError
from tfserving.repository.diagnostics import errors_of
from tfserving.repository.lint import lint
from tfserving.repository.lint_disk import Disk


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare --config."""
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="a models.config in text format or JSON"
    )


def add_models_dir(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare --models-dir."""
    text = "the model repository, /models in a base_path"
    if optional:
        text += "; without it, only the file is checked"
    parser.add_argument("--models-dir", required=not optional, metavar="DIR", help=text)


def read_text(file: str) -> str:
    """The content of a configuration file.

    Raises:
        ConfigError: the file cannot be read or is not UTF-8.
    """
    try:
        return Path(file).read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}: name a models.config that can be read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is no UTF-8: save the file as UTF-8") from error


def print_diagnostics(file: str, models_dir: str | None) -> bool:
    """Print the diagnostics of `file` to stderr; returns whether none of them is an error.

    Raises:
        ConfigError: see `read_text`.
        RepositoryError: `models_dir` is not a directory.
    """
    if models_dir is not None and not Path(models_dir).is_dir():
        raise RepositoryError(
            f"--models-dir {models_dir!r} is no directory: name the one that holds NAME/VERSION"
        )
    found = lint(read_text(file), None if models_dir is None else Disk(Path(models_dir)))
    for one in found:
        print(one.render(file), file=sys.stderr)
    return not errors_of(found)
