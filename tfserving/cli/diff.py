"""tfserving diff: print what a models.config would change on servers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from tfserving.cli.command import MISUSE, new_parser, report_error, run_command
from tfserving.cli.config_file import print_diagnostics, read_text
from tfserving.cli.release_options import ReleaseOptions, print_json, read_release_options
from tfserving.cli.snapshots import add_snapshot_options, connect_required, read_snapshots, server_document
from tfserving.errors import ConfigError, TfServingError, UnavailableError
from tfserving.release.difference import ModelDifference, find_differences
from tfserving.release.served_models import ServerSnapshot
from tfserving.repository.config import ModelConfig, from_message
from tfserving.repository.config_text import read_message

_DIFFERENT = 1
_EXIT_STATUS = (
    "exit status: 0 done, and no server would change; 1 at least one would change; 2 failed, or invalid "
    "arguments or configuration;\n128 + N after signal N"
)


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving diff") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints which versions each server would load and unload, and which labels would change, if it used "
        "this models.config and the versions on disk. Changes nothing.",
        f"examples:\n  {prog}\n  {prog} --config new.config --server 127.0.0.1:8500\n  {prog} --json\n",
        exit_status=_EXIT_STATUS,
    )
    add_snapshot_options(parser)
    return run_command(parser, argv, partial(_diff, prog))


def _diff(prog: str, arguments: argparse.Namespace) -> int | None:
    try:
        return _compare(read_release_options(arguments))
    except TfServingError as error:
        # As with diff(1), 1 means that there are differences.
        return report_error(prog, error, MISUSE)


def _compare(options: ReleaseOptions) -> int | None:
    configured = _read_config(options)
    with connect_required(options) as connections:
        snapshots = read_snapshots(connections, connections.servers, options)
    for snapshot in snapshots:
        if snapshot.error:
            raise UnavailableError(f"{snapshot.server} does not respond: {snapshot.error}")
    found = [
        (
            snapshot,
            find_differences(configured, snapshot.models, snapshot.server.models_dir or options.models_dir),
        )
        for snapshot in snapshots
    ]
    if options.json:
        print_json({"servers": [_document(snapshot, differences) for snapshot, differences in found]})
    else:
        for snapshot, differences in found:
            for line in _lines(differences):
                print(f"{snapshot.server}: {line}")
    return _DIFFERENT if any(differences for _, differences in found) else None


def _read_config(options: ReleaseOptions) -> tuple[ModelConfig, ...]:
    file = str(options.config)
    text = read_text(file)
    if not print_diagnostics(file, text):
        raise ConfigError(f"{file} is not valid; fix the errors above")
    return from_message(read_message(text)).models


def _lines(differences: Sequence[ModelDifference]) -> Iterator[str]:
    for each in differences:
        yield from (f"load {each.model} {version}" for version in each.load)
        yield from (f"unload {each.model} {version}" for version in each.unload)
        for label, before, after in each.labels:
            old, new = ("none" if version is None else version for version in (before, after))
            yield f"label {each.model} {label} {old} -> {new}"
    if not differences:
        yield "no differences"


def _document(snapshot: ServerSnapshot, differences: Sequence[ModelDifference]) -> dict[str, Any]:
    return {
        **server_document(snapshot.server),
        "models": [
            {
                "name": each.model,
                "load": each.load,
                "unload": each.unload,
                "labels": [change._asdict() for change in each.labels],
            }
            for each in differences
        ],
    }
