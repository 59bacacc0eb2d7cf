"""tfserving versions: print the versions of models on disk."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_options import add_release_options, print_json, read_release_options
from tfserving.cli.text_table import print_table
from tfserving.errors import InvalidInputError
from tfserving.repository.completeness import find_version_error
from tfserving.repository.config import ModelConfig, read_models
from tfserving.repository.memory_need import format_size, measure_version
from tfserving.repository.model_names import check_name
from tfserving.repository.versions import find_versions, list_models, list_versions, next_version, resolve

_HEADER = ("MODEL", "VERSION", "SIZE", "CHANGED", "CONFIG", "ERROR")


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving versions") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints the versions of a model on disk in ascending order, one per line. Without NAME, or with "
        "--long, prints a table: the size of graph and variables, when the version was written, the models "
        "of the config that select it with its labels, and why it is not complete.",
        f"examples:\n  {prog} digits\n  {prog} digits --next\n  {prog}\n  {prog} digits --json\n",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the model; without it, all models")
    add_release_options(parser, "models-dir", "config")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--next", action="store_true", help="print the number that the next version gets instead"
    )
    output.add_argument("--long", action="store_true", help="print the table also for one model")
    output.add_argument("--json", action="store_true", help="print the table as one JSON document")
    return run_command(parser, argv, _print_versions)


@dataclass(frozen=True)
class _Row:
    """A version on disk; `selected` has its labels by the name of each model that selects it."""

    model: str
    version: int
    path: Path
    size: int
    changed: datetime
    selected: Mapping[str, tuple[str, ...]]
    error: str | None


def _print_versions(arguments: argparse.Namespace) -> None:
    options = read_release_options(arguments)
    name = arguments.name
    if name is not None:
        check_name(name)
    if arguments.next:
        if name is None:
            raise InvalidInputError("--next needs NAME, the model whose next version is wanted")
        print(next_version(options.models_dir / name))
    elif name is None or arguments.long or arguments.json:
        configured = read_models(options.config)
        rows = [
            row
            for model in ([name] if name is not None else list_models(options.models_dir))
            for row in _find_rows(model, options.models_dir, configured)
        ]
        if arguments.json:
            print_json({"versions": [_document(row) for row in rows]})
        else:
            print_table(_HEADER, map(_cells, rows))
    else:
        for version in list_versions(options.models_dir / name):
            print(version)


def _find_rows(model: str, models_dir: Path, configured: Sequence[ModelConfig]) -> Iterator[_Row]:
    base = models_dir / model
    found = find_versions(base)
    # Several models of the config may have one base path.
    entries = [each for each in configured if resolve(each.base_path, models_dir) == base]
    for version, path in found.items():
        selected = {
            entry.name: tuple(sorted(label for label, number in entry.labels.items() if number == version))
            for entry in entries
            if version in entry.policy.select(found)
        }
        changed = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
        yield _Row(model, version, path, measure_version(path), changed, selected, find_version_error(path))


def _cells(row: _Row) -> tuple[object, ...]:
    selected = ", ".join(
        f"{name} ({', '.join(labels)})" if labels else name for name, labels in row.selected.items()
    )
    changed = f"{row.changed.astimezone():%Y-%m-%d %H:%M:%S}"
    return row.model, row.version, format_size(row.size), changed, selected or "-", row.error or ""


def _document(row: _Row) -> dict[str, Any]:
    return {**asdict(row), "path": str(row.path), "changed": row.changed.isoformat(timespec="seconds")}
