"""tfserving history: print the changes of models.config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_options import add_release_options, print_json, read_release_options
from tfserving.cli.text_table import print_table
from tfserving.errors import InvalidInputError
from tfserving.release.history import History, HistoryRecord, ModelState

_HEADER = ("TIME", "USER", "OPERATION", "MODEL", "BEFORE", "AFTER", "RESULT", "MESSAGE")


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving history") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Prints the changes that the commands made to models.config, the oldest first. BEFORE and AFTER are "
        "the versions of the model, with a * at the one that callers without version or label get, and the "
        "labels. A change whose result is not done was undone; --json prints the reason, the command line "
        "and the difference of the file as well.",
        f"examples:\n  {prog}\n  {prog} digits --limit 5\n  {prog} digits --json\n",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the model; without it, all models")
    parser.add_argument("--limit", metavar="N", type=int, help="print only the last N changes")
    add_release_options(parser, "models-dir", "json")
    return run_command(parser, argv, _print_history)


def _print_history(arguments: argparse.Namespace) -> None:
    options = read_release_options(arguments)
    if arguments.limit is not None and arguments.limit < 1:
        raise InvalidInputError(f"--limit {arguments.limit} is too small; print at least 1 change")
    records = [
        record
        for record in History(options.models_dir).read()
        if arguments.name is None or record.model == arguments.name
    ]
    if arguments.limit is not None:
        records = records[-arguments.limit :]
    if options.json:
        print_json({"changes": [record.to_json() for record in records]})
    else:
        print_table(_HEADER, map(_cells, records))


def _cells(record: HistoryRecord) -> tuple[str, ...]:
    time = f"{datetime.fromisoformat(record.time).astimezone():%Y-%m-%d %H:%M:%S}"
    before, after = _describe(record.before), _describe(record.after)
    return time, record.user, record.operation, record.model, before, after, record.result, record.message


def _describe(state: ModelState | None) -> str:
    """`1, 2* stable=1`: the versions, the promoted one with a *, and the labels."""
    if state is None:
        return "-"
    versions = ", ".join(f"{each}*" if each == state.promoted else str(each) for each in state.versions)
    labels = [f"{label}={version}" for label, version in sorted(state.labels.items())]
    return " ".join([versions or "none", *labels])
