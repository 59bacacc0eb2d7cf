"""tfserving check: check a models.config, the models that it names, and single versions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, add_models_dir, print_diagnostics, read_text
from tfserving.errors import ExportError
from tfserving.repository.completeness import find_notes, find_version_error
from tfserving.repository.config import from_message
from tfserving.repository.config_text import read_message
from tfserving.repository.selection import select_versions
from tfserving.repository.versions import find_versions


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving check") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Checks a models.config and, with --models-dir, the models that it names; or single versions. Prints "
        "each error and note with its line and a hint. A version is complete if its graph parses and the "
        "files of its variables have the sizes that their index says.",
        f"examples:\n  {prog} --config models/models.config --models-dir models\n"
        f"  {prog} models/digits/1 --load\n",
    )
    parser.add_argument("versions", nargs="*", metavar="DIR", help="a version, for example models/digits/1")
    add_config(parser, optional=True)
    add_models_dir(parser, optional=True)
    parser.add_argument(
        "--load",
        action="store_true",
        help="also load each version in a new process with TensorFlow and run it once: its warmup records "
        "or, without any, zeros for each signature",
    )
    return run_command(parser, argv, partial(_check, parser), extra="export")


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int | None:
    file, models_dir, load = arguments.config, arguments.models_dir, arguments.load
    if not (file or arguments.versions):
        parser.error("nothing to check; give --config FILE or the directories of versions")
    if file and load and models_dir is None:
        parser.error("--load needs the versions; give --models-dir as well")
    correct = not file or _check_config(file, models_dir, load=load)
    for version in arguments.versions:
        correct &= _check_version(version, load=load)
    return None if correct else MISUSE


def _check_config(file: str, models_dir: Path | None, *, load: bool) -> bool:
    text = read_text(file)
    if not print_diagnostics(file, text, models_dir):
        return False
    if load and models_dir is not None:
        config = from_message(read_message(text))
        loaded = [_load_version(selected.path) for selected in select_versions(config, models_dir)]
        if not all(loaded):
            return False
    print(f"{file} and {models_dir}: no errors" if models_dir else f"{file}: no errors")
    return True


def _check_version(path: str, *, load: bool) -> bool:
    error = find_version_error(path)
    if error is not None:
        versions = list(find_versions(path).values()) if Path(path).is_dir() else []
        hint = f"give a version, such as {versions[-1]}" if versions else "copy or export it again"
        return _report(f"{path}: error: it {error}; {hint}")
    for message, hint in find_notes(path):
        _report(f"{path}: note: the model {message}; {hint}")
    if load and not _load_version(path):
        return False
    print(f"{path}: no errors")
    return True


def _load_version(path: str | Path) -> bool:
    """Load and run a version, and print what fails; returns whether nothing did."""
    from tfserving.export.replay import run_in_fresh_process

    try:
        failures = run_in_fresh_process(path)
    except ExportError as error:
        return _report(f"{path}: error: {error}")
    for failure in failures:
        request = f"request {failure.number} (signature {failure.signature!r})"
        _report(f"{path}: error: {request} fails: {failure.reason}")
    return not failures


def _report(text: str) -> bool:
    """Print an error or a note; returns False."""
    print(text, file=sys.stderr)
    return False
