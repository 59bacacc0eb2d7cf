"""tfserving status: print the models, versions, states and labels of servers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from tfserving.cli.command import FAILED, new_parser, run_command
from tfserving.cli.release_options import print_json, read_release_options
from tfserving.cli.snapshots import (
    add_snapshot_options,
    connect_required,
    labels_of,
    missing_models,
    read_snapshots,
    snapshot_document,
)
from tfserving.cli.text_table import print_table
from tfserving.release.served_models import ServerSnapshot
from tfserving.repository.config import read_models

_HEADER = ("SERVER", "MODEL", "VERSION", "STATE", "DEFAULT", "LABELS", "ERROR")


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving status") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints the versions of each model on each server, with their states and labels. DEFAULT marks the "
        "version that callers without version or label get. Models are those in the config and in the model "
        "repository. Exits with 1 if a server does not respond or does not serve a model of the config.",
        f"examples:\n  {prog}\n  {prog} --server 127.0.0.1:8500,127.0.0.1:8510\n  {prog} --json\n",
    )
    add_snapshot_options(parser)
    return run_command(parser, argv, _print_status)


def _print_status(arguments: argparse.Namespace) -> int | None:
    options = read_release_options(arguments)
    configured = [model.name for model in read_models(options.config)]
    with connect_required(options) as connections:
        snapshots = read_snapshots(connections, connections.servers, options)
    if options.json:
        print_json({"servers": [snapshot_document(snapshot) for snapshot in snapshots]})
    else:
        print_table(_HEADER, (row for snapshot in snapshots for row in _rows(snapshot, configured)))
    failed = any(snapshot.error or missing_models(snapshot, configured) for snapshot in snapshots)
    return FAILED if failed else None


def _rows(snapshot: ServerSnapshot, configured: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """The rows of a server; versions that ended are shown only if they failed."""
    server = str(snapshot.server)
    if snapshot.error:
        yield server, "-", "-", "-", "", "", snapshot.error
        return
    for model in snapshot.models.values():
        for each in model.versions:
            if each.state != "END" or each.error_message:
                default = "yes" if each.version == model.default else ""
                labels = ",".join(labels_of(model, each.version))
                yield server, model.name, each.version, each.state, default, labels, each.error_message
    for name in configured:
        if name not in snapshot.models:
            yield server, name, "-", "not served", "", "", ""
